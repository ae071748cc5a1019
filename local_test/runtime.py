"""SageMaker's runtime: InvokeEndpoint, at once or as a stream of what comes; `asynchronous.py` has the third way."""

import contextlib
import http.client
import json
import re
import time
from collections.abc import Iterator

from local_test import eventstream, names
from local_test.asynchronous import Later
from local_test.endpoints import Endpoint
from local_test.errors import AwsError, ValidationError
from local_test.exchange import PREFIX, Exchange, ask
from local_test.state import State
from local_test.wire import Answer, Request

ROUTE = re.compile(r"/endpoints/([^/]+)/(invocations|invocations-response-stream|async-invocations)")
REAL_TIME_LIMIT = 25 << 20
SERVERLESS_LIMIT = 4 << 20
_TO_CONTAINER = {
    "Custom-Attributes": 1024, "Target-Model": 1024, "Inference-Id": 64, "Session-Id": 256, "Target-Variant": 63,
    "Target-Container-Hostname": 63, "Inference-Component": 63,
}  # fmt: skip
"""The headers that a container sees, with the most characters of each."""


class Runtime:
    """Takes requests to endpoints."""

    def __init__(self, state: State, *, timeout: float, stream_timeout: float) -> None:
        self._state, self._timeout, self._stream_timeout = state, timeout, stream_timeout
        self._later = Later(state)

    def answer(self, request: Request) -> Answer:
        """Answer a request, or say what is wrong in the runtime's shape."""
        try:
            return self._answer(request)
        except AwsError as error:
            body = json.dumps({"Message": error.message, **error.more}).encode()
            return Answer(body, error.status, {"Content-Type": "application/json", "x-amzn-ErrorType": error.code})

    def _answer(self, request: Request) -> Answer:
        found = ROUTE.fullmatch(request.path)
        if not found:
            raise AwsError("UnknownOperationException", f"There is no {request.path}", 404)
        name, operation = found.groups()
        endpoint = self._state.endpoints.get(name)
        if endpoint is None:
            raise ValidationError(f"Endpoint {name} of account {names.ACCOUNT} not found.")
        streamed, later = operation == "invocations-response-stream", operation == "async-invocations"
        headers = _headers(request, "Content-Type", f"{PREFIX}Accept" if streamed else "Accept")
        if later != ("AsyncInferenceConfig" in endpoint.config):
            raise ValidationError(
                f"Endpoint {name} of account {names.ACCOUNT} is {'not ' if later else ''}an asynchronous endpoint."
            )
        if later:
            headers |= _headers(request, f"{PREFIX}Content-Type", f"{PREFIX}Accept")
            return self._later.answer(endpoint, request, headers)
        limit = _limit(endpoint)
        body = request.body.read(limit + 1)
        if len(body) > limit:
            return Answer(f"HTTP content length exceeded {limit} bytes.".encode(), 413, {"Content-Type": "text/plain"})
        return (self._stream if streamed else self._at_once)(endpoint, headers, body)

    def _at_once(self, endpoint: Endpoint, headers: dict[str, str], body: bytes) -> Answer:
        with ask(self._state, endpoint, headers, body, self._timeout) as exchange:
            return Answer(exchange.read(), headers=exchange.headers("Content-Type"))

    def _stream(self, endpoint: Endpoint, headers: dict[str, str], body: bytes) -> Answer:
        open_for_long = contextlib.ExitStack()
        exchange = open_for_long.enter_context(ask(self._state, endpoint, headers, body, self._timeout))
        exchange.deadline = time.monotonic() + self._stream_timeout
        told = {"Content-Type": eventstream.CONTENT_TYPE, **exchange.headers(f"{PREFIX}Content-Type")}
        return Answer(_frames(exchange), headers=told, done=open_for_long.close)


def _headers(request: Request, content_type: str, accept: str) -> dict[str, str]:
    """What a container sees of a request's headers, under the names it knows."""
    seen = {"Content-Type": request.headers.get(content_type), "Accept": request.headers.get(accept)}
    for name, longest in _TO_CONTAINER.items():
        value = seen[f"{PREFIX}{name}"] = request.headers.get(f"{PREFIX}{name}")
        if value and len(value) > longest:
            member = name[0].lower() + name[1:].replace("-", "")
            raise ValidationError(
                f"1 validation error detected: Value at '{member}' failed to satisfy constraint: "
                f"Member must have length less than or equal to {longest}"
            )
    return {name: value for name, value in seen.items() if value is not None}


def _limit(endpoint: Endpoint) -> int:
    serverless = any("ServerlessConfig" in variant for variant in endpoint.config["ProductionVariants"])
    return SERVERLESS_LIMIT if serverless else REAL_TIME_LIMIT


def _frames(exchange: Exchange) -> Iterator[bytes]:
    try:
        for piece in exchange.pieces():
            yield eventstream.part(piece)
    except TimeoutError:
        yield eventstream.exception(
            "ModelStreamError",
            Message="The model failed to finish sending the response within the timeout period allowed by Amazon "
            "SageMaker.",
            ErrorCode="ModelInvocationTimeExceeded",
        )
    except (OSError, http.client.HTTPException):
        yield eventstream.exception(
            "ModelStreamError",
            Message="The connection between the client and the model was reset or closed.",
            ErrorCode="StreamBroken",
        )
