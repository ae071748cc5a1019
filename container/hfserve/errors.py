"""Every way to fail: the status of an answer, or the exit status of a start, is in the class.

Exception
├── ServeError 500 ─────────── a request that gets an error for its answer
│   ├── BadRequest 400             the body cannot be read
│   ├── NotFound 404               no such route or model
│   ├── MethodNotAllowed 405
│   ├── NotAcceptable 406          no such form of answer
│   ├── RequestTimeout 408         the body did not arrive in time
│   ├── Conflict 409               the model is loaded already
│   ├── PayloadTooLarge 413
│   ├── UnsupportedMediaType 415
│   ├── InvalidInput 422           readable, yet not what the task takes
│   ├── ModelError 500             user code or the model raised
│   ├── Overloaded 503             the queue is full; comes with Retry-After
│   ├── NotReady 503               loading, draining or replacing a worker; with Retry-After
│   ├── DeadlineExceeded 504
│   └── OutOfMemory 507            of the machine or of the GPU
└── StartError exit 3 ──────── a start that cannot succeed
    ├── SettingsError              a variable or flag that makes no sense
    ├── ArtifactError              the model's files are missing, unsafe or unreadable
    ├── HookError                  code/inference.py breaks a rule
    └── LoadError                  the model did not load
"""

import json
from collections.abc import Mapping

MAX_BODY = 2000
"""Bytes of an error's JSON body at most: SageMaker cuts OriginalMessage at 2048 (contract row 17)."""


class ServeError(Exception):
    """A request that gets an error for its answer; `status` is HTTP's."""

    status = 500
    retry_after: int | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).partition("\n")[0])

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that belong to the answer whatever its body says."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class BadRequest(ServeError):
    """The body cannot be read."""

    status = 400


class NotFound(ServeError):
    """There is nothing at this address."""

    status = 404


class MethodNotAllowed(ServeError):
    """This address does not take this method."""

    status = 405


class NotAcceptable(ServeError):
    """The answer cannot be given in the form that Accept asks for."""

    status = 406


class RequestTimeout(ServeError):
    """The body did not arrive in time."""

    status = 408


class Conflict(ServeError):
    """What is asked for is so already, or is being done."""

    status = 409


class PayloadTooLarge(ServeError):
    """The body is larger than this server takes."""

    status = 413


class UnsupportedMediaType(ServeError):
    """The body is of a type that this model does not read."""

    status = 415


class InvalidInput(ServeError):
    """The body was read, yet it is not what the task takes."""

    status = 422


class ModelError(ServeError):
    """The model or its code raised an error."""

    status = 500


class Overloaded(ServeError):
    """Too many requests are waiting; retry later."""

    status = 503
    retry_after = 1


class NotReady(ServeError):
    """The model is not ready to answer; retry later."""

    status = 503
    retry_after = 1


class DeadlineExceeded(ServeError):
    """The answer was not ready before the deadline."""

    status = 504


class OutOfMemory(ServeError):
    """There is not enough memory for this request."""

    status = 507


class StartError(Exception):
    """A start that cannot succeed: the process says why in a sentence and ends with `exit_status`."""

    exit_status = 3


class SettingsError(StartError):
    """A variable or flag that makes no sense."""


class ArtifactError(StartError):
    """The model's files are missing, unsafe or unreadable."""


class HookError(StartError):
    """code/inference.py breaks a rule."""


class LoadError(StartError):
    """The model did not load."""


def error_body(error: ServeError, request_id: str) -> bytes:
    """The one JSON shape of every error, at most `MAX_BODY` bytes, its message cut when it must be."""
    message = str(error)[:MAX_BODY]
    while True:
        content = {"status": error.status, "type": type(error).__name__, "message": message, "request_id": request_id}
        body = json.dumps({"error": content}).encode()
        if len(body) <= MAX_BODY or len(message) <= 1:
            return body
        message = message.removesuffix("…")[: -1 - (len(body) - MAX_BODY) // 12] + "…"


def first_line(error: BaseException) -> str:
    """What went wrong, in a line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text[:500]}"
