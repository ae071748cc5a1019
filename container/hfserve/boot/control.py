"""What the supervisor answers itself, by ASGI: /ping, /metrics, /execution-parameters."""

from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hfserve.doors.asgi import CONTROL_ROUTES, http_error, request_id, response
from hfserve.errors import NotReady
from hfserve.health import Health
from hfserve.messages import Reply
from hfserve.metrics import CONTENT_TYPE


def app(
    health: Callable[[], Health], metrics: Callable[[], bytes], parameters: Callable[[], Mapping[str, object]]
) -> Starlette:
    """The application; its three functions are asked at each request."""

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
        return response(Reply.of_error(NotReady(f"{now.state}: {now.reason}; retry later"), rid), rid, close=True)

    async def show_metrics(http: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE)

    async def execution_parameters(http: Request) -> Response:
        return JSONResponse(dict(parameters()))

    answers = {"/ping": ping, "/metrics": show_metrics, "/execution-parameters": execution_parameters}
    routes = [Route(path, answers[path], methods=methods) for path, methods in CONTROL_ROUTES.items()]
    routes.append(Route("/invocations", invocations, methods=["POST"]))
    return Starlette(routes=routes, exception_handlers={HTTPException: http_error})
