"""A small container: does what the body of a request says, and what its variables say when it starts.

READY_WHEN  a file: until it is there, /ping is 503
CRASH       a file: while it is there, the container ends as soon as it has started
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Container(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        waits_for = os.environ.get("READY_WHEN")
        ready = not waits_for or Path(waits_for).exists()
        self.reply(404 if self.path != "/ping" else 200 if ready else 503, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/models":
            return self.load(**json.loads(body))
        try:
            wanted = json.loads(body)
            assert isinstance(wanted, dict)
        except (ValueError, AssertionError):
            wanted = {}
        return getattr(self, wanted.pop("do", "tell"))(body, **wanted)

    def tell(self, body, headers=(), **_):
        """What the container sees."""
        seen = {
            "headers": {name.lower(): value for name, value in self.headers.items()}, "path": self.path,
            "environment": dict(os.environ), "pid": os.getpid(), "bytes": len(body), "files": _files(),
        }  # fmt: skip
        self.reply(200, json.dumps(seen).encode(), "application/json", dict(headers))

    def load(self, model_name, url):
        text = (Path(url) / "config.json").read_text()
        print(f"loaded {model_name}: {text}", flush=True)
        self.reply(200, b"loaded")

    def refuse(self, _, status, message):
        self.reply(status, message.encode(), "text/plain")

    def print(self, body, text):
        print(text, flush=True)
        self.reply(200, b"printed")

    def die(self, _, after=0):
        if after:
            self.begin_stream()
            self.piece("one\n")
        os._exit(3)

    def wait(self, _, path, begin=False):
        """Answer as soon as a file is there."""
        print(f"waiting for {path}", flush=True)
        if begin:
            self.begin_stream()
            self.piece("one\n")
        while not Path(path).exists():
            time.sleep(0.02)
        self.reply(200, b"waited")

    def stream(self, _, pieces, next=None):
        self.begin_stream()
        for piece in pieces:
            self.piece(piece)
            while next and not Path(next).exists():
                time.sleep(0.02)
        self.wfile.write(b"0\r\n\r\n")

    def stream_on(self, _):
        """Until nobody listens."""
        self.begin_stream()
        try:
            while True:
                self.piece("more\n")
                time.sleep(0.02)
        except OSError:
            print("nobody listens", flush=True)
            self.close_connection = True

    def begin_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, text):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text.encode()))

    def reply(self, status, body, content_type="text/plain", headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def _files():
    base = Path(os.environ["SAGEMAKER_BASE_DIR"])
    return {str(path.relative_to(base)): path.read_text() for path in sorted(base.glob("model/**/*")) if path.is_file()}


if __name__ == "__main__":
    print("starting", flush=True)
    crash = os.environ.get("CRASH")
    if crash and Path(crash).exists():
        print("crashing", flush=True)
        sys.exit(3)
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Container).serve_forever()
