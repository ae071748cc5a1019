"""Closed-loop load: each of some clients sends its next request as soon as it has its answer, which is checked.

One thread and plain sockets, kept alive, so that the generator takes little of the machine that the server may be on.
"""

import contextlib
import math
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self
from urllib.parse import urlsplit

from hfserve.bench.http import PATIENCE, Answer, Connection, request

LOOK = 0.5
"""Seconds between two looks of whoever watches."""

WRITTEN = b'_text"'
"""What an answer has in it that a model has written: generated_text, summary_text, translation_text."""

FAILED = 0
"""Status of a request that was not answered at all."""


@dataclass
class Tally:
    """What came back in a stretch of time."""

    must_hold: bytes = b""
    """What the body of a right answer has in it."""
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    answered: Counter[int] = field(default_factory=Counter)
    """How often each body got a right answer, by its place."""
    written: list[tuple[int, bytes]] = field(default_factory=list)
    """Answers that hold text, with the places of their bodies."""

    def note(self, place: int, answer: Answer, seconds: float) -> None:
        """Count an answer: its latency when it is right, else what is wrong with it."""
        if not 200 <= answer.status < 300:
            self.errors[f"status {answer.status}" if answer.status else answer.body.decode()] += 1
        elif self.must_hold not in answer.body:
            self.errors["wrong answer"] += 1
        else:
            self.latencies.append(seconds)
            self.answered[place] += 1
            if WRITTEN in answer.body:
                self.written.append((place, answer.body))

    @property
    def count(self) -> int:
        """Answers and errors together."""
        return len(self.latencies) + self.errors.total()

    @property
    def requests_per_s(self) -> float:
        """Right answers per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float | None:
        """A latency in milliseconds, by the nearest rank; None when nothing was answered."""
        ordered = sorted(self.latencies)
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2) if ordered else None

    def figures(self) -> dict[str, object]:
        """For a report."""
        return {
            "answers": len(self.latencies), "seconds": round(self.seconds, 2),
            "requests_per_s": round(self.requests_per_s, 2),
            "p50_ms": self.percentile(0.50), "p99_ms": self.percentile(0.99), "errors": dict(self.errors),
        }  # fmt: skip


Watch = Callable[[Tally], None]


@dataclass(frozen=True)
class Bound:
    """How long to keep the load up: some seconds, or a number of requests."""

    seconds: float = math.inf
    requests: float = math.inf

    def left(self, tally: Tally, since: float) -> float:
        """Seconds that are left; 0 or less when it is enough."""
        return since + self.seconds - time.perf_counter() if tally.count < self.requests else 0.0


class Crowd(Protocol):
    """Clients that live inside `with`."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(self, *exc: object) -> None:
        """Leave nothing open."""

    def run(self, bound: Bound, watch: Watch | None = None) -> Tally:
        """Keep the load up; whoever watches is shown the tally as it grows."""

    def drain(self) -> Counter[str]:
        """Send no more, and wait for the answers under way; the errors among them, missing ones included."""


def measure(
    crowd: Crowd, bound: Bound, *, warmup: Bound, watch: Watch | None = None,
    during: contextlib.AbstractContextManager[object] | None = None,
) -> Tally:  # fmt: skip
    """Warm up, measure, wait for the last answers; `during` is entered for the time that counts."""
    with crowd:
        crowd.run(warmup)
        with during or contextlib.nullcontext():
            tally = crowd.run(bound, watch)
        tally.errors += crowd.drain()
    return tally


class Sockets:
    """Clients that speak HTTP to an URL, all in one thread."""

    def __init__(self, url: str, bodies: Sequence[bytes], clients: int, *, must_hold: bytes = b"") -> None:
        self._url = urlsplit(url)
        self._requests = [request(self._url, body) for body in bodies]
        self._next = 0
        self._absent = clients
        self._must_hold = must_hold
        self._selector = selectors.DefaultSelector()
        self._waiting: set[Connection] = set()

    def __enter__(self) -> Self:
        while self._absent:
            self._join()
        return self

    def __exit__(self, *exc: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()

    def run(self, bound: Bound, watch: Watch | None = None) -> Tally:
        """Keep the load up."""
        tally = Tally(self._must_hold)
        shown = began = time.perf_counter()
        while (left := bound.left(tally, began)) > 0:
            self._hear(tally, min(left, LOOK), again=True)
            now = time.perf_counter()
            tally.seconds = now - began
            if watch and now > shown + LOOK:
                shown = now
                watch(tally)
        return tally

    def drain(self) -> Counter[str]:
        """Wait for the answers under way."""
        tally = Tally(self._must_hold)
        end = time.perf_counter() + PATIENCE
        while self._waiting and (left := end - time.perf_counter()) > 0:
            self._hear(tally, left, again=False)
        if self._waiting:
            tally.errors["no answer"] += len(self._waiting)
        return tally.errors

    def _hear(self, tally: Tally, patience: float, *, again: bool) -> None:
        while self._absent and again:
            try:
                self._join()
            except OSError as error:
                tally.errors[type(error).__name__] += 1
                time.sleep(0.05)
                break
        for key, _ in self._selector.select(patience):
            client: Connection = key.data
            try:
                answer = client.receive()
            except OSError as error:
                tally.errors[type(error).__name__] += 1
                self._leave(client)
                continue
            if answer is None:
                continue
            tally.note(client.place, answer, time.perf_counter() - client.sent)
            self._waiting.discard(client)
            if answer.closes:
                self._leave(client)
            elif again:
                self._send(client)

    def _join(self) -> None:
        client = Connection.open(self._url)
        self._absent -= 1
        self._selector.register(client.socket, selectors.EVENT_READ, client)
        self._send(client)

    def _send(self, client: Connection) -> None:
        place = self._next
        self._next = (place + 1) % len(self._requests)
        with contextlib.suppress(OSError):  # a broken connection shows, and is counted, when its answer is read
            client.send(self._requests[place], place)
        self._waiting.add(client)

    def _leave(self, client: Connection) -> None:
        """Forget a connection; another takes its place while the load is kept up."""
        self._waiting.discard(client)
        self._selector.unregister(client.socket)
        client.close()
        self._absent += 1


class Callers:
    """Clients that call a function which answers a body, each in a thread: for doors that are not plain HTTP."""

    def __init__(
        self, call: Callable[[bytes], Answer], bodies: Sequence[bytes], clients: int, *, must_hold: bytes = b""
    ) -> None:
        self._call = call
        self._bodies = bodies
        self._must_hold = must_hold
        self._tally = Tally(must_hold)
        self._lock = threading.Lock()
        self._next = 0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()

    def run(self, bound: Bound, watch: Watch | None = None) -> Tally:
        """Count what comes back meanwhile."""
        tally = self._counted_in(Tally(self._must_hold))
        began = time.perf_counter()
        while (left := bound.left(tally, began)) > 0:
            time.sleep(min(left, LOOK))
            tally.seconds = time.perf_counter() - began
            if watch:
                with self._lock:
                    watch(tally)
        self._counted_in(Tally(self._must_hold))
        return tally

    def drain(self) -> Counter[str]:
        """Wait for the answers under way."""
        self._stopped.set()
        end = time.perf_counter() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - time.perf_counter()))
        late = sum(thread.is_alive() for thread in self._threads)
        return self._tally.errors + Counter({"no answer": late})

    def _counted_in(self, tally: Tally) -> Tally:
        with self._lock:
            self._tally = tally
        return tally

    def _work(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                place = self._next
                self._next = (place + 1) % len(self._bodies)
            sent = time.perf_counter()
            answer = self._call(self._bodies[place])
            seconds = time.perf_counter() - sent
            with self._lock:
                self._tally.note(place, answer, seconds)
            if answer.status == FAILED:
                self._stopped.wait(0.05)
