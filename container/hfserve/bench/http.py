"""HTTP/1.1 as little as a load needs: a connection with one request under way, and a response as it arrives."""

import re
import socket
import ssl
import time
from typing import NamedTuple, Self
from urllib.parse import SplitResult, urlsplit

PATIENCE = 70.0
"""Seconds for which an answer is waited for: SageMaker gives up after 60."""

PIECE = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked")


class Answer(NamedTuple):
    """A response that has arrived whole."""

    status: int
    body: bytes
    closes: bool = False


class Arriving:
    """A response of which pieces come in."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._head = b""
        self._place = 0
        self._body = bytearray()

    def take(self, piece: bytes) -> Answer | None:
        """Add a piece; the response when that was the last of it."""
        self._received += piece
        if not self._head:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._head = bytes(self._received[:end]).lower()
            self._place = end + 4
        return self._answer() if self._is_whole() else None

    def end(self) -> Answer | None:
        """The server closed the connection: the response, when that is how it ends."""
        if not self._head or _LENGTH.search(self._head) or _CHUNKED.search(self._head):
            return None
        self._body = self._received[self._place :]
        return self._answer()._replace(closes=True)

    def _is_whole(self) -> bool:
        if _CHUNKED.search(self._head):
            return self._has_all_chunks()
        length = _LENGTH.search(self._head)
        if length is None or len(self._received) - self._place < int(length[1]):
            return False
        self._body = self._received[self._place :]
        return True

    def _has_all_chunks(self) -> bool:
        while (end := self._received.find(b"\r\n", self._place)) >= 0:
            size = int(self._received[self._place : end].partition(b";")[0], 16)
            after = end + 2 + size + 2
            if len(self._received) < after:
                return False
            if size == 0:
                return True
            self._body += self._received[end + 2 : end + 2 + size]
            self._place = after
        return False

    def _answer(self) -> Answer:
        return Answer(int(self._head[9:12]), bytes(self._body), b"\r\nconnection: close" in self._head)


class Connection:
    """A socket that is kept alive, with one request under way at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.place = 0
        self.sent = 0.0
        self._arriving = Arriving()

    @classmethod
    def open(cls, url: SplitResult) -> Self:
        """Connect to the server of an URL."""
        host = url.hostname or "127.0.0.1"
        secure = url.scheme == "https"
        connected = socket.create_connection((host, url.port or (443 if secure else 80)), timeout=PATIENCE)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure:
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
        return cls(connected)

    def send(self, request: bytes, place: int) -> None:
        """Start a request; `place` says which it is."""
        self._arriving = Arriving()
        self.place = place
        self.sent = time.perf_counter()
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(request)
        self.socket.setblocking(False)

    def receive(self) -> Answer | None:
        """Take in what has arrived: the answer, or None while it is not whole. Raises OSError."""
        while True:
            try:
                piece = self.socket.recv(PIECE)
            except (BlockingIOError, ssl.SSLWantReadError):
                return None
            answer = self._arriving.take(piece) if piece else self._arriving.end()
            if answer:
                return answer
            if not piece:
                raise ConnectionResetError("the server closed the connection")

    def close(self) -> None:
        """Let go of it."""
        self.socket.close()


def request(url: SplitResult, body: bytes) -> bytes:
    """The bytes of a POST of JSON."""
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
    )
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def ask(url: str, body: bytes) -> Answer:
    """One request on a connection of its own. Raises OSError."""
    parts = urlsplit(url)
    connection = Connection.open(parts)
    try:
        connection.send(request(parts, body), 0)
        connection.socket.settimeout(PATIENCE)
        while not (answer := connection.receive()):
            pass
        return answer
    finally:
        connection.close()
