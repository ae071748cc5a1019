"""One worker process: a copy of the model, its scheduler, and both doors to it.

Started by the supervisor, to which it reports over a pipe: `{"state", "reason"}` when that changes, and a heartbeat.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import uvloop

from hfserve import artifacts, logs
from hfserve.doors import asgi
from hfserve.doors.bidi import Bidi
from hfserve.doors.http import Server, embedded
from hfserve.doors.loads import Loads
from hfserve.doors.mms_protocol import MmsDoor
from hfserve.doors.stash import Stash
from hfserve.errors import OutOfMemory, StartError
from hfserve.messages import Reply, Request
from hfserve.metrics import WorkerMetrics
from hfserve.model import Model, load
from hfserve.runtimes import device
from hfserve.scheduler import Limits, Scheduler
from hfserve.service import Service
from hfserve.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

_THRESHOLD = gc.get_threshold()

BEAT = 2.0
"""Seconds between two heartbeats."""

LOOK = 0.01
"""Seconds between two looks whether all is answered."""

LINGER = 0.1
"""Seconds without a request after which none is taken to be on its way to a model that is unloaded."""

FETCHED = 0.5
"""Seconds in which nginx fetches an answer that waits for it."""

LOADING = 50_000
"""Objects made between two looks for garbage while the model loads: importing makes very many, and they stay."""


class Worker:
    """What lives in the process, in the order of its life: load, open the doors, answer, drain.

    The doors open only when the model can answer, so that nobody is ever handed a worker that cannot.
    """

    def __init__(
        self, run_dir: Path, slot: int, report: int, *, tcp: int | None = None, shared: int | None = None
    ) -> None:
        self.settings = Settings.load(run_dir)
        device.divide(self.settings.workers or 1)
        self.run_dir = run_dir
        self.slot = slot
        self._report = report
        self._tcp = tcp
        self._shared = shared
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Live until SIGTERM, or until the model cannot be loaded; the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loading = asyncio.create_task(self._load())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            return 0
        model = loading.result()
        if model is None:
            return StartError.exit_status
        await self._serve(model)
        return 0

    async def _load(self) -> Model | None:
        """The model, warmed up; None when it cannot be loaded, and the supervisor knows why."""
        try:
            self._tell("starting", "the model is loading")
            log.info("loading the model")
            artifact = artifacts.load(self.run_dir)
            sys.path[:0] = [str(path) for path in artifact.python_path]
            model = await _apart(partial(load, artifact, self.settings, slot=self.slot))
            self._tell("starting", "the model is warming up")
            log.info("warming up")
            await _apart(model.warm_up)
            self._describe(model)
        except StartError as error:
            self._tell("failed", str(error), out_of_memory=_out_of_memory(error))
        except Exception as error:
            log.exception("the model did not load")
            self._tell("failed", f"{type(error).__name__}: {error}", out_of_memory=_out_of_memory(error))
        else:
            return model
        return None

    def _describe(self, model: Model) -> None:
        """Leave what is served where the supervisor shows it; all workers write the same."""
        draft = self.run_dir / f"openapi-{self.slot}.json"
        draft.write_text(json.dumps(model.openapi()))
        draft.rename(self.run_dir / "openapi.json")

    async def _serve(self, model: Model) -> None:
        metrics = WorkerMetrics(model.task)
        limits = self._limits(model)
        loads = Loads(self.run_dir, self.slot, self.settings.workers or 1)
        async with Scheduler(
            model.run, limits, steps=model.steps, observe=metrics.observe, observe_step=metrics.observe_step,
            hold=loads.add,
        ) as scheduler:  # fmt: skip
            service = Answering(model, scheduler, metrics, stream_s=self.settings.stream_s, broken=self._give_up)
            stash = Stash()
            bidi = Bidi(service, model, self.settings, broken=self._give_up)
            http = self._http(service, stash, bidi)
            self._listen_for_connections(MmsDoor(
                service, stash, slot=self.slot, timeout=self.settings.timeout,
                tmp_dir=(self.settings.run_dir or self.run_dir) / "tmp",
                idler=partial(loads.idler, limits.max_batch_tokens),
            ))  # fmt: skip
            serving = asyncio.create_task(http.serve(self._listeners()))
            beating = asyncio.create_task(self._beat(scheduler))
            _tidy_up()
            log.info("ready", extra={"task": model.task, "lanes": limits.lanes})
            self._tell("ready", "", task=model.task)
            await self._stop.wait()
            if self._shared is not None:
                await self._until_idle(service)
            loads.leave()
            service.drain()
            await bidi.drain()
            await self._until_answered(service, stash)
            http.should_exit = True
            await serving
            beating.cancel()

    def _give_up(self, reason: str) -> None:
        """Be replaced: what was accepted is still answered, though hardly well."""
        self._tell("starting", f"worker {self.slot}: {reason}")
        self._stop.set()

    def _listeners(self) -> list[socket.socket]:
        """Where HTTP comes in: the server's own address with nothing in front, else a socket of this worker's.

        Of one model of many, also a socket that all its workers share.
        """
        if self._tcp is not None:
            return [socket.socket(fileno=self._tcp)]
        shared = [] if self._shared is None else [socket.socket(fileno=self._shared)]
        return [self._unix(f"worker-{self.slot}.sock"), *shared]

    async def _until_idle(self, service: "Answering") -> None:
        """Answer what waits in MMS for this model, which nothing tells of but that it comes, one after the other."""
        end = time.monotonic() + self.settings.drain_s
        idle, seen = time.monotonic(), service.seen
        while time.monotonic() < min(end, idle + LINGER):
            await asyncio.sleep(LOOK)
            if service.now or service.seen != seen:
                idle, seen = time.monotonic(), service.seen

    async def _until_answered(self, service: "Answering", stash: Stash) -> None:
        """Wait for what was accepted; then a moment for nginx to fetch it."""
        end = time.monotonic() + self.settings.drain_s
        while service.now and time.monotonic() < end:
            await asyncio.sleep(LOOK)
        end = time.monotonic() + FETCHED
        while len(stash) and time.monotonic() < end:
            await asyncio.sleep(LOOK)

    def _http(self, service: Service, stash: Stash, bidi: Bidi) -> Server:
        forward = asgi_forward(self.run_dir) if self._tcp is not None else None
        application = asgi.app(service, stash, self.settings, forward=forward, also=bidi.routes)
        return embedded(
            application, message=self.settings.body_limit, timeout_keep_alive=75,
            timeout_graceful_shutdown=int(self.settings.drain_s) or None,
        )  # fmt: skip

    def _limits(self, model: Model) -> Limits:
        chosen = self.settings
        usual = device.at_once(device.choose(chosen.device, self.slot))
        return Limits(
            lanes=chosen.lanes or (usual.lanes if model.concurrent else 1), threads=device.cores(),
            max_batch=chosen.max_batch or usual.max_batch,
            max_batch_tokens=chosen.max_batch_tokens or usual.max_batch_tokens,
            max_queued=chosen.max_queued, delay=chosen.batch_delay_ms / 1000,
        )  # fmt: skip

    async def _beat(self, scheduler: Scheduler) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self._send({"overdue": scheduler.overdue})

    def _tell(self, state: str, reason: str, **more: object) -> None:
        self._send({"state": state, "reason": reason, **more})

    def _send(self, report: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._report, json.dumps(report).encode() + b"\n")

    def _unix(self, name: str) -> socket.socket:
        path = self.run_dir / name
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1024)
        listener.setblocking(False)
        return listener

    def _listen_for_connections(self, door: MmsDoor) -> None:
        """Door 1: connections of MMS come as descriptors, each by a channel that stays open as long as it."""
        listener = self._unix(f"worker-{self.slot}.fds")

        async def serve(channel: socket.socket, connection: socket.socket) -> None:
            with channel:
                reader, writer = await asyncio.open_unix_connection(sock=connection, limit=1 << 24)
                await door.serve(reader, writer)

        def accept() -> None:
            channel, _ = listener.accept()
            channel.setblocking(True)
            descriptors = socket.recv_fds(channel, 1, 1)[1]
            task = asyncio.ensure_future(serve(channel, socket.socket(fileno=descriptors[0])))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        asyncio.get_running_loop().add_reader(listener, accept)


class Answering(Service):
    """A service that knows how many requests it answers `now`, and how many it has `seen`."""

    now = 0
    seen = 0

    async def answer(self, request: Request) -> Reply:
        """The reply to a request."""
        self.now += 1
        self.seen += 1
        try:
            return await super().answer(request)
        finally:
            self.now -= 1


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether it, or what caused it, is about memory: Python's, or torch's, which has a class of its own."""
    while error:
        if isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__
    return False


async def _apart(work: Callable[[], T]) -> T:
    """Do something in a thread that ends with it, and with it the threads that OpenMP made for it."""
    thread = ThreadPoolExecutor(1)
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)


def _tidy_up() -> None:
    """Give back what loading has left over, and never look again at what it made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLD)
    ctypes.CDLL(None).malloc_trim(0)


def asgi_forward(run_dir: Path) -> asgi.Forward:
    """Hands a request to the supervisor's own application, on its unix socket."""
    import httpx
    from starlette.requests import Request
    from starlette.responses import Response

    client = httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(run_dir / "control.sock")), base_url="http://control", timeout=2.0
    )

    async def forward(request: Request) -> Response:
        reply = await client.request(
            request.method, request.url.path, headers={"x-request-id": asgi.request_id(request.headers)}
        )
        return Response(reply.content, reply.status_code, dict(reply.headers))

    return forward


def main() -> None:
    """python -m hfserve.doors.worker --run-dir DIR --slot N --report FD [--tcp FD] [--shared FD]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("--tcp", type=int)
    parser.add_argument("--shared", type=int)
    parser.add_argument("--name", default="")
    live(**vars(parser.parse_args()))


def live(
    run_dir: Path, slot: int, report: int, *, tcp: int | None = None, shared: int | None = None, name: str = ""
) -> NoReturn:
    """Be a worker, as this process, until its end; the numbers are those of open files."""
    gc.set_threshold(LOADING)
    worker = Worker(run_dir, slot, report, tcp=tcp, shared=shared)
    logs.configure(name or f"worker-{slot}", worker.settings.log_level)
    status = asyncio.Runner(loop_factory=uvloop.new_event_loop).run(worker.run())
    sys.stdout.flush()
    os._exit(status)  # a lane of user code may never end; nothing waits for it


if __name__ == "__main__":
    main()
