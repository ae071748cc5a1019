"""Multi Model Server behind nginx: HTTP, queue and admission, with our backend in place of its own.

The jar of the PyPI wheel is run unmodified. It starts `model_server_home/mms/model_service_worker.py`; the run
directory is that home, and the file there is ours.
"""

import importlib.util
import json
import os
import shlex
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from hfserve.settings import MIB, Settings

CONNECTIONS = 64
"""Requests that MMS hands on at once; each of its "workers" is such a connection."""

SMALL_BUFFERS = (
    "-Dio.netty.allocator.maxOrder=6", "-Dio.netty.allocator.numDirectArenas=1", "-Dio.netty.allocator.numHeapArenas=1",
)  # fmt: skip
"""Netty takes memory by 512 KiB instead of 16 MiB, which small bodies never fill: 12 MiB less."""

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
    (run_dir / "store" / "model").mkdir(parents=True, exist_ok=True)
    (run_dir / "tmp").mkdir(exist_ok=True)
    (run_dir / "log4j2.xml").write_text((files("hfserve.boot") / "log4j2.xml").read_text())
    lines = {**_defaults(settings), **settings.mms, **_fixed(run_dir)}
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
    return int(settings.mms.get("default_workers_per_model", CONNECTIONS))


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


def _fixed(run_dir: Path) -> dict[str, object]:
    return {
        "inference_address": f"unix:{run_dir}/mms.sock",
        "management_address": f"unix:{run_dir}/mms-management.sock",
        "model_store": run_dir / "store",
        "load_models": "model=model",
        "default_service_handler": "service.py:handle",
        "decode_input_request": "false",
    }
