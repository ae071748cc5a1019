"""Requests and answers of HTTP: bodies in every framing that AWS's clients use, and one write per answer."""

import io
import socketserver
import sys
import urllib.parse
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO, cast

PIECE = 1 << 16


@dataclass(frozen=True)
class Request:
    """What a client sent; the body is read when it is wanted."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: BinaryIO

    def form(self) -> dict[str, str]:
        """The body of a query service."""
        return dict(urllib.parse.parse_qsl(self.body.read().decode()))


@dataclass
class Answer:
    """What goes back: bytes, or pieces, whose sum is `length` or, without it, not known before.

    `done` is called when it has gone, or cannot go.
    """

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    done: Callable[[], None] = lambda: None


class Server(ThreadingHTTPServer):
    """A thread for each connection; `answer` makes of each request what goes back."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Callable[[Request], Answer]) -> None:
        self.answer = answer
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without looking up the name of the host, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nobody's error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 600

    def _respond(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        body = _body(cast(io.BufferedReader, self.rfile), self.headers)
        request = Request(
            method=self.command,
            path=urllib.parse.unquote(url.path),
            query=dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True)),
            headers=self.headers,
            body=body,
        )
        answer = cast(Server, self.server).answer(request)
        try:
            while body.read(PIECE):
                pass
            self._send(answer)
        finally:
            answer.done()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _respond

    def _send(self, answer: Answer) -> None:
        whole = answer.body if isinstance(answer.body, bytes) else None
        length = len(whole) if whole is not None and answer.length is None else answer.length
        self.send_response(answer.status)
        for name, value in {"x-amzn-RequestId": str(uuid.uuid4()), **answer.headers}.items():
            self.send_header(name, value)
        framing = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
        if answer.status != 204:
            self.send_header(*framing)
        head = b"".join([*self._headers_buffer, b"\r\n"])
        self._headers_buffer: list[bytes] = []
        if self.command == "HEAD" or answer.status in (204, 304):
            self.wfile.write(head)
        elif whole is not None:
            self.wfile.write(head + whole)
        else:
            self.wfile.write(head)
            self._send_pieces(cast(Iterable[bytes], answer.body), chunked=length is None)

    def _send_pieces(self, pieces: Iterable[bytes], *, chunked: bool) -> None:
        for piece in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: what a container says is."""


def _body(source: io.BufferedReader, headers: Message) -> BinaryIO:
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    raw = _Chunked(source) if chunked else _Sized(source, int(headers.get("Content-Length") or 0))
    body = io.BufferedReader(raw, PIECE)
    signed = headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
    if signed or "aws-chunked" in headers.get("Content-Encoding", ""):
        body = io.BufferedReader(_Chunked(body), PIECE)
    return cast(BinaryIO, body)


class _Sized(io.RawIOBase):
    """So many bytes of a connection."""

    def __init__(self, source: io.BufferedReader, length: int) -> None:
        self._source, self._left = source, length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._source.readinto1(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class _Chunked(io.RawIOBase):
    """Chunks, as of HTTP's `chunked` and as of S3's `aws-chunked`, whose trailers are skipped."""

    def __init__(self, source: "io.BufferedReader[Any]") -> None:
        self._source, self._left, self._over = source, 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._over:
            return 0
        if not self._left:
            self._left = int(self._source.readline().split(b";")[0] or b"0", 16)
        if not self._left:
            self._over = True
            while self._source.readline().strip():
                pass
            return 0
        count = self._source.readinto1(memoryview(buffer)[: self._left])
        self._left -= count
        if not self._left:
            self._source.readline()
        return count
