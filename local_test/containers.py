"""Images as commands of this machine, or as real containers by podman or docker; their start, ping and end."""

import contextlib
import fnmatch
import http.client
import itertools
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from local_test import locks
from local_test.errors import StartFailed

ML = "/opt/ml"
PING_EVERY = 0.2
ENGINES: dict[str | None, tuple[str, ...]] = {
    None: ("podman", "docker"), "podman": ("podman",), "docker": ("docker",), "none": (),
}  # fmt: skip
_PORTS = range(20000, 32768)  # above are the ports that the system gives to clients
_KEPT = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE",
    "HF_HUB_OFFLINE", "HF_HOME", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY",
)  # fmt: skip
_taken = itertools.count(random.randrange(len(_PORTS)))


@dataclass(frozen=True)
class Rule:
    """The command that stands for images whose name matches."""

    pattern: str
    command: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Of `PATTERN=COMMAND`, where * and ? are wild; files in the command are those of this directory."""
        pattern, found, command = text.partition("=")
        if not found or not command.strip():
            raise ValueError(f"{text!r} is not PATTERN=COMMAND")
        words = shlex.split(command)
        return cls(pattern, tuple(str(Path(word).absolute()) if _is_file(word) else word for word in words))


HFSERVE = (Rule("*hfserve*", ("hfserve", "serve")), Rule("local", ("hfserve", "serve")))
"""Where no engine is asked for, hfserve's images are its command."""


class Container:
    """What serves /ping and /invocations: a process that was started, until it ends or is stopped."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], port: int, base_dir: Path, sees: str, kill: list[str]
    ) -> None:
        self.name, self.base_dir, self.port = name, base_dir, port
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self._sees, self._kill = sees, kill
        self._stopping, self._stopped = threading.Lock(), False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def inside(self, path: Path) -> str:
        """A path below base_dir, as the container itself sees it."""
        return f"{self._sees}/{path.relative_to(self.base_dir)}"

    def ended(self, timeout: float) -> bool:
        """Wait for the end, so long at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        return not self.alive

    def ping(self) -> bool:
        """Whether /ping is 200 within the two seconds that SageMaker gives it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self, grace: float = 30) -> None:
        """SIGTERM, and SIGKILL for what is left of it after the grace; returns when it has ended."""
        with self._stopping:
            if self._stopped:
                return
            if self.alive:
                self.process.send_signal(signal.SIGTERM)
                if not self.ended(grace) and self._kill:
                    subprocess.run(self._kill, capture_output=True)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self._stopped = True


class Images:
    """Which command stands for which image."""

    def __init__(
        self, rules: tuple[Rule, ...] = (), engine: str | None = None, variables: dict[str, str] | None = None
    ):
        self._rules = rules if engine in ("podman", "docker") else (*rules, *HFSERVE)
        self._engine = engine
        self._variables = variables or {}
        self._started: list[Container] = []

    def known(self, image: str) -> bool:
        """Whether there is something to start for this image."""
        engine = self._engine_path()
        if self._command(image) or not engine:
            return self._command(image) is not None
        return subprocess.run([engine, "image", "inspect", image], capture_output=True).returncode == 0

    def start(self, image: str, environment: dict[str, str], base_dir: Path, name: str, log_path: Path) -> Container:
        """Start `IMAGE serve` with these variables and base_dir as its /opt/ml; its lines go to the log."""
        port = free_port()
        command, kill = self._command(image), list[str]()
        if command:
            words = command
            told = {
                **self._variables, **environment,
                "SAGEMAKER_BIND_TO_PORT": str(port), "SAGEMAKER_BASE_DIR": str(base_dir),
            }  # fmt: skip
            told = {key: _here(value, base_dir) for key, value in told.items()}
            variables = {**{key: os.environ[key] for key in _KEPT if key in os.environ}, **told}
            sees = str(base_dir)
        else:
            words, kill = self._run(image, environment, base_dir, port)
            variables, sees = dict(os.environ), ML
        try:
            with _mark(base_dir).open("w") as mark:
                locks.take(mark)
                process = subprocess.Popen(
                    words, env=variables, cwd=base_dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[mark.fileno()],
                )  # fmt: skip
                mark.write(str(process.pid))
        except OSError as error:
            raise StartFailed(
                f"The image {image} stands for {shlex.join(words)}, which does not start: {error}"
            ) from None
        assert process.stdout is not None
        threading.Thread(target=_copy_lines, args=(process.stdout, log_path, name), daemon=True).start()
        container = Container(name, process, port, base_dir, sees, kill)
        self._started = [*(one for one in self._started if one.alive), container]
        return container

    def stop_all(self) -> None:
        """Stop what was started and still runs."""
        for container in self._started:
            container.stop()

    def _command(self, image: str) -> list[str] | None:
        for rule in self._rules:
            if fnmatch.fnmatchcase(image, rule.pattern):
                program, *words = rule.command
                return [_hfserve() if program == "hfserve" else program, *words]
        return None

    def _engine_path(self) -> str | None:
        return next(filter(None, map(shutil.which, ENGINES[self._engine])), None)

    def _run(self, image: str, environment: dict[str, str], base_dir: Path, port: int) -> tuple[list[str], list[str]]:
        """The command that runs a real container, and the one that kills it."""
        engine = self._engine_path()
        if engine is None:
            raise StartFailed(
                f"No command stands for the image {image} (`up --image 'PATTERN=COMMAND'`), and there is neither "
                "podman nor docker."
            )
        name = f"local-test-{base_dir.parent.name}-{port}"
        volumes = ["-v", f"{base_dir}:{ML}"]
        if (base_dir / "model").is_symlink():
            volumes += ["-v", f"{(base_dir / 'model').resolve()}:{ML}/model:ro"]
        variables = [word for key, value in environment.items() for word in ("-e", f"{key}={value}")]
        words = [
            engine, "run", "--rm", "--name", name, "--sig-proxy=true", "-p", f"127.0.0.1:{port}:8080",
            *_gpus(engine), *volumes, *variables, image, "serve",
        ]  # fmt: skip
        return words, [engine, "kill", name]


def wait_ready(container: Container, timeout: float) -> bool:
    """Whether /ping becomes 200 before the time is over and before the container ends."""
    end = time.monotonic() + timeout
    while not container.ping():
        if time.monotonic() > end or container.ended(PING_EVERY):
            return False
    return True


def end_leftovers(runs: Path) -> None:
    """End what a local SageMaker left that was killed: a container holds a lock for as long as it lives."""
    for path in runs.glob(f"*/{_mark(Path('ml')).name}"):
        with path.open() as mark, contextlib.suppress(ValueError, ProcessLookupError):
            if not locks.take(mark):
                group = int(mark.read())
                os.kill(group, signal.SIGTERM)
                if not locks.take(mark, 10):
                    os.killpg(group, signal.SIGKILL)


def _mark(base_dir: Path) -> Path:
    """Where the process of a container is named, and locked by it."""
    return base_dir.with_name("process")


def _gpus(engine: str) -> list[str]:
    if not shutil.which("nvidia-smi"):
        return []
    return ["--device", "nvidia.com/gpu=all"] if Path(engine).name == "podman" else ["--gpus", "all"]


def _is_file(word: str) -> bool:
    return "/" in word and Path(word).exists()


def free_port() -> int:
    """A port that nobody listens on, below those of clients: Multi Model Server takes no others."""
    for number in itertools.islice(_taken, len(_PORTS)):
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartFailed("No port is free.")


def _hfserve() -> str:
    """The command of this repository's server, or its bare name, which then says that it is not there."""
    beside = Path(sys.executable).with_name("hfserve")
    clone = Path(__file__).parents[1] / ".venv/bin/hfserve"
    return next((str(path) for path in (beside, clone) if path.exists()), "hfserve")


def _here(value: str, base_dir: Path) -> str:
    """/opt/ml of a container is a directory of this machine for a process."""
    return f"{base_dir}{value[len(ML) :]}" if value == ML or value.startswith(f"{ML}/") else value


def _copy_lines(source: IO[bytes], log_path: Path, stream: str) -> None:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with source, log_path.open("ab", buffering=0) as log:
        for line in source:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            log.write(f"{now} {stream} ".encode() + line.rstrip(b"\r\n") + b"\n")
