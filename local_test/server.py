"""One HTTP server for every service; what a request carries says which service it is for."""

import json
import sys
import traceback
from types import ModuleType
from typing import Any

from local_test import autoscaling, control, identity, logs, s3
from local_test.errors import AwsError
from local_test.runtime import ROUTE, Runtime
from local_test.state import State
from local_test.wire import Answer, Request, Server

_JSON_SERVICES = {"SageMaker": control, "AnyScaleFrontendService": autoscaling, "Logs_20140328": logs}
"""By what stands before the dot in X-Amz-Target."""


class Services:
    """SageMaker with its runtime, S3, STS, IAM, CloudWatch Logs and Application Auto Scaling."""

    def __init__(self, state: State, *, invocation_timeout: float = 60, stream_timeout: float = 480) -> None:
        self._state = state
        self._runtime = Runtime(state, timeout=invocation_timeout, stream_timeout=stream_timeout)
        self._s3 = s3.Door(state.store, state.region)

    def listen(self, host: str, port: int) -> Server:
        """A server that is bound, and serves as soon as it is told to."""
        return Server((host, port), self.answer)

    def answer(self, request: Request) -> Answer:
        """Let the service answer that the request is for."""
        try:
            return self._answer(request)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            body = {"__type": "InternalFailure", "Message": f"{type(error).__name__}: {error}"}
            return Answer(json.dumps(body).encode(), 500, {"x-amzn-ErrorType": "InternalFailure"})

    def _answer(self, request: Request) -> Answer:
        target = request.headers.get("X-Amz-Target")
        if target:
            return self._json(target, request)
        if request.method == "POST" and ROUTE.fullmatch(request.path):
            return self._runtime.answer(request)
        if request.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            return identity.answer(request)
        if request.path == "/ping":
            return Answer()
        return self._s3.answer(request)

    def _json(self, target: str, request: Request) -> Answer:
        service, _, operation = target.partition(".")
        headers = {"Content-Type": "application/x-amz-json-1.1"}
        try:
            told = _service(service).handle(operation, _object(request), self._state)
            return Answer(json.dumps(told).encode(), 200, headers)
        except AwsError as error:
            told = {"__type": error.code, "message": error.message, **error.more}
            return Answer(json.dumps(told).encode(), error.status, headers)


def _object(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.body.read() or b"{}")
    except ValueError as error:
        raise AwsError("SerializationException", f"The body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise AwsError("SerializationException", "The body is not an object")
    return body


def _service(name: str) -> ModuleType:
    if name not in _JSON_SERVICES:
        raise AwsError("UnknownOperationException", f"The service {name} is not emulated locally")
    return _JSON_SERVICES[name]
