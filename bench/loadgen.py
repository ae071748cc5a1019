"""Closed-loop load over HTTP/1.1: each of N clients sends its next text as soon as it has its answer.

One thread and plain sockets, kept alive, so that the generator takes little of the machine that the server runs on.
Every answer is checked. As a script: `python bench/loadgen.py http://127.0.0.1:8080/invocations -c 8 -d 10 --pid PID`.
"""

import argparse
import contextlib
import itertools
import json
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import workload
from procfs import Meter

TIMEOUT = 30.0
"""Seconds for which the last answers are waited for."""

MUST_HOLD = b'"label"'
"""What the body of a right answer has in it."""


class Answer(NamedTuple):
    """An HTTP response that has arrived whole."""

    status: int
    body: bytes
    closes: bool


@dataclass
class Tally:
    """What came back in a stretch of time."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def note(self, answer: Answer, seconds: float) -> None:
        """Count an answer: its latency when it is right, else what is wrong with it."""
        if answer.status != 200:
            self.errors[f"status {answer.status}"] += 1
        elif MUST_HOLD not in answer.body:
            self.errors["no label"] += 1
        else:
            self.latencies.append(seconds)

    def summary(self) -> dict[str, Any]:
        """Figures for the report; latencies in milliseconds."""
        ordered = sorted(self.latencies)
        return {
            "answers": len(ordered),
            "seconds": round(self.seconds, 2),
            "requests_per_s": round(len(ordered) / self.seconds, 2),
            "p50_ms": percentile(ordered, 0.50),
            "p99_ms": percentile(ordered, 0.99),
            "errors": dict(self.errors),
        }


class Client:
    """One connection, with one request under way."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.sent = 0.0
        self._received = b""

    @classmethod
    def connect(cls, address: tuple[str, int]) -> Self:
        """Open the connection."""
        connection = socket.create_connection(address, timeout=TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection)

    def send(self, request: bytes) -> None:
        """Start the next request."""
        self._received = b""
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> Answer | None:
        """Take in what has arrived: the answer, or None while it is not whole. Raises ConnectionError."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionResetError("the server closed the connection")
        self._received += piece
        return parse(self._received)


class Crowd:
    """All clients; they live inside `with`."""

    def __init__(self, url: str, bodies: Sequence[bytes], clients: int) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._requests = requests(parts.netloc, parts.path or "/", bodies)
        self._count = clients
        self._selector = selectors.DefaultSelector()
        self.waiting: set[Client] = set()

    def __enter__(self) -> Self:
        for _ in range(self._count):
            self._join()
        return self

    def __exit__(self, *exc: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()

    def run(self, seconds: float) -> Tally:
        """Keep the load up for some time."""
        tally = Tally()
        now = started = time.perf_counter()
        while now < started + seconds:
            self._hear(tally, started + seconds - now, again=True)
            now = time.perf_counter()
        tally.seconds = now - started
        return tally

    def drain(self) -> Counter[str]:
        """Send no more, and wait for the answers under way; the errors among them, missing ones included."""
        tally = Tally()
        end = time.perf_counter() + TIMEOUT
        while self.waiting and (left := end - time.perf_counter()) > 0:
            self._hear(tally, left, again=False)
        if self.waiting:
            tally.errors["no answer"] += len(self.waiting)
        return tally.errors

    def _hear(self, tally: Tally, patience: float, *, again: bool) -> None:
        for key, _ in self._selector.select(max(0.0, patience)):
            client: Client = key.data
            try:
                answer = client.receive()
            except OSError as error:
                tally.errors[type(error).__name__] += 1
                self._leave(client, again)
                continue
            if answer is None:
                continue
            tally.note(answer, time.perf_counter() - client.sent)
            self.waiting.discard(client)
            if answer.closes:
                self._leave(client, again)
            elif again:
                self._send(client)

    def _join(self) -> None:
        client = Client.connect(self._address)
        self._selector.register(client.socket, selectors.EVENT_READ, client)
        self._send(client)

    def _send(self, client: Client) -> None:
        with contextlib.suppress(OSError):  # a broken connection shows, and is counted, when its answer is read
            client.send(next(self._requests))
        self.waiting.add(client)

    def _leave(self, client: Client, again: bool) -> None:
        """Forget a connection; another takes its place while the load is kept up."""
        self.waiting.discard(client)
        self._selector.unregister(client.socket)
        client.socket.close()
        if again:
            self._join()


def load(
    url: str, bodies: Sequence[bytes], *, clients: int, seconds: float, warmup: float = 2.0, pid: int | None = None
) -> dict[str, Any]:
    """Warm up, measure, wait for the last answers; what happened, in figures."""
    meter = Meter(pid)
    with Crowd(url, bodies, clients) as crowd:
        crowd.run(warmup)
        meter.start()
        tally = crowd.run(seconds)
        used = meter.stop()
        tally.errors += crowd.drain()
    return {"clients": clients, **tally.summary(), **used}


def requests(host: str, path: str, bodies: Iterable[bytes]) -> Iterator[bytes]:
    """The fixed stream of requests, over and over."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
    return itertools.cycle([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])


def bodies(texts: Iterable[str]) -> list[bytes]:
    """Each text as the JSON that both servers take."""
    return [json.dumps({"inputs": text}).encode() for text in texts]


def parse(received: bytes) -> Answer | None:
    """An HTTP response, or None while some of it is missing."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    head = head.lower()
    whole = _is_whole(head, body)
    return Answer(int(head[9:12]), body, b"connection: close" in head) if whole else None


def _is_whole(head: bytes, body: bytes) -> bool:
    _, found, rest = head.partition(b"content-length:")
    return len(body) >= int(rest.partition(b"\r\n")[0]) if found else body.endswith(b"0\r\n\r\n")


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """In milliseconds, by the nearest rank; None of nothing."""
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2) if ordered else None


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", metavar="URL", help="for example http://127.0.0.1:8080/invocations")
    parser.add_argument("-c", "--clients", type=int, default=8)
    parser.add_argument("-d", "--seconds", type=float, default=10.0, help="measured, after the warm-up")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds that do not count")
    parser.add_argument("--pid", type=int, help="the server's first process: adds its tree's CPU and memory")
    given = vars(parser.parse_args())
    print(json.dumps(load(given.pop("url"), bodies(workload.texts()), **given)))


if __name__ == "__main__":
    main()
