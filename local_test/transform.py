"""Batch transform: every object below a prefix goes through /invocations, and comes back as an object of its own."""

import gzip
import http.client
import json
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from local_test.containers import Container
from local_test.errors import StartFailed, ValidationException
from local_test.records import BadRecords, Processing, Record, mini_batches, payload, split
from local_test.s3 import Store

MB = 1024 * 1024
DEFAULTS: dict[str, Any] = {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6, "BatchStrategy": "MULTI_RECORD"}
"""What holds when neither the job nor /execution-parameters says otherwise."""

SPLIT_TYPES = ("None", "Line", "RecordIO", "TFRecord")
MOST_MB = 100
"""Of all payloads under way together."""

LONGEST_REASON = 1024


class TransformFailed(StartFailed):
    """A job's FailureReason, beginning as AWS's does."""


class _AlgorithmError(Exception):
    """The container failed at a mini-batch."""


class _ClientError(Exception):
    """The container did not like a mini-batch."""


class _Stopped(Exception):
    """The job is to end without the rest."""


class _Answer(NamedTuple):
    body: bytes
    content_type: str | None


class _Limits(NamedTuple):
    concurrent: int
    payload: int
    """Bytes of a request; 0: any number, sent in chunks without a Content-Length."""
    many: bool


def check(request: dict[str, Any]) -> None:
    """Raise the ValidationException that CreateTransformJob answers to a request that cannot be."""
    concurrent, megabytes = request.get("MaxConcurrentTransforms") or 1, request.get("MaxPayloadInMB") or 0
    if concurrent * megabytes > MOST_MB:
        raise ValidationException(
            f"MaxConcurrentTransforms ({concurrent}) * MaxPayloadInMB ({megabytes}) must be at most {MOST_MB} MB."
        )
    split_type = request["TransformInput"].get("SplitType", "None")
    if split_type not in SPLIT_TYPES:
        raise ValidationException(f"SplitType must be one of {', '.join(SPLIT_TYPES)}, not {split_type}.")
    try:
        Processing(request.get("DataProcessing") or {}, None)
    except BadRecords as error:
        raise ValidationException(str(error)) from error


def run(
    job: dict[str, Any], model: dict[str, Any], store: Store, launch: Callable[[dict[str, str]], Container],
    update: Callable[[dict[str, Any]], None],
) -> None:  # fmt: skip
    """Run a transform job to its end, which `update` is told; raises TransformFailed.

    `launch` starts the container of `model` with the variables it is given. The job ends early, as Stopped, when its
    TransformJobStatus becomes Stopping.
    """
    check(job)
    names = _names(job, store)
    container = launch(environment(job))
    try:
        failures = _Transform(job, store, container).all(names)
    except _Stopped:
        update({"TransformJobStatus": "Stopped"})
        return
    finally:
        container.stop()
    if failures:
        more = f" ({len(failures) - 1} more objects failed)" if len(failures) > 1 else ""
        raise TransformFailed(failures[0][: LONGEST_REASON - len(more)] + more)
    update({"TransformJobStatus": "Completed"})


def environment(job: dict[str, Any]) -> dict[str, str]:
    """What tells the container that it is run for this job; what the job leaves open is left out."""
    found = {"SAGEMAKER_BATCH": "true"}
    if "MaxPayloadInMB" in job:
        found["SAGEMAKER_MAX_PAYLOAD_IN_MB"] = str(job["MaxPayloadInMB"])
    if "BatchStrategy" in job:
        found["SAGEMAKER_BATCH_STRATEGY"] = "MULTI_RECORD" if _is_many(job["BatchStrategy"]) else "SINGLE_RECORD"
    if "MaxConcurrentTransforms" in job:
        found["SAGEMAKER_MAX_CONCURRENT_TRANSFORMS"] = str(job["MaxConcurrentTransforms"])
    return found


class _Transform:
    """One job with its container."""

    def __init__(self, job: dict[str, Any], store: Store, container: Container) -> None:
        self._job = job
        self._store = store
        self._container = container
        self._input, self._output = job["TransformInput"], job["TransformOutput"]
        self._processing = Processing(job.get("DataProcessing") or {}, self._input.get("ContentType"))
        client = job.get("ModelClientConfig") or {}
        self._timeout: int = client.get("InvocationsTimeoutInSeconds", 600)
        self._retries: int = client.get("InvocationsMaxRetries", 3)
        self._limits = self._ask_limits()
        self._split_type: str = self._input.get("SplitType", "None")
        self._many = self._limits.many and self._split_type != "None"

    def all(self, names: dict[str, str]) -> list[str]:
        """Transform each object, given with the uri of its output; why those failed that did."""
        with ThreadPoolExecutor(self._limits.concurrent) as objects, ThreadPoolExecutor(self._limits.concurrent) as ask:
            running = [objects.submit(self._one, uri, output, ask) for uri, output in names.items()]
            return [reason for future in running if (reason := future.result())]

    def _one(self, uri: str, output: str, ask: ThreadPoolExecutor) -> str | None:
        try:
            with self._store.writer(output) as out:
                for stored in _in_order(ask, self._transformed, self._batches(uri), ahead=self._limits.concurrent):
                    out.write(stored)
                    if self._output.get("AssembleWith") == "Line" and not stored.endswith(b"\n"):
                        out.write(b"\n")
        except _AlgorithmError as error:
            return _reason("AlgorithmError", uri, error)
        except (_ClientError, BadRecords, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            return _reason("ClientError", uri, error)
        return None

    def _batches(self, uri: str) -> Iterator[list[Record]]:
        with self._store.open(uri) as stored, self._unzipped(stored) as source:
            records = map(self._processing.before, split(source, self._split_type))
            yield from mini_batches(records, limit=self._limits.payload, many=self._many)

    def _unzipped(self, source: BinaryIO) -> BinaryIO:
        return cast(BinaryIO, gzip.open(source)) if self._input.get("CompressionType") == "Gzip" else source

    def _transformed(self, batch: list[Record]) -> bytes:
        answer = self._invoke(payload(batch, many=self._many))
        return self._processing.after(batch, answer.body, answer.content_type)

    def _invoke(self, body: bytes) -> _Answer:
        """The answer to one mini-batch, after as many tries as the job allows."""
        failure = ""
        for attempt in range(self._retries + 1):
            if self._job.get("TransformJobStatus") == "Stopping":
                raise _Stopped
            if attempt:
                time.sleep(min(0.1 * 2**attempt, 1))
            try:
                status, text, content_type = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                failure = f"Unable to get response from algorithm: {error or type(error).__name__}"
                continue
            if status < 300:
                return _Answer(text, content_type)
            message = f"Message: {text.decode(errors='replace')}"
            if status < 500:
                raise _ClientError(f"ClientError: {status}, {message}")
            failure = f"Bad HTTP status received from algorithm: {status}, {message}"
        raise _AlgorithmError(failure)

    def _post(self, body: bytes) -> tuple[int, bytes, str | None]:
        headers = {"Content-Type": self._input.get("ContentType"), "Accept": self._output.get("Accept")}
        sent = {name: value for name, value in headers.items() if value}
        with closing(self._connect(self._timeout)) as connection:
            # Without a limit the request has no Content-Length: its body goes in chunks.
            connection.request("POST", "/invocations", body if self._limits.payload else _chunks(body), sent)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("Content-Type")

    def _ask_limits(self) -> _Limits:
        """What the job says, else what the container says of itself, else AWS's defaults."""
        asked = {name: value for name in DEFAULTS if (value := self._job.get(name)) is not None}
        if not asked.get("MaxConcurrentTransforms", 1):  # 0: as the container likes
            del asked["MaxConcurrentTransforms"]
        said = self._execution_parameters() if len(asked) < len(DEFAULTS) else {}
        chosen = DEFAULTS | said | asked
        concurrent, megabytes = int(chosen["MaxConcurrentTransforms"]), int(chosen["MaxPayloadInMB"])
        return _Limits(concurrent, megabytes * MB, _is_many(chosen["BatchStrategy"]))

    def _execution_parameters(self) -> dict[str, Any]:
        with closing(self._connect(10)) as connection:
            connection.request("GET", "/execution-parameters")
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != 200:
            return {}
        return {name: value for name, value in json.loads(body).items() if name in DEFAULTS}

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self._container.url).netloc, timeout=timeout)


def _names(job: dict[str, Any], store: Store) -> dict[str, str]:
    """Each object of the input, with the uri of its output."""
    source = job["TransformInput"]["DataSource"]["S3DataSource"]
    prefix, objects = _objects(source, store)
    if not objects:
        raise TransformFailed(
            f'ClientError: No S3 objects found under S3 URL "{source["S3Uri"]}" given in input data source.'
        )
    into = job["TransformOutput"]["S3OutputPath"].rstrip("/")
    return {uri: f"{into}/{_below(prefix, uri)}.out" for uri in objects}


def _objects(source: dict[str, Any], store: Store) -> tuple[str, list[str]]:
    uri = source["S3Uri"]
    if source["S3DataType"] != "ManifestFile":
        return uri, [found for found in store.list(uri) if not found.endswith("/")]
    try:
        first, *rest = json.loads(store.get(uri))
        prefix = first["prefix"]
        return prefix, [prefix + name for name in rest]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TransformFailed(f"ClientError: The manifest {uri} cannot be read: {error}") from error


def _below(prefix: str, uri: str) -> str:
    """An object's name below the folder that a prefix names or begins in."""
    if uri.startswith(prefix.rstrip("/") + "/"):
        return uri[len(prefix) :].lstrip("/")
    return uri[prefix.rindex("/") + 1 :]


def _reason(kind: str, uri: str, error: Exception) -> str:
    return f"{kind}: See job logs for more information. {uri.removeprefix('s3://')}: {error}"


def _is_many(strategy: str) -> bool:
    return strategy.replace("_", "").lower() == "multirecord"


def _chunks(body: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    return (body[i : i + size] for i in range(0, len(body), size))


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[list[Record]], bytes], items: Iterable[list[Record]], ahead: int
) -> Iterator[bytes]:
    """The results, of which only so many are made ahead of the one that is taken."""
    waiting: deque[Future[bytes]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
