"""The servers that are compared: how each is started, when it is up, and how it is ended with nothing left behind."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import procfs

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
PATIENCE = 180.0
"""Seconds that a server may take to start."""

NOT_INHERITED = ("HF_", "HFSERVE_", "SAGEMAKER_", "MMS_", "OMP_", "MKL_", "PORT", "PYTHON", "VIRTUAL_ENV")
"""Variables that would change what is measured."""


@dataclass(frozen=True)
class Target:
    """A server that can be started."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    port: re.Pattern[str]
    """Finds the port in what the server prints."""
    is_up: Callable[[str], bool]


@dataclass(frozen=True)
class Server:
    """A server that is up; `startup_s` is the time from its process's start to that."""

    url: str
    pid: int
    startup_s: float

    @property
    def invocations(self) -> str:
        """Where to send the texts."""
        return f"{self.url}/invocations"


def hfserve(model: Path) -> Target:
    """This project, with the settings that a user gets who sets none; up when /ping says so."""
    return Target(
        "hfserve",
        (str(Path(sys.executable).with_name("hfserve")), "serve", str(model), "--port", "0"),
        {},
        re.compile(r'"event": "starting".*"port": (\d+)'),
        lambda url: call(f"{url}/ping") is not None,
    )


def fastapi(model: Path) -> Target:
    """The baseline; up when it gives its first answer, since it has no /ping."""
    python = _environment_of_the_baseline()
    return Target(
        "FastAPI + pipeline",
        (python, "-m", "uvicorn", "baseline_fastapi:app", "--app-dir", str(HERE), "--port", "0", "--no-access-log"),
        {"MODEL": str(model)},
        re.compile(r"running on http://127\.0\.0\.1:(\d+)"),
        lambda url: call(f"{url}/invocations", {"inputs": "are you there?"}) is not None,
    )


@contextlib.contextmanager
def started(target: Target) -> Iterator[Server]:
    """The server, up; it and all its children have ended afterwards."""
    run_dir = Path(tempfile.mkdtemp(prefix="hfserve-bench-"))
    output = run_dir / "output"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    environment = {**inherited, "HF_HUB_OFFLINE": "1", "HFSERVE_RUN_DIR": str(run_dir / "run"), **target.environment}
    with output.open("wb") as sink:
        began = time.perf_counter()
        process = subprocess.Popen(target.command, env=environment, stdout=sink, stderr=subprocess.STDOUT, cwd=run_dir)
    try:
        url = _wait_until_up(target, process, output)
        yield Server(url, process.pid, time.perf_counter() - began)
    finally:
        _end(process)
        shutil.rmtree(run_dir, ignore_errors=True)


def call(url: str, body: object = None) -> bytes | None:
    """The body of an answer 200 to GET, or to POST of a body as JSON; None when there is none."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        if body is None:
            connection.request("GET", parts.path)
        else:
            connection.request("POST", parts.path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return content if response.status == 200 else None


def versions(target: Target) -> dict[str, str]:
    """What the target runs on."""
    code = (
        "import json, platform; from importlib.metadata import version as v;"
        "print(json.dumps({'python': platform.python_version(), **{n: v(n) for n in ('torch', 'transformers')}}))"
    )
    python = Path(target.command[0]).with_name("python")
    return json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)


def _wait_until_up(target: Target, process: "subprocess.Popen[bytes]", output: Path) -> str:
    end = time.monotonic() + PATIENCE
    url = None
    while not (url and target.is_up(url)):
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{target.name} did not come up:\n{output.read_text(errors='replace')[-4000:]}")
        if not url and (found := target.port.search(output.read_text(errors="replace"))):
            url = f"http://127.0.0.1:{found[1]}"
        time.sleep(0.05)
    return url


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to the first process; SIGKILL to whatever of its tree is still there later."""
    family = procfs.tree(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(40)
    end = time.monotonic() + 5
    while (left := [pid for pid in family if procfs.is_alive(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        print(f"process {pid} was left behind and is killed", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _environment_of_the_baseline() -> str:
    """Its own virtual environment, made at first use, with the torch and transformers that hfserve has."""
    wanted = ["fastapi", "uvicorn", *(f"{name}=={_release(name)}" for name in ("torch", "transformers"))]
    path = CACHE / "fastapi"
    python, made_of = path / "bin" / "python", path / "made-of.json"
    if not made_of.exists() or json.loads(made_of.read_text()) != wanted:
        print(f"making the baseline's environment: {' '.join(wanted)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", path], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True, stdout=sys.stderr)
        made_of.write_text(json.dumps(wanted))
    return str(python)


def _release(name: str) -> str:
    return version(name).partition("+")[0]
