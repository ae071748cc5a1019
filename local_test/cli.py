"""The commands: up · status · logs · down."""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from local_test import locks, names
from local_test.containers import Images, Rule, free_port
from local_test.errors import StartFailed
from local_test.server import Services
from local_test.state import State

HOST = "127.0.0.1"
STARTS_IN_S = 30
ENDS_IN_S = 90


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `python -m local_test`."""
    given = vars(_parser().parse_args(argv))
    command = given.pop("command")
    home = Home(given.pop("directory").expanduser().resolve())
    try:
        sys.exit(command(home, **given))
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)
    except (StartFailed, OSError) as error:
        print(f"local_test: {error}", file=sys.stderr)
        sys.exit(1)


@dataclass(frozen=True)
class Home:
    """The directory of a local SageMaker, and what it says about the process that serves it."""

    directory: Path

    @property
    def about(self) -> Path:
        """Port, region and process id."""
        return self.directory / "local.json"

    def read(self) -> dict[str, Any]:
        """What the last process wrote, or nothing."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return cast(dict[str, Any], json.loads(self.about.read_text()))
        return {}

    def forget(self) -> None:
        """Nobody is to be told to end."""
        self.about.write_text(json.dumps({key: value for key, value in self.read().items() if key != "pid"}))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the one process that serves this directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as file:
            if not locks.take(file, 1):
                raise StartFailed(f"another process serves {self.directory}")
            yield

    @property
    def running(self) -> bool:
        """Whether a process serves this directory."""
        if not self._lock.exists():
            return False
        with self._lock.open() as file:
            return not locks.take(file, shared=True)

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"


def _up(home: Home, **flags: Any) -> int:
    if home.running and home.read().get("pid"):
        print(exports(home))
        return 0
    if flags.pop("foreground"):
        return _serve(home, **flags)
    log = home.directory / "server.log"
    command = [sys.executable, "-m", "local_test", "up", "--foreground", *sys.argv[2:]]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    home.directory.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        before = output.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    end = time.monotonic() + STARTS_IN_S
    while home.read().get("pid") != process.pid:
        if process.poll() is not None or time.monotonic() > end:
            raise StartFailed(f"it did not start: {log.read_bytes()[before:].decode(errors='replace').strip()}")
        time.sleep(0.05)
    print(exports(home))
    return 0


def _serve(
    home: Home, *, port: int | None, region: str, images: list[Rule], engine: str | None, startup_timeout: float,
    invocation_timeout: float, stream_timeout: float,
) -> int:  # fmt: skip
    with home.held():
        home.forget()
        listening = _port(home, port)
        access = {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{listening}", "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local", "NO_PROXY": HOST,
        }  # fmt: skip
        state = State(
            home.directory, region=region, images=Images(tuple(images), engine, access),
            startup_timeout=startup_timeout,
        )  # fmt: skip
        (state.store.root / names.default_bucket(region)).mkdir(exist_ok=True)
        (home.directory / "sagemaker.yaml").write_text(_sdk_configuration(region))
        services = Services(state, invocation_timeout=invocation_timeout, stream_timeout=stream_timeout)
        server = services.listen(HOST, listening)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        home.about.write_text(json.dumps({"pid": os.getpid(), "port": listening, "region": region}))
        print(exports(home), flush=True)
        try:
            server.serve_forever(poll_interval=0.1)
        finally:
            state.close()
            server.server_close()
            home.forget()
    return 0


def _port(home: Home, port: int | None) -> int:
    """The port that was asked for, else the one of last time, so that what was exported stays true."""
    return port or home.read().get("port") or free_port()


def exports(home: Home) -> str:
    """The lines that make SDKs talk to this process."""
    about = home.read()
    region = about["region"]
    hosts = [HOST, "localhost", *filter(None, os.environ.get("NO_PROXY", "").split(","))]
    no_proxy = ",".join(dict.fromkeys(hosts))
    lines = [
        {"AWS_ENDPOINT_URL": f"http://{HOST}:{about['port']}"},
        {"AWS_REGION": region, "AWS_DEFAULT_REGION": region},
        {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"},
        {"SAGEMAKER_USER_CONFIG_OVERRIDE": str(home.directory / "sagemaker.yaml"), "SAGEMAKER_VALIDATE_ROLE": "false"},
        {"NO_PROXY": no_proxy, "no_proxy": no_proxy},
    ]
    return "\n".join(
        "export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in line.items()) for line in lines
    )


def _sdk_configuration(region: str) -> str:
    """What the SageMaker SDKs are told: a bucket and a role, and to send no telemetry."""
    return f"""SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
      Session:
        DefaultS3Bucket: {names.default_bucket(region)}
  Model:
    ExecutionRoleArn: {names.ROLE}
"""


def _status(home: Home) -> int:
    if not home.running:
        print("not running")
        return 1
    about = home.read()
    print(f"http://{HOST}:{about['port']}  {about['region']}  pid {about['pid']}  {home.directory}")
    listed = _ask(about["port"], "ListEndpoints")["Endpoints"]
    for name in (one["EndpointName"] for one in listed):
        told = _ask(about["port"], "DescribeEndpoint", EndpointName=name)
        counts = " ".join(
            f"{one['VariantName']}×{one.get('CurrentInstanceCount', 1)}" for one in told.get("ProductionVariants", [])
        )
        print(f"{name:<40} {told['EndpointStatus']:<10} {counts} {told.get('FailureReason', '')}".rstrip())
    for job in _ask(about["port"], "ListTransformJobs")["TransformJobSummaries"]:
        reason = job.get("FailureReason", "")
        print(f"{job['TransformJobName']:<40} {job['TransformJobStatus']:<10} transform {reason}".rstrip())
    return 0


def _ask(port: int, operation: str, **body: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{HOST}:{port}/", json.dumps(body).encode(), {"X-Amz-Target": f"SageMaker.{operation}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return cast(dict[str, Any], json.load(answer))


def _logs(home: Home, name: str, follow: bool) -> int:
    folder = home.directory / "logs/aws/sagemaker"
    found = [path for kind in ("Endpoints", "TransformJobs") if (path := folder / kind / f"{name}.log").is_file()]
    if not found:
        raise StartFailed(f"there is no log of {name}")
    with found[0].open(errors="replace") as file:
        shutil.copyfileobj(file, sys.stdout)
        while follow:
            sys.stdout.flush()
            time.sleep(0.2)
            shutil.copyfileobj(file, sys.stdout)
    return 0


def _down(home: Home, purge: bool) -> int:
    end, told = time.monotonic() + ENDS_IN_S, False
    while home.running:
        pid = home.read().get("pid")
        if time.monotonic() > end:
            raise StartFailed(f"process {pid} does not end")
        if pid and not told:
            os.kill(pid, signal.SIGTERM)
            told = True
        time.sleep(0.05)
    if purge:
        shutil.rmtree(home.directory, ignore_errors=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    default = os.environ.get("LOCAL_TEST_DIR") or Path(tempfile.gettempdir()) / f"local-sagemaker-{os.getuid()}"
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--dir", type=Path, dest="directory", default=default, metavar="D",
        help="where everything is kept, S3 too (default: $LOCAL_TEST_DIR, else %(default)s)",
    )  # fmt: skip
    parser = argparse.ArgumentParser(prog="python -m local_test", description="A local SageMaker.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", parents=[shared], help="start it, and print the lines to `eval`")
    up.add_argument("--foreground", action="store_true", help="stay, until told to end")
    up.add_argument("--port", type=int, help="default: that of last time, else a free one")
    up.add_argument("--region", default="us-east-1")
    up.add_argument(
        "--image", type=Rule.parse, action="append", default=[], dest="images", metavar="PATTERN=COMMAND",
        help="what to start for images whose name matches (*hfserve* and local: hfserve serve)",
    )  # fmt: skip
    up.add_argument(
        "--engine", choices=["podman", "docker", "none"],
        help="real containers for all other images, hfserve's too; none: no real containers "
        "(default: what is there, but hfserve's as a process)",
    )  # fmt: skip
    up.add_argument(
        "--startup-timeout", type=float, default=480, metavar="S",
        help="seconds until /ping must be 200, where an endpoint does not say (default: 480)",
    )  # fmt: skip
    up.add_argument(
        "--invocation-timeout", type=float, default=60, metavar="S",
        help="seconds that a container has for an answer (default: 60)",
    )  # fmt: skip
    up.add_argument(
        "--stream-timeout", type=float, default=480, metavar="S",
        help="seconds that a response stream may take (default: 480)",
    )  # fmt: skip
    up.set_defaults(command=_up)

    status = commands.add_parser("status", parents=[shared], help="say what there is")
    status.set_defaults(command=_status)

    logs = commands.add_parser("logs", parents=[shared], help="print what an endpoint or a transform job has said")
    logs.add_argument("name")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.set_defaults(command=_logs)

    down = commands.add_parser("down", parents=[shared], help="end every endpoint, and itself")
    down.add_argument("--purge", action="store_true", help="remove the directory, S3 too")
    down.set_defaults(command=_down)
    return parser
