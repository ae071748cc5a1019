"""Where a load may be sent: an URL, a SageMaker endpoint by its name, or a model that is served for the time."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from hfserve.bench import bodies, http
from hfserve.bench.errors import BenchError
from hfserve.bench.http import Answer
from hfserve.bench.load import FAILED, Callers, Crowd, Sockets
from hfserve.logs import fold

SAGEMAKER = "sagemaker:"
TERM_PATIENCE = 40.0
"""Seconds that a server gets to stop: it drains for 25."""


@dataclass(frozen=True)
class Door:
    """An endpoint: how to ask it once, and how to send it a crowd."""

    name: str
    ask: Callable[[bytes], Answer]
    crowd: Callable[[Sequence[bytes], int], Crowd]
    example: Callable[[], bytes | None] = lambda: None
    model_dir: Path | None = None


@contextlib.contextmanager
def opened(target: str, most_clients: int) -> Iterator[Door]:
    """The door of what the user named."""
    if target.startswith(SAGEMAKER):
        yield sagemaker(target.removeprefix(SAGEMAKER), most_clients)
    elif target.startswith(("http://", "https://")):
        yield web(target)
    else:
        with served(target) as url:
            yield web(url, name=target, model_dir=Path(target))


def web(url: str, *, name: str = "", model_dir: Path | None = None) -> Door:
    """An endpoint that speaks the contract at an URL."""
    base = url.rstrip("/").removesuffix("/invocations").rstrip("/")
    address = f"{base}/invocations"

    def ask(body: bytes) -> Answer:
        try:
            return http.ask(address, body)
        except OSError as error:
            raise BenchError(f"no answer from {address}: {error}; is a server running there?") from None

    def example() -> bytes | None:
        with contextlib.suppress(httpx.HTTPError, ValueError):
            return bodies.example(httpx.get(f"{base}/openapi.json", trust_env=False).json())
        return None

    return Door(name or base, ask, lambda sent, clients: Sockets(address, sent, clients), example, model_dir)


def sagemaker(name: str, most_clients: int) -> Door:
    """A live endpoint of SageMaker, through boto3, which finds credentials, region and address as it always does."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    except ImportError:
        raise BenchError(f"{SAGEMAKER}{name} is reached through boto3, which is missing: pip install boto3") from None
    once = Config(retries={"total_max_attempts": 1}, max_pool_connections=most_clients, read_timeout=http.PATIENCE)
    try:
        client = boto3.client("sagemaker-runtime", config=once)
    except BotoCoreError as error:
        raise BenchError(f"{SAGEMAKER}{name}: {error}") from None

    def call(body: bytes) -> Answer:
        try:
            reply = client.invoke_endpoint(
                EndpointName=name, Body=body, ContentType="application/json", Accept="application/json"
            )
            return Answer(200, reply["Body"].read())
        except ClientError as error:
            return _refused(error.response)
        except HTTPClientError as error:
            return Answer(FAILED, type(error).__name__.encode())

    def ask(body: bytes) -> Answer:
        try:
            return call(body)
        except BotoCoreError as error:
            raise BenchError(f"{SAGEMAKER}{name}: {error}") from None

    return Door(f"{SAGEMAKER}{name}", ask, lambda sent, clients: Callers(call, sent, clients))


def _refused(response: Any) -> Answer:
    """The container's own status and words where it answered, else the platform's."""
    status = response.get("OriginalStatusCode") or response["ResponseMetadata"]["HTTPStatusCode"]
    words = response.get("OriginalMessage") or response.get("Error", {}).get("Message", "")
    return Answer(int(status), str(words).encode())


@contextlib.contextmanager
def served(model: str) -> Iterator[str]:
    """`hfserve serve MODEL` on a free port, with the settings of the environment; the URL, once it is ready."""
    argv = [sys.executable, "-m", "hfserve.cli", "serve", model, "--port", "0"]
    told = {"HFSERVE_LOG": "json", "SAGEMAKER_CONTAINER_LOG_LEVEL": "20"}
    with tempfile.NamedTemporaryFile("w+", prefix="hfserve-bench-", suffix=".log") as log:
        before = signal.signal(signal.SIGTERM, _leave)
        process = subprocess.Popen(argv, env={**os.environ, **told}, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield _ready(process, Path(log.name))
        finally:
            signal.signal(signal.SIGTERM, before)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TERM_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _leave(number: int, frame: object) -> None:
    """End this process by way of every `finally`, so that no server is left behind."""
    sys.exit(128 + number)


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where the server listens, once its log has told and /ping is 200."""
    url = ""
    while not (url and _is_up(url)):
        events = [fold(line, "", "") for line in log.read_text(errors="replace").splitlines()]
        if process.poll() is not None:
            said = "\n".join(str(event["event"]) for event in events[-3:])
            raise BenchError(f"the model was not served:\n{said}")
        url = next((f"http://127.0.0.1:{e['port']}" for e in events if e["event"] == "starting" and "port" in e), "")
        time.sleep(0.1)
    return url


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ping", trust_env=False).is_success
    except httpx.HTTPError:
        return False
