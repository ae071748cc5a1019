"""The addresses of many models, by ASGI: load, list, describe, unload and ask (contract rows 29 to 31)."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from hfserve.boot.models import NAME, Entry, Models
from hfserve.doors.asgi import read_body, request_id, response, unless_gone
from hfserve.errors import BadRequest, DeadlineExceeded, InvalidInput, ModelError, NotReady, ServeError
from hfserve.messages import JSON, JSON_LINES, Reply
from hfserve.settings import Settings

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

Body = TypeVar("Body", bound=BaseModel)
Answer = Callable[[Request], Awaitable[Response]]

MOST_BODY = 1 << 16
"""Bytes of a body that names a model."""

AFTER_DEADLINE = 10.0
"""Seconds after a request's deadline in which its worker is still to say so."""

NOT_FORWARDED = frozenset(
    {"connection", "content-length", "content-type", "date", "host", "server", "transfer-encoding"}
)
"""Headers that belong to one connection, or are told in another way."""


class Load(BaseModel):
    """The body of POST /models."""

    model_config = ConfigDict(protected_namespaces=())
    model_name: str = Field(pattern=f"^{NAME.pattern}$")
    url: str = Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")


class Predict(BaseModel):
    """The body of POST /predict."""

    model_config = ConfigDict(protected_namespaces=(), extra="forbid")
    text: str | list[str]
    model_name: str
    task: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


def routes(models: Models, settings: Settings) -> list[BaseRoute]:
    """What answers at them; loading and unloading by address only where SageMaker's mode is on."""

    async def load(http: Request) -> Response:
        asked = _parsed(Load, await read_body(http, MOST_BODY, settings.body_timeout_s), BadRequest)
        await models.load(asked.model_name, asked.url)
        return JSONResponse({"status": f"Model {asked.model_name} loaded", **models.describe(asked.model_name)})

    async def unload(http: Request) -> Response:
        entry = await models.unload(http.path_params["name"])
        return JSONResponse({"status": f"Model {entry.name} unloaded"})

    async def listed(http: Request) -> Response:
        return JSONResponse(models.page(http.query_params.get("next_page_token", "")))

    async def described(http: Request) -> Response:
        return JSONResponse(models.describe(http.path_params["name"]))

    async def invoke(http: Request) -> Response:
        entry = models.invoked(http.path_params["name"])
        body = await read_body(http, settings.body_limit, settings.body_timeout_s)
        kept = {name: value for name, value in http.headers.items() if name not in NOT_FORWARDED}
        headers = {**kept, "x-hfserve-content-type": http.headers.get("content-type", "")}
        return await _relayed(http, entry, body, {**headers, "x-hfserve-query": http.url.query})

    async def predict(http: Request) -> Response:
        asked = _parsed(Predict, await read_body(http, settings.body_limit, settings.body_timeout_s), InvalidInput)
        if asked.task:
            await asyncio.to_thread(_check_task, asked.task)
        texts = [asked.text] if isinstance(asked.text, str) else asked.text
        body = json.dumps({"inputs": texts, "parameters": asked.parameters}).encode()
        headers = {"accept": JSON_LINES, "x-hfserve-content-type": JSON}
        async with AsyncExitStack() as stack:
            entry = await stack.enter_async_context(models.use(asked.model_name, asked.task))
            return await _relayed(http, entry, body, headers, stack)

    found: list[BaseRoute] = [
        Route("/models", _told(listed), methods=["GET"]),
        Route("/models/{name}", _told(described), methods=["GET"]),
        Route("/models/{name}/invoke", _told(invoke), methods=["POST"]),
    ]
    if settings.multi_model:
        found += [
            Route("/models", _told(load), methods=["POST"]),
            Route("/models/{name}", _told(unload), methods=["DELETE"]),
        ]
    if settings.models:
        found.append(Route("/predict", _told(predict), methods=["POST"]))
    return found


def _check_task(name: str) -> None:
    from hfserve.tasks import table

    if name not in table.TASKS:
        raise InvalidInput(f"there is no task {name[:100]}; choose one of {', '.join(table.TASKS)}")


def _told(answer: Answer) -> Answer:
    """The same, with errors in their one shape."""

    async def answered(http: Request) -> Response:
        rid = request_id(http.headers)
        try:
            return await answer(http)
        except ServeError as error:
            return response(Reply.of_error(error, rid), rid)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            log.exception("a request failed unexpectedly")
            failed = ModelError("the server failed; the log has the traceback")
            return response(Reply.of_error(failed, rid), rid)

    return answered


def _parsed(kind: type[Body], body: bytes, error: type[ServeError]) -> Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as wrong:
        details = wrong.errors(include_url=False, include_context=False, include_input=False)
        raise error(
            "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}".lstrip(": ") for each in details)
        ) from None


class _Passed(StreamingResponse):
    """What a worker answers, piece by piece; `held` is let go when all has been passed on, or the client has gone."""

    def __init__(self, reply: "httpx.Response", rid: str, held: AsyncExitStack) -> None:
        headers = {
            name: value for name, value in reply.headers.items() if name not in NOT_FORWARDED or name == "content-type"
        }
        super().__init__(reply.aiter_raw(), reply.status_code, {**headers, "X-Request-Id": rid})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def _relayed(
    http: Request, entry: Entry, body: bytes, headers: Mapping[str, str], stack: AsyncExitStack | None = None
) -> Response:
    """What a worker of a model answers; `stack` is left when all has been passed on."""
    import httpx

    async with stack.pop_all() if stack else AsyncExitStack() as held:
        transport = httpx.AsyncHTTPTransport(uds=str(entry.run_dir / "http.sock"))
        patience = httpx.Timeout(entry.served.settings.timeout + AFTER_DEADLINE)
        client = httpx.AsyncClient(transport=transport, timeout=patience, trust_env=False)
        await held.enter_async_context(client)
        rid = request_id(http.headers)
        told = {**headers, "x-hfserve-request-id": rid, "x-hfserve-start": f"{time.time():.3f}"}
        request = client.build_request("POST", "http://worker/invocations", content=body, headers=told)
        try:
            reply = await unless_gone(http, client.send(request, stream=True))
        except httpx.TimeoutException:
            raise DeadlineExceeded("the answer was not ready before the deadline") from None
        except httpx.TransportError:
            raise NotReady("the worker that had this request is gone, and is being replaced; retry") from None
        if reply is None:
            return Response(status_code=499)
        held.push_async_callback(reply.aclose)
        return _Passed(reply, rid, held.pop_all())
