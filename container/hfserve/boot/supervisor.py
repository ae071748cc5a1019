"""`hfserve serve`: the process that starts all others, tells the truth about them, and ends them in order. PID 1."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from hfserve import openai
from hfserve.boot import ask, capacity, control, management, mms, nginx
from hfserve.boot.models import Models
from hfserve.boot.nursery import Nursery
from hfserve.boot.processes import Child, Processes, Sink, describe, memory, sessions
from hfserve.boot.served import Served, Told
from hfserve.boot.workers import Means
from hfserve.doors.http import Server, embedded
from hfserve.errors import LoadError, SettingsError, StartError
from hfserve.health import Health, combine
from hfserve.metrics import ModelsMetrics, SupervisorMetrics, exposition
from hfserve.runtimes import device
from hfserve.settings import Settings, child_environment

log = logging.getLogger(__name__)

INSTALLED_BY = {
    "nginx": "sudo apt-get install nginx-light",
    "java": "sudo apt-get install openjdk-17-jre-headless",
    "multi-model-server": "pip install multi-model-server==1.1.11",
}

LAST_WORDS = 1.0
"""Seconds that whoever was let in by the stand-in gets to ask and be answered."""

LONGEST_RUN_DIR = 76
"""Characters: the name of a unix socket has 107 at most."""


class Supervisor:
    """One run, from the first log line to the exit status."""

    def __init__(self, settings: Settings, run_dir: Path, sink: Sink) -> None:
        self.settings = settings
        self.run_dir = run_dir
        self.metrics = SupervisorMetrics()
        self._sink = sink
        self._processes = Processes(sink)
        self._means = Means(run_dir, self._processes, self.metrics, many=settings.many)
        self._nginx = nginx.find() if settings.nginx else None
        self._java = mms.find_java()
        self._jar = mms.find_jar()
        self._engine = self._choose_engine()
        self._mms_health = Health("ready") if self._engine == "asgi" else Health("starting", "MMS is starting")
        self._front_health = Health("starting", "nothing has been started yet")
        self._served: Served | None = None
        self._models: Models | None = None
        self._nursery: Nursery | None = None
        self._many: Sequence[BaseRoute] | None = None
        self._children: dict[str, Child] = {}
        self._draining = False
        self._stop = asyncio.Event()
        self._tcp: socket.socket | None = None
        self._stand_in: Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: StartError | None = None

    # The life of the server

    async def run(self) -> int:
        """Serve until SIGTERM; raises StartError when it cannot."""
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        if self.settings.many:
            self._open_models()
        try:
            async with self._control():
                self._begin(self._start(started))
                await self._stop.wait()
                await self._drain()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._nursery and self._nursery.child:
                self._nursery.child.kill_session()
            for child in self._children.values():
                child.kill_session()
            await self._processes.heard()
        if self._failure:
            raise self._failure
        log.info("stopped")
        return 0

    async def _start(self, started: float) -> None:
        self._take_port()
        settings = self.settings
        count = settings.workers or (1 if settings.many else device.processes(settings.device))
        log.info(
            "starting", extra={"engine": self._engine, "nginx": bool(self._nginx), "workers": count, "port": self._port}
        )
        (self.run_dir / "metrics").mkdir(exist_ok=True)
        if self._nursery:
            self._begin(self._nursery.live())
        if not self._models:
            means = replace(self._means, tcp=self._tcp.fileno() if self._tcp else None)
            self._served = Served(settings, self.run_dir, means, count=count, changed=self._changed)
            self._served.open()
        self._front_health = Health("ready")
        self._changed()
        if self._nginx:
            self._write_nginx(count)
            self._begin(self._keep("nginx", self._start_nginx))
        if self._served:
            await self._served.find()
            self._begin(self._served.live())
        if self._engine == "mms":
            mms.write(settings, self.run_dir)
            self._begin(self._keep("mms", lambda: self._start_mms(count)))
        while not self.health().ok:
            await asyncio.sleep(0.02)
        seconds = round(time.monotonic() - started, 2)
        url = f"http://{'127.0.0.1' if self.settings.host == '0.0.0.0' else self.settings.host}:{self._port}"
        if settings.many:
            log.info("ready", extra={"url": f"{url}/models", "seconds": seconds})
        else:
            log.info("ready", extra={"url": f"{url}/invocations", "seconds": seconds, "try": _curl(url)})

    def _open_models(self) -> None:
        """Be ready to load models, none of which is there yet."""
        if self.settings.model:
            log.warning("%s is not served: there are many models", self.settings.model)
        if self.settings.preload:
            self._nursery = Nursery(self._processes, self.metrics, self._means.environment)
        means = replace(self._means, nursery=self._nursery)
        figures = ModelsMetrics(self.metrics.registry)
        self._models = Models(self.settings, means, figures, behind_mms=self._engine == "mms")
        self._models.open()
        self._many = management.routes(self._models, self.settings)
        from hfserve import openapi

        about = openapi.many(managed=self.settings.multi_model, on_demand=bool(self.settings.models))
        (self.run_dir / "openapi.json").write_text(json.dumps(about))

    def health(self) -> Health:
        """The truth about the whole, as /ping tells it."""
        if self._draining:
            return Health("draining", "the server is stopping")
        served = [self._served.health] if self._served else []
        if self._nursery and not self._nursery.over.is_set():
            served = [Health("starting", "the libraries that models share are being imported")]
        return combine([self._front_health, *served, self._mms_health])

    async def _drain(self) -> None:
        """Refuse what is new, answer what was accepted, end all children (contract row 3)."""
        started = time.monotonic()
        self._draining = True
        (self.run_dir / "draining").touch()
        if not self._failure:
            log.info("stopping: accepted requests are answered, new ones refused")
        left = self.settings.drain_s if not self._failure else 0
        self._changed()
        if self._models:
            self._models.refuse()
        if self._nginx and (front := self._children.get("nginx")):
            while left and front.running and await self._writing() and time.monotonic() - started < left:
                await asyncio.sleep(0.05)
            await front.end(signal.SIGQUIT, 1.0)
        patience = 1.0 if self._nginx else max(0.1, left - (time.monotonic() - started))
        if served := self._models or self._served:
            await served.stop(patience)
        if java := self._children.get("mms"):
            java.kill_session()
        if left and time.monotonic() - started >= left:
            log.warning("some requests were still unanswered after %g s", left)

    def _interrupted(self) -> None:
        """Ctrl-C; the second one does not wait for anybody."""
        if self._stop.is_set():
            os._exit(1)
        self._stop.set()

    # Its parts

    def _choose_engine(self) -> str:
        if self.settings.engine == "asgi" or (self.settings.engine == "auto" and not self.settings.nginx):
            return "asgi"
        found = {"nginx": self._nginx, "java": self._java, "multi-model-server": self._jar}
        missing = [name for name, place in found.items() if not place]
        if not missing:
            return "mms"
        sentence = f"{' and '.join(missing)} not found; type: {' && '.join(INSTALLED_BY[name] for name in missing)}"
        if self.settings.engine == "mms":
            raise SettingsError(f"the engine mms cannot run: {sentence}; or use --engine asgi")
        log.warning("serving on the engine asgi instead of mms: %s", sentence)
        return "asgi"

    @contextlib.asynccontextmanager
    async def _control(self) -> AsyncIterator[None]:
        """The supervisor's own application on its unix socket."""
        listener = socket.socket(socket.AF_UNIX)
        path = self.run_dir / "control.sock"
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        server = self._server()
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving

    def _server(self, *headers: tuple[str, str]) -> Server:
        application = control.app(
            self.health, self._metrics_text, self._execution_parameters,
            openapi=self.run_dir / "openapi.json", models=self._names,
            playground=self.settings.has_playground and not self.settings.many, many=self._many,
        )  # fmt: skip
        return embedded(application, timeout_graceful_shutdown=1, headers=list(headers))

    def _take_port(self) -> None:
        """Find out early and in words whether the port is free; with nothing in front, keep it."""
        family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.settings.host, self.settings.port))
            self._port = listener.getsockname()[1]
            if self._nginx:
                listener.close()
                return
            listener.listen(1024)
        except OSError as error:
            place = f"{self.settings.host}:{self.settings.port}"
            raise SettingsError(
                f"cannot listen on {place}: {error.strerror}; choose another port with --port"
            ) from None
        listener.setblocking(False)
        self._tcp = listener

    def _changed(self) -> None:
        """Without nginx, answer in the workers' place while none of them is ready; for many models, always."""
        ready = self._served.ready if self._served else 0
        self.metrics.workers_ready.set(ready)
        if self._tcp is None:
            return
        needed = self._draining or not ready
        if needed and self._stand_in is None:
            self._stand_in = self._server(("Connection", "close"))
            self._begin(self._stand_in.serve([self._tcp.dup()]))
        elif not needed and self._stand_in is not None:
            loop = asyncio.get_running_loop()
            for listener in (each for acceptor in self._stand_in.servers for each in acceptor.sockets):
                # No request that follows a good /ping may come here; closing now would lose who is just let in.
                loop.remove_reader(listener.fileno())
            loop.call_later(LAST_WORDS, setattr, self._stand_in, "should_exit", True)
            self._stand_in = None

    def _names(self) -> list[str]:
        return self._models.names() if self._models else [self.settings.model_name or openai.UNNAMED]

    def _write_nginx(self, workers: int) -> None:
        text = nginx.configuration(
            self.settings, self.run_dir, port=self._port, workers=workers, mms=self._engine == "mms"
        )
        (self.run_dir / "nginx.conf").write_text(text)

    def _start_nginx(self) -> Child:
        assert self._nginx
        (self.run_dir / "nginx.sock").unlink(missing_ok=True)
        argv = [self._nginx, "-p", str(self.run_dir), "-c", str(self.run_dir / "nginx.conf"), "-e", "stderr"]
        return self._processes.start(
            "nginx", argv, environment=child_environment(), if_parent_dies=signal.SIGTERM, cwd=self.run_dir
        )

    def _start_mms(self, workers: int) -> Child:
        assert self._java
        assert self._jar
        for name in ("mms.sock", "mms-management.sock", "backend.pid"):
            (self.run_dir / name).unlink(missing_ok=True)
        self._mms_health = Health("starting", "MMS is starting")
        environment = child_environment(
            HFSERVE_BACKEND_RUN_DIR="" if self._models else str(self.run_dir), HFSERVE_BACKEND_WORKERS=str(workers),
            PYTHONSAFEPATH="1", TMPDIR=str(self.run_dir), LOG_LOCATION=str(self.run_dir),
            METRICS_LOCATION=str(self.run_dir),
        )  # fmt: skip
        child = self._processes.start(
            "mms", mms.command(self.settings, self.run_dir, self._java, self._jar), environment=environment,
            cwd=self.run_dir,
        )  # fmt: skip
        self._begin(self._watch_mms(child))
        return child

    async def _watch_mms(self, child: Child) -> None:
        """Ready once MMS has all its connections to the workers; with many models, once it can be told of one."""
        while child.running:
            if await self._mms_stands():
                break
            await asyncio.sleep(0.05)
        else:
            return
        self._mms_health = Health("ready")
        if not self._models:
            self._end_mms_with_its_backend(child)

    async def _mms_stands(self) -> bool:
        management = self.run_dir / "mms-management.sock"
        if self._models:
            return bool(await ask.get(management, "/models", 2.0))
        description = await ask.get(management, "/models/model", 2.0)
        return mms.ready_connections(description) >= mms.connections(self.settings)

    def _end_mms_with_its_backend(self, child: Child) -> None:
        """MMS never replaces a dead backend, so it is itself replaced when that dies."""
        loop = asyncio.get_running_loop()
        backend = os.pidfd_open(int((self.run_dir / "backend.pid").read_text()))

        def ended() -> None:
            loop.remove_reader(backend)
            os.close(backend)
            child.kill_session()

        loop.add_reader(backend, ended)

    async def _keep(self, name: str, start: Callable[[], Child]) -> None:
        """Start a process of the front, and start it again whenever it ends."""
        failures = 0
        while True:
            began = time.monotonic()
            self._children[name] = child = start()
            status = await asyncio.shield(child.ended)
            child.kill_session()
            if self._draining:
                return
            failures = 0 if time.monotonic() - began > 5 else failures + 1
            if failures >= 3:
                raise LoadError(f"{name} does not stay up: {describe(status)}; its own lines above say why")
            self.metrics.restarts.labels(name).inc()
            if name == "mms":
                self._mms_health = Health("starting", f"MMS ended with {describe(status)} and is being replaced")
            log.error("%s ended with %s and is started again", name, describe(status))

    async def _writing(self) -> int:
        """How many requests nginx is answering."""
        return nginx.writing((await ask.get(self.run_dir / "nginx.sock", "/status", 1.0)).decode())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside all else; a StartError of it ends the server."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if task.cancelled() or not (error := task.exception()):
            return
        if not isinstance(error, StartError):
            log.error("the supervisor failed", exc_info=error)
            error = LoadError(f"{type(error).__name__}: {error}")
        self._failure = self._failure or error
        self._stop.set()

    # What it tells

    async def _metrics_text(self) -> bytes:
        if self._models:
            await self._models.measure()
        return await asyncio.to_thread(self._exposition, self._leaders())

    def _exposition(self, leaders: dict[str, list[int]]) -> bytes:
        pids = sessions()
        for name, group in leaders.items():
            size = sum(memory(pid) for leader in group for pid in pids.get(leader, ()))
            self.metrics.memory.labels(name).set(size)
        self.metrics.memory.labels("supervisor").set(memory(os.getpid()))
        return exposition(self.metrics, self.run_dir / "metrics")

    def _leaders(self) -> dict[str, list[int]]:
        """The processes that lead sessions, by kind."""
        found = {name: [child.pid] for name, child in self._children.items() if child.running}
        if self._nursery and self._nursery.child:
            found["nursery"] = [self._nursery.child.pid]
        if self._served:
            found["worker"] = [worker.pid for worker in self._served.workers]
        if self._models:
            found["worker"] = self._models.pids()
        return found

    def _execution_parameters(self) -> dict[str, object]:
        return capacity.execution_parameters(self.settings, len(self._served.workers) if self._served else 1)


def serve(settings: Settings, sink: Sink) -> int:
    """Serve in this process until it is told to stop; the exit status."""
    given = settings.run_dir
    run_dir = given or Path(tempfile.mkdtemp(prefix="hfserve-"))
    try:
        if len(str(run_dir)) > LONGEST_RUN_DIR:
            raise SettingsError(
                f"{run_dir} is too long a name for a run directory; set HFSERVE_RUN_DIR to a shorter one"
            )
        run_dir.mkdir(parents=True, exist_ok=True)
        for left in ("draining", "openapi.json", "loads"):
            (run_dir / left).unlink(missing_ok=True)
        return asyncio.run(_run(settings, run_dir, sink))
    except StartError as error:
        if not isinstance(error, Told):
            log.error("cannot serve: %s", error)
        return error.exit_status
    finally:
        if not given:
            shutil.rmtree(run_dir, ignore_errors=True)


async def _run(settings: Settings, run_dir: Path, sink: Sink) -> int:
    return await Supervisor(settings, run_dir, sink).run()


def _curl(url: str) -> str:
    return f"""curl -d '{{"inputs":"I love this"}}' -H 'Content-Type: application/json' {url}/invocations"""
