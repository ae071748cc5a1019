"""What the supervisor answers itself, by ASGI: health, figures, and the pages that show what is served."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hfserve.doors.asgi import CONTROL_ROUTES, http_error, request_id, response
from hfserve.errors import NotFound, NotReady
from hfserve.health import Health
from hfserve.messages import Reply
from hfserve.metrics import CONTENT_TYPE

PAGES = {"/": "playground.html", "/docs": "docs.html"}
ASSETS = {"css": "text/css", "js": "text/javascript"}
STRICT = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:",
    "Cache-Control": "no-cache",
}
"""Pages load nothing from elsewhere, and run no script but their own."""


def app(
    health: Callable[[], Health],
    metrics: Callable[[], Awaitable[bytes]],
    parameters: Callable[[], Mapping[str, object]],
    *,
    openapi: Path,
    models: Callable[[], Sequence[str]],
    playground: bool,
    many: Sequence[BaseRoute] | None = None,
) -> Starlette:
    """The application; its functions are asked at each request, and the file `openapi` is read.

    Where there are many models, `many` are their addresses.
    """

    started = time.time()

    async def ping(http: Request) -> Response:
        now = health()
        if now.ok:
            return Response(b"")
        reason = f"{now.state}: {now.reason}" if now.reason else now.state
        rid = request_id(http.headers)
        return response(Reply.of_error(NotReady(reason), rid), rid)

    async def invocations(http: Request) -> Response:
        now = health()
        rid = request_id(http.headers)
        if many is not None:
            wrong = NotFound("this server has many models: POST to /models/NAME/invoke")
            return response(Reply.of_error(wrong, rid), rid)
        return response(Reply.of_error(NotReady(f"{now.state}: {now.reason}; retry later"), rid), rid, close=True)

    async def show_metrics(http: Request) -> Response:
        return Response(await metrics(), media_type=CONTENT_TYPE)

    async def execution_parameters(http: Request) -> Response:
        return JSONResponse(dict(parameters()))

    async def show_openapi(http: Request) -> Response:
        if not openapi.exists():
            rid = request_id(http.headers)
            return response(
                Reply.of_error(NotReady("what is served is not known before the model is loaded"), rid), rid
            )
        return Response(openapi.read_bytes(), media_type="application/json", headers={"Cache-Control": "no-cache"})

    async def openai_models(http: Request) -> Response:
        served = {
            name: {"id": name, "object": "model", "created": int(started), "owned_by": "hfserve"} for name in models()
        }
        name = http.path_params.get("name")
        if name is None:
            return JSONResponse({"object": "list", "data": list(served.values())})
        if name not in served:
            rid = request_id(http.headers)
            there = ", ".join(list(served)[:10]) or "none"
            return response(Reply.of_error(NotFound(f"there is no model {name[:100]}; there is {there}"), rid), rid)
        return JSONResponse(served[name])

    async def page(http: Request) -> Response:
        path = http.url.path
        if path == "/" and not playground:
            rid = request_id(http.headers)
            return response(Reply.of_error(NotFound("the playground is off; HFSERVE_PLAYGROUND=on shows it"), rid), rid)
        return Response(_file(PAGES[path]), media_type="text/html", headers=STRICT)

    async def asset(http: Request) -> Response:
        name = http.path_params["name"]
        content, kind = _file(name), ASSETS.get(name.rpartition(".")[2])
        if content is None or kind is None:
            raise HTTPException(404)
        return Response(content, media_type=kind, headers=STRICT)

    answers = {
        "/ping": ping, "/metrics": show_metrics, "/execution-parameters": execution_parameters,
        "/openapi.json": show_openapi, "/v1/models": openai_models, "/v1/models/{name:path}": openai_models,
        "/docs": page, "/": page, "/assets/{name}": asset,
    }  # fmt: skip
    routes: list[BaseRoute] = [*(many or ())]
    routes += [Route(path, answers[path], methods=methods) for path, methods in CONTROL_ROUTES.items()]
    routes.append(Route("/invocations", invocations, methods=["POST"]))
    routes.append(Route("/invocations-bidirectional-stream", invocations, methods=["GET"]))
    return Starlette(routes=routes, exception_handlers={HTTPException: http_error})


def _file(name: str) -> bytes | None:
    """A file of the pages that the package brings, None when there is no such."""
    file = resources.files("hfserve") / "pages" / name
    return file.read_bytes() if file.is_file() else None
