"""A container small enough to stand in a test: it answers HTTP by a function, and remembers what it was asked."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class SmallContainer:
    """`answer(asked)` gives a status and a body, and a Content-Type where it matters."""

    def __init__(self, answer, base_dir=Path("/nowhere")):
        self.answer, self.base_dir, self.asked, self.stopped = answer, base_dir, [], False
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.container = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.name, self.url = "small", f"http://127.0.0.1:{self._server.server_port}"

    @property
    def alive(self):
        return not self.stopped

    @property
    def invoked(self):
        return [asked for asked in self.asked if asked.path == "/invocations"]

    def inside(self, path):
        return f"/opt/ml/{path.relative_to(self.base_dir)}"

    def stop(self, grace=30):
        if not self.stopped:
            self.stopped = True
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that goes away is nobody's error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _respond(self):
        container = self.server.container
        asked = Asked(self.command, self.path, dict(self.headers), self._body())
        container.asked.append(asked)
        status, body, *content_type = container.answer(asked)
        self.send_response(status)
        self.send_header("Content-Type", content_type[0] if content_type else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _respond

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *words):
        pass
