"""nginx in front: its configuration, and how many requests it holds."""

import json
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hfserve import errors
from hfserve.errors import ServeError
from hfserve.settings import Settings


@dataclass(frozen=True, slots=True)
class Page:
    """What nginx answers by itself: a named location, the error it tells, and nginx's own codes that lead there."""

    name: str
    error: ServeError
    codes: tuple[int, ...] = ()

    @property
    def address(self) -> str:
        """Where error_page sends nginx for it."""
        return "/_bad_request" if self is BAD_REQUEST else f"@{self.name}"


BAD_REQUEST = Page(
    "bad_request", errors.BadRequest("this is not an HTTP request that the server can read"), (400, 411, 417, 494)
)
PAGES = (
    BAD_REQUEST,
    Page("not_found", errors.NotFound("there is nothing at this address; POST to /invocations"), (403, 404)),
    Page("method_not_allowed", errors.MethodNotAllowed("this address does not take this method; see Allow"), (405,)),
    Page("payload_too_large", errors.PayloadTooLarge("the body may have {limit} bytes at most"), (413,)),
    Page("uri_too_long", errors.BadRequest("the address is too long"), (414,)),
    Page("overloaded", errors.Overloaded("{queued} requests are already waiting; retry later"), (429, 503)),
    Page(
        "worker_died",
        errors.NotReady("the worker that had this request is gone, and is being replaced; retry"),
        (500, 502),
    ),
    Page("not_loaded", errors.NotFound("no model of this name is loaded; POST /models loads one")),
    Page("many_models", errors.NotFound("this server has many models: POST to /models/NAME/invoke")),
    Page("model_not_ready", errors.NotReady("this model has no worker that is ready, GET /models/NAME says why")),
    Page("not_ready", errors.NotReady("no worker is ready, /ping says why; retry later")),
    Page("draining", errors.NotReady("the server is stopping; send this request to another one")),
    Page("deadline", errors.DeadlineExceeded("the answer was not ready before the deadline"), (504,)),
    Page("not_supported", errors.BadRequest("this version of HTTP is not spoken here"), (505,)),
)


def find() -> str | None:
    """The nginx program, None when there is none."""
    return shutil.which("nginx") or next(
        (p for p in ("/usr/sbin/nginx", "/usr/local/sbin/nginx") if Path(p).exists()), None
    )


def configuration(settings: Settings, run_dir: Path, *, port: int, workers: int, mms: bool) -> str:
    """nginx.conf for this run."""
    template = _template("conf").replace("@served@", _template("many" if settings.many else "one"))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    mms_location = f"/_mms_{secrets.token_hex(8)}"
    sockets = [f"unix:{run_dir}/worker-{slot}.sock" for slot in range(workers)]
    values = {
        "user": "user root;" if os.geteuid() == 0 else "",
        "run": str(run_dir),
        "listen": f"{host}:{port}",
        "drain": f"{settings.drain_s + 1:.0f}",
        "body_timeout": f"{settings.body_timeout_s * 1000:.0f}ms",
        "body_limit": str(settings.body_limit),
        "read_timeout": f"{settings.timeout + 10:.0f}",
        "load_timeout": f"{settings.startup_timeout_s + settings.timeout + settings.drain_s + 10:.0f}",
        "mms": mms_location,
        "small": mms_location if mms else "/_asgi",
        "worker_upstreams": "" if settings.many else _upstreams(sockets),
        "worker_locations": "\n".join(
            f"    location @worker{slot} {{ {MANY.format(slot=slot) if settings.many else ONE.format(slot=slot)} }}"
            for slot in range(workers)
        ),
        "error_pages": "\n".join(
            f"    error_page {' '.join(map(str, page.codes))} = {page.address};" for page in PAGES if page.codes
        ),
        "bad_request": _body(BAD_REQUEST, settings),
        "error_locations": "\n".join(_location(page, settings) for page in PAGES if page is not BAD_REQUEST),
    }
    text = template.replace("@@", "\0")
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], text).replace("\0", "@")


ONE = "rewrite ^ /invocations break; proxy_pass http://worker{slot};"
MANY = "proxy_pass http://unix:names/$name/worker-{slot}.sock:/invocations;"
"""How nginx goes to a certain worker, of one model or of many."""


def _template(name: str) -> str:
    return (files("hfserve.boot") / f"nginx.{name}.template").read_text()


def _upstreams(sockets: Sequence[str]) -> str:
    """All workers of one model, and each by itself."""
    workers = " ".join(f"server {socket} max_fails=0;" for socket in sockets)
    every = f"  upstream workers {{ least_conn; {workers} keepalive 32; }}"
    return "\n".join([every, *(_upstream(slot, sockets) for slot in range(len(sockets)))])


def _upstream(slot: int, sockets: Sequence[str]) -> str:
    """A worker to go to; another one where it has gone and was sent nothing."""
    others = [f"server {socket} max_fails=0 backup;" for socket in sockets if socket != sockets[slot]]
    return f"  upstream worker{slot} {{ server {sockets[slot]} max_fails=0; {' '.join(others)} keepalive 8; }}"


def writing(status: str) -> int:
    """Requests that nginx is answering, from its stub_status page, the one for that page not counted."""
    match = re.search(r"Writing: (\d+)", status)
    return int(match[1]) - 1 if match else 0


def _body(page: Page, settings: Settings) -> str:
    message = str(page.error).format(limit=settings.body_limit, queued=settings.max_queued)
    content = {"status": page.error.status, "type": type(page.error).__name__, "message": message, "request_id": "$rid"}
    return json.dumps({"error": content}).replace("'", "\\'")


def _location(page: Page, settings: Settings) -> str:
    error = page.error
    retry = "".join(f"add_header {name} {value} always; " for name, value in error.headers.items())
    inherited = "add_header X-Request-Id $rid always; add_header Allow $allow always; " if retry else ""
    answer = f"return {error.status} '{_body(page, settings)}';"
    return f"    location @{page.name} {{ default_type application/json; {inherited}{retry}{answer} }}"
