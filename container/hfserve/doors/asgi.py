"""Door 2: HTTP by ASGI, behind nginx on a unix socket, or alone on TCP."""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from hfserve import openai
from hfserve.doors.mms_protocol import request as request_behind_nginx
from hfserve.doors.stash import Stash
from hfserve.errors import MethodNotAllowed, NotFound, NotReady, PayloadTooLarge, RequestTimeout, ServeError
from hfserve.messages import Reply, Request
from hfserve.settings import Settings

if TYPE_CHECKING:
    from hfserve.service import Service

T = TypeVar("T")
VALID_ID = re.compile(r"[\w.:@/+=-]{1,128}", re.ASCII)
Forward = Callable[[HttpRequest], Awaitable[Response]]


def app(
    service: "Service", stash: Stash, settings: Settings, *, forward: Forward | None = None,
    also: Sequence[BaseRoute] = (),
) -> Starlette:  # fmt: skip
    """The worker's HTTP application. With nothing in front, `forward` hands the supervisor's addresses to it."""

    async def invoke(http: HttpRequest) -> Response:
        alone = forward is not None
        rid = request_id(http.headers)
        try:
            body = await read_body(http, settings.body_limit, settings.body_timeout_s)
        except ServeError as error:
            return response(Reply.of_error(error, rid), rid if alone else "", close=True)
        except ClientDisconnect:
            return Response(status_code=499)
        if alone:
            url = http.url
            request = Request(body, _lower(http.headers), rid, time.monotonic() + settings.timeout, url.query, url.path)
        else:
            request = request_behind_nginx(_lower(http.headers), body, time.monotonic(), settings.timeout)
        reply = await unless_gone(http, service.answer(request))
        return response(reply, rid if alone else "") if reply else Response(status_code=499)

    async def fetch(http: HttpRequest) -> Response:
        reply = stash.take(http.path_params["ticket"])
        return response(reply or Reply.of_error(NotReady("this answer is gone; retry"), request_id(http.headers)), "")

    routes = [*also, *(Route(path, invoke, methods=["POST"]) for path in INVOKED)]
    if forward is None:
        routes.append(Route("/_reply/{ticket}", fetch, methods=["GET"]))
    else:
        routes.append(Route("/", invoke, methods=["POST"]))
        routes += [Route(path, forward, methods=methods) for path, methods in CONTROL_ROUTES.items()]
    return Starlette(routes=routes, exception_handlers={HTTPException: http_error})


INVOKED = ("/invocations", *openai.PATHS)
"""What the model answers; a POST to / is one to /invocations, as with Text Generation Inference."""

CONTROL_ROUTES: Mapping[str, list[str]] = {
    "/ping": ["GET", "POST"],
    "/metrics": ["GET"],
    "/execution-parameters": ["GET"],
    "/openapi.json": ["GET"],
    "/v1/models": ["GET"],
    "/v1/models/{name:path}": ["GET"],
    "/docs": ["GET"],
    "/": ["GET"],
    "/assets/{name}": ["GET"],
}
"""What the supervisor answers; Starlette adds HEAD to GET."""


async def http_error(http: HttpRequest, error: Exception) -> Response:
    """Starlette's own refusals in the one shape of an error."""
    assert isinstance(error, HTTPException)
    rid = request_id(http.headers)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        reply = Reply.of_error(MethodNotAllowed(f"{http.url.path} takes {allowed}, not {http.method}"), rid)
        return response(reply, rid, headers={"Allow": allowed})
    return response(Reply.of_error(NotFound(f"there is nothing at {http.url.path}; POST to /invocations"), rid), rid)


def request_id(headers: Mapping[str, str]) -> str:
    """SageMaker's inference id, the client's own, or a new one (contract row 21)."""
    for name in ("x-hfserve-request-id", "x-amzn-sagemaker-inference-id", "x-request-id"):
        if VALID_ID.fullmatch(headers.get(name, "")):
            return headers[name]
    return uuid.uuid4().hex


async def read_body(http: HttpRequest, limit: int, patience: float) -> bytes:
    """The whole body; raises PayloadTooLarge, or RequestTimeout when its pieces are too far apart."""
    if int(http.headers.get("content-length") or 0) > limit:
        raise PayloadTooLarge(f"the body may have {limit} bytes at most")
    pieces: list[bytes] = []
    size = 0
    stream = http.stream()
    while True:
        try:
            async with asyncio.timeout(patience):
                piece = await anext(stream, None)
        except TimeoutError:
            raise RequestTimeout(f"no more of the body came for {patience:g} seconds") from None
        if piece is None:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not piece:
            continue
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise PayloadTooLarge(f"the body may have {limit} bytes at most")


async def unless_gone(http: HttpRequest, answer: Awaitable[T]) -> T | None:
    """The reply, or None once the client has gone; what it asked for is then cancelled."""
    answering = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(http.receive())
    try:
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        gone.cancel()


def response(reply: Reply, rid: str, *, headers: Mapping[str, str] | None = None, close: bool = False) -> Response:
    """A reply as Starlette's response; `rid` is empty behind nginx, which writes that header itself."""
    added = {**reply.headers, **(headers or {})}
    if rid:
        added["X-Request-Id"] = rid
    if close:
        added["Connection"] = "close"
    if reply.chunks is None:
        answer = Response(reply.body, reply.status, added)
    else:
        added["X-Accel-Buffering"] = "no"
        added["Cache-Control"] = "no-cache"
        answer = StreamingResponse(_closing(reply.chunks), reply.status, added)
    answer.headers["Content-Type"] = reply.content_type
    return answer


async def _closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks; their source is closed when the client goes in the middle."""
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        if close := getattr(chunks, "aclose", None):
            await close()


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
