"""Multi Model Server behind nginx: HTTP, queue and admission, with our backend in place of its own.

The jar of the PyPI wheel is run unmodified. It starts `model_server_home/mms/model_service_worker.py`; the run
directory is that home, and the file there is ours.
"""

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import time
from importlib.resources import files
from pathlib import Path

from hfserve.boot import ask
from hfserve.errors import LoadError
from hfserve.settings import MIB, Settings

log = logging.getLogger(__name__)

CONNECTIONS = 64
"""Requests that MMS hands on at once; each of its "workers" is such a connection."""

CONNECTIONS_OF_MANY = 8
"""The same for each of many models: every connection is a thread of Java's."""

SMALL_BUFFERS = (
    "-Dio.netty.allocator.maxOrder=6", "-Dio.netty.allocator.numDirectArenas=1", "-Dio.netty.allocator.numHeapArenas=1",
)  # fmt: skip
"""Netty takes memory by 512 KiB instead of 16 MiB, which small bodies never fill: 12 MiB less."""

ONE = {"load_models": "model=model"}

RETRY = 0.05
"""Seconds between two tries to register a model."""

BACKEND = "from hfserve.doors.mms_backend import main\n\nmain()\n"


def find_java() -> str | None:
    """The java program, None when there is none."""
    home = os.environ.get("JAVA_HOME")
    candidate = Path(home, "bin", "java") if home else None
    return str(candidate) if candidate and candidate.exists() else shutil.which("java")


def find_jar() -> Path | None:
    """The server's jar inside the wheel, without importing that package."""
    spec = importlib.util.find_spec("mms")
    places = spec.submodule_search_locations if spec else None
    jar = Path(next(iter(places)), "frontend", "model-server.jar") if places else None
    return jar if jar and jar.exists() else None


def write(settings: Settings, run_dir: Path) -> None:
    """Lay out the home, the store with its one model, and the configuration."""
    home = run_dir / "mms"
    (home / "metrics").mkdir(parents=True, exist_ok=True)
    (home / "model_service_worker.py").write_text(BACKEND)
    (home / "metrics" / "metric_collector.py").write_text("")
    if not settings.many:
        (run_dir / "store" / "model").mkdir(parents=True, exist_ok=True)
    (run_dir / "tmp").mkdir(exist_ok=True)
    (run_dir / "log4j2.xml").write_text((files("hfserve.boot") / "log4j2.xml").read_text())
    lines = {**_defaults(settings), **settings.mms, **_fixed(settings, run_dir)}
    (run_dir / "mms.properties").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))


def command(settings: Settings, run_dir: Path, java: str, jar: Path) -> list[str]:
    """The argv that runs the server itself; its own launcher would orphan it on SIGTERM."""
    return [
        java, "-Xms32m", "-Xmx384m", "-XX:MaxDirectMemorySize=256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError", "-Xshare:auto", *SMALL_BUFFERS, f"-Dmodel_server_home={run_dir}",
        f"-Djava.io.tmpdir={run_dir}/tmp",
        f"-Dlog4j.configurationFile=file://{run_dir}/log4j2.xml", *shlex.split(settings.vmargs),
        "-cp", str(jar), "com.amazonaws.ml.mms.ModelServer", "--python", sys.executable,
        "-f", str(run_dir / "mms.properties"),
    ]  # fmt: skip


def ready_connections(description: bytes) -> int:
    """How many connections MMS has to the workers, from its description of the model."""
    try:
        return sum(worker["status"] == "READY" for worker in json.loads(description)["workers"])
    except (ValueError, KeyError, TypeError):
        return 0


def connections(settings: Settings) -> int:
    """How many connections MMS is told to keep."""
    usual = CONNECTIONS_OF_MANY if settings.many else CONNECTIONS
    return int(settings.mms.get("default_workers_per_model", usual))


class Registration:
    """The place in MMS of one model of many; it is taken again whenever what MMS started for it ends."""

    def __init__(self, run_dir: Path, name: str, model_dir: Path, settings: Settings) -> None:
        self._management = run_dir / "mms-management.sock"
        self._name = name
        self._model_dir = model_dir
        self._connections = connections(settings)
        self._patience = settings.startup_timeout_s
        self._backend: int | None = None
        self._joining: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Register the model, and return when its connections stand; raises LoadError."""
        end = time.monotonic() + self._patience
        options = f"url={self._model_dir.name}&model_name={self._name}&initial_workers={self._connections}"
        while time.monotonic() < end:
            await self._unregister()
            status, _ = await self._ask("POST", f"/models?{options}&synchronous=true", end - time.monotonic())
            if status == 200:
                self._watch()
                return
            await asyncio.sleep(RETRY)
        raise LoadError("Multi Model Server does not take the model")

    async def leave(self) -> None:
        """Give the place up, and see that nothing of it is left."""
        self._stop_joining()
        await self._unregister()

    def let_go(self) -> None:
        """Let what happens to MMS happen: the server stops."""
        self._stop_joining()
        if self._backend is not None:
            asyncio.get_running_loop().remove_reader(self._backend)

    def _stop_joining(self) -> None:
        if self._joining:
            self._joining.cancel()

    async def _unregister(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            asyncio.get_running_loop().remove_reader(backend)
        await self._ask("DELETE", f"/models/{self._name}", self._patience)
        if backend is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(backend, signal.SIGKILL)
            os.close(backend)

    async def _ask(self, method: str, address: str, patience: float) -> tuple[int, bytes]:
        return await ask.send(method, self._management, address, patience)

    def _watch(self) -> None:
        """MMS never replaces a dead backend."""
        try:
            self._backend = os.pidfd_open(int((self._model_dir / "backend.pid").read_text()))
        except (OSError, ValueError):
            self._again()
        else:
            asyncio.get_running_loop().add_reader(self._backend, self._again)

    def _again(self) -> None:
        if self._backend is not None:
            asyncio.get_running_loop().remove_reader(self._backend)
        log.warning("a model is registered again: what MMS started for it ended", extra={"model": self._name})
        self._joining = asyncio.ensure_future(self.join())
        self._joining.add_done_callback(self._joined)

    def _joined(self, joining: "asyncio.Task[None]") -> None:
        if not joining.cancelled() and (error := joining.exception()):
            log.error("a model is not registered any more: %s", error, extra={"model": self._name})


def _defaults(settings: Settings) -> dict[str, object]:
    return {
        "job_queue_size": settings.max_queued,
        "default_response_timeout_seconds": round(settings.startup_timeout_s + settings.timeout + settings.hang_s),
        "unregister_model_timeout": 30,
        "max_request_size": 2 * MIB,
        "max_response_size": 4 * MIB,
        "number_of_netty_threads": 2,
        "netty_client_threads": 2,
        "number_of_gpu": 0,
        "async_logging": "false",
        "metric_time_interval": 86400,
        "default_workers_per_model": CONNECTIONS,
    }


def _fixed(settings: Settings, run_dir: Path) -> dict[str, object]:
    store = {"model_store": run_dir / "models"} if settings.many else {"model_store": run_dir / "store", **ONE}
    return {
        "inference_address": f"unix:{run_dir}/mms.sock",
        "management_address": f"unix:{run_dir}/mms-management.sock",
        **store,
        "default_service_handler": "service.py:handle",
        "decode_input_request": "false",
    }
