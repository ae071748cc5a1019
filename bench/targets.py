"""The servers that are compared: how each is started, when it is up, and how it is ended with nothing left behind."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import procfs
import workload

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
HFSERVE = str(Path(sys.executable).with_name("hfserve"))
PATIENCE = 300.0
"""Seconds that a server may take to start; to calibrate is the longest."""

NOT_INHERITED = ("HF_", "HFSERVE_", "SAGEMAKER_", "MMS_", "OMP_", "MKL_", "PORT", "PYTHON", "VIRTUAL_ENV", "TEMP")
"""Variables that would change what is measured."""

EXACT = 1e-4
"""By how much a score may differ from the baseline's."""

EVERY_CASE = tuple(workload.CASES)
CLASSIFIES = ("text-classification",)
EMBEDS = ("feature-extraction",)

CALIBRATION = CACHE / "calibration.txt"
"""The sentences that int8 is calibrated on."""

Body = dict[str, Any]


class NotStarted(Exception):
    """A server that did not come up, with the end of what it said."""


@dataclass(frozen=True)
class Venv:
    """A virtual environment of a target's own, made at first use: what pip installs, one call after another."""

    name: str
    installs: tuple[tuple[str, ...], ...]

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(CACHE / self.name / "bin" / "python")

    def make(self) -> None:
        """Make it, unless it is there and made of the same."""
        made_of = CACHE / self.name / "made-of.json"
        wanted = [list(each) for each in self.installs]
        if made_of.exists() and json.loads(made_of.read_text()) == wanted:
            return
        print(f"making the environment of {self.name}: {wanted}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", CACHE / self.name], check=True)
        for each in wanted:
            subprocess.run([self.python, "-m", "pip", "install", "--quiet", *each], check=True, stdout=sys.stderr)
        made_of.write_text(json.dumps(wanted))


@dataclass(frozen=True)
class Target:
    """A server that can be started: a name, a command, an environment."""

    name: str
    command: Callable[[Path], list[str]]
    """Of a model's directory."""
    port: str
    """A pattern that finds the port in what the server prints."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """May name {model}, {task}, {run_dir} and {port}, a free one."""
    venv: Venv | None = None
    cases: tuple[str, ...] = EVERY_CASE
    tolerance: float = EXACT
    is_up_by_ping: bool = False
    """Whether 200 from /ping means that it can answer; if not, it is up when it has answered."""
    needs: tuple[str, ...] = ()
    """Modules without which it cannot be measured."""
    path: str = "/invocations"
    body: Callable[[Body], Body] = lambda body: body
    """A case's request as this server wants it."""
    answer: Callable[[Any], Any] = lambda answer: answer
    """Its answer as the case reads it."""

    @property
    def python(self) -> str:
        """The interpreter that it runs on."""
        return self.venv.python if self.venv else sys.executable


@dataclass(frozen=True)
class Server:
    """A server that is up; `startup_s` is the time from its process's start to that."""

    url: str
    """Where to send the texts."""
    pid: int
    startup_s: float


def ours(
    name: str, *, cases: tuple[str, ...] = CLASSIFIES, tolerance: float = EXACT, needs: tuple[str, ...] = (),
    parameters: Body | None = None, **environment: str,
) -> Target:  # fmt: skip
    """This project, with the settings of a user who sets nothing else."""
    return Target(
        name, lambda model: [HFSERVE, "serve", str(model), "--port", "0"], r'"event": "starting".*"port": (\d+)',
        {"HF_TASK": "{task}", **environment}, None, cases, tolerance, is_up_by_ping=True, needs=needs,
        body=lambda body: {**body, "parameters": parameters} if parameters else body,
    )  # fmt: skip


def peer(name: str, command: Callable[[Path], list[str]], venv: Venv, **environment: str) -> Target:
    """A pipeline behind something else, in our versions."""
    return Target(
        name, command, r"running on http://127\.0\.0\.1:(\d+)", {"MODEL": "{model}", **environment}, venv, CLASSIFIES
    )


def _release(name: str) -> str:
    return version(name).partition("+")[0]


TOOLKIT = Venv(
    "toolkit",
    (
        ("setuptools<81", "numpy<2", f"torch=={_release('torch')}", "transformers==4.57.6"),
        ("setuptools<81", "numpy<2", "sagemaker-inference==1.10.1", "multi-model-server==1.1.11"),
        ("--no-deps", "sagemaker-huggingface-inference-toolkit==2.6.0"),
    ),
)
"""Without what the toolkit needs for sounds only: librosa, pyctcdecode, phonemizer."""

OURS = tuple(f"{name}=={_release(name)}" for name in ("torch", "transformers"))
FASTAPI = Venv("fastapi", (("fastapi", "uvicorn", *OURS),))
LITSERVE = Venv("litserve", (("litserve==0.2.19", *OURS),))
RAY = Venv("ray", (("ray[serve]==2.60.0", *OURS),))
INFINITY = Venv("infinity", (("infinity-emb[server,torch]==0.0.78", OURS[0], "transformers==4.57.6"),))
"""Its sentence-transformers, older than 4, takes no transformers 5."""

TARGETS: dict[str, Target] = {
    "hfserve": ours("hfserve, nginx + MMS", cases=EVERY_CASE, HFSERVE_ENGINE="mms"),
    "hfserve-asgi": ours("hfserve, nginx alone", HFSERVE_ENGINE="asgi"),
    "hfserve-bf16": ours("hfserve in bf16", tolerance=0.1, HFSERVE_DTYPE="bfloat16"),
    "hfserve-int8": ours(
        "hfserve in int8", tolerance=0.1, needs=("openvino", "nncf"), HFSERVE_RUNTIME="openvino", HFSERVE_DTYPE="int8",
        HFSERVE_CALIBRATION=str(CALIBRATION),
    ),
    "hfserve-openvino": ours("hfserve on OpenVINO", needs=("openvino",), HFSERVE_RUNTIME="openvino"),
    "hfserve-tokens": ours(
        "hfserve, vectors of tokens", cases=EMBEDS, parameters={"pooling": "none"}, HFSERVE_ENGINE="mms"
    ),
    "toolkit": Target(
        "toolkit 2.6.0 + MMS 1.1.11",
        lambda model: [TOOLKIT.python, str(HERE / "baseline_toolkit.py")],
        r"Inference address: http://127\.0\.0\.1:(\d+)",
        {
            "HF_TASK": "{task}", "SAGEMAKER_BASE_DIR": "{run_dir}", "SAGEMAKER_BIND_TO_PORT": "{port}",
            "TEMP": "{run_dir}", "TMPDIR": "{run_dir}", "PATH": f"{Path(TOOLKIT.python).parent}:{os.environ['PATH']}",
        },
        TOOLKIT,
    ),
    "infinity": Target(
        "infinity-emb 0.0.78",
        lambda model: [
            str(Path(INFINITY.python).with_name("infinity_emb")), "v2", "--model-id", str(model),
            "--served-model-name", "model", "--host", "127.0.0.1", "--port", "0",
        ],
        r"running on http://127\.0\.0\.1:(\d+)", {"INFINITY_ANONYMOUS_USAGE_STATS": "0"}, INFINITY, EMBEDS,
        path="/embeddings", body=lambda body: {"input": [body["inputs"]], "model": "model"},
        answer=lambda answer: answer["data"][0]["embedding"],
    ),
    "fastapi": peer(
        "FastAPI + pipeline",
        lambda model: [
            FASTAPI.python, "-m", "uvicorn", "baseline_fastapi:app", "--app-dir", str(HERE), "--port", "0",
            "--no-access-log",
        ],
        FASTAPI,
    ),
    "litserve": peer(
        "LitServe", lambda model: [LITSERVE.python, str(HERE / "baseline_litserve.py")], LITSERVE, PORT="{port}"
    ),
    "ray": peer(
        "Ray Serve", lambda model: [RAY.python, str(HERE / "baseline_ray.py")], RAY, PORT="{port}",
        RAY_TMPDIR="{run_dir}", RAY_USAGE_STATS_ENABLED="0",
    ),
}  # fmt: skip
"""To add one: a line. A target of ours whose settings hfserve does not have is left out, with a word."""

BASELINE = "toolkit"
STANDARD = ("hfserve", "hfserve-asgi", "hfserve-bf16", "hfserve-int8", "hfserve-tokens", BASELINE, "infinity")


def missing(target: Target) -> str:
    """Why a target cannot be measured with the hfserve that is here; empty when it can."""
    if target.venv:
        return ""
    if absent := [name for name in target.needs if not find_spec(name)]:
        return f"{' and '.join(absent)} cannot be imported"
    shown = subprocess.run(
        [HFSERVE, "settings", "--json"], env=_environment(target), capture_output=True, text=True, check=False
    )
    if shown.returncode:
        return shown.stderr.strip()
    read = {each["source"] for each in json.loads(shown.stdout).values()}
    unread = [name for name in target.environment if name.startswith("HFSERVE_") and name not in read]
    return f"hfserve has no setting {' or '.join(unread)}" if unread else ""


@contextlib.contextmanager
def started(target: Target, model: Path, task: str) -> Iterator[Server]:
    """The server, up; it and all its children have ended afterwards."""
    run_dir = Path(tempfile.mkdtemp(prefix="hfserve-bench-"))
    (run_dir / "model").symlink_to(model)
    output = run_dir / "output"
    known = {"model": model, "task": task, "run_dir": run_dir, "port": _free_port()}
    with output.open("wb") as sink:
        began = time.perf_counter()
        process = subprocess.Popen(
            target.command(model), env=_environment(target, **known), stdout=sink, stderr=subprocess.STDOUT, cwd=run_dir
        )
    try:
        url = _wait_until_up(target, target.body(workload.CASES[task].bodies()[0]), process, output)
        yield Server(f"{url}{target.path}", process.pid, time.perf_counter() - began)
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
    return json.loads(subprocess.run([target.python, "-c", code], check=True, capture_output=True, text=True).stdout)


def clean_environment() -> dict[str, str]:
    """This process's, without what would change what is measured."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    return {**inherited, "HF_HUB_OFFLINE": "1"}


def _environment(target: Target, **known: Any) -> dict[str, str]:
    own = {name: value.format(**known) if known else value for name, value in target.environment.items()}
    place = {"HFSERVE_RUN_DIR": str(known["run_dir"] / "run")} if known else {}
    return {**clean_environment(), **place, **own}


def _wait_until_up(target: Target, first: Body, process: "subprocess.Popen[bytes]", output: Path) -> str:
    end = time.monotonic() + PATIENCE
    url = None
    while not (url and _is_up(target, url, first)):
        if process.poll() is not None or time.monotonic() > end:
            raise NotStarted(f"{target.name} did not come up:\n{output.read_text(errors='replace')[-4000:]}")
        if not url and (found := re.search(target.port, output.read_text(errors="replace"))):
            url = f"http://127.0.0.1:{found[1]}"
        time.sleep(0.05)
    return url


def _is_up(target: Target, url: str, body: Body) -> bool:
    answer = call(f"{url}/ping") if target.is_up_by_ping else call(f"{url}{target.path}", body)
    return answer is not None


def _free_port() -> int:
    """Multi Model Server takes none above 32767."""
    for port in range(18_000 + os.getpid() % 8_000, 32_000):
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise NotStarted("no port is free")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to the first process; SIGKILL to whatever of its tree is still there later."""
    family = procfs.tree(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(40)
    family = list({*family, *procfs.tree(process.pid)})
    end = time.monotonic() + 5
    while (left := [pid for pid in family if procfs.is_alive(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        print(f"  process {pid} was left behind and is killed", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
