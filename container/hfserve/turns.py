"""Who waits, and whose turn it is: each request has its own line, and the lines take turns."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from hfserve.errors import ModelError
from hfserve.messages import Item, Outcome


@dataclass(slots=True)
class Waiting:
    """An item, and the future of whoever waits for its outcome."""

    item: Item
    future: "asyncio.Future[Any]"
    deadline: float
    arrived: float


class Turns:
    """The waiting items of many requests, each request in its own line; lines take turns."""

    def __init__(self) -> None:
        self._lines: OrderedDict[Hashable, deque[Waiting]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def requests(self) -> int:
        """How many requests have an item waiting."""
        return len(self._lines)

    @property
    def oldest(self) -> float:
        """When the item that is next arrived."""
        return next(iter(self._lines.values()))[0].arrived

    def put(self, source: Hashable, waiting: Sequence[Waiting]) -> None:
        """Let the items of one request wait."""
        if waiting:
            self._lines.setdefault(source, deque()).extend(waiting)
        self._size += len(waiting)

    def take(self, most: int, most_tokens: int) -> list[Waiting]:
        """The next batch: items that may share a pass, one from each request in turn, at least one in all."""
        taken: list[Waiting] = []
        tokens = 0
        passed_over: list[tuple[Hashable, deque[Waiting]]] = []
        while self._lines and len(taken) < most:
            source, line = next(iter(self._lines.items()))
            head = line[0]
            if head.future.done():
                self._pop(source, line)
                continue
            fits = not taken or (
                head.item.batch_key == taken[0].item.batch_key and tokens + head.item.cost <= most_tokens
            )
            if not fits:
                passed_over.append((source, self._lines.pop(source)))
                continue
            self._lines.move_to_end(source)
            tokens += head.item.cost
            taken.append(self._pop(source, line))
        for source, line in reversed(passed_over):
            self._lines[source] = line
            self._lines.move_to_end(source, last=False)
        return taken

    def forget_abandoned(self) -> None:
        """Drop the items that nobody waits for any more."""
        for source, line in list(self._lines.items()):
            live = deque(w for w in line if not w.future.done())
            self._size -= len(line) - len(live)
            if live:
                self._lines[source] = live
            else:
                del self._lines[source]

    def clear(self) -> list[Waiting]:
        """Everybody who waits, who then waits no more."""
        left = [waiting for line in self._lines.values() for waiting in line]
        self._lines.clear()
        self._size = 0
        return left

    def _pop(self, source: Hashable, line: deque[Waiting]) -> Waiting:
        self._size -= 1
        waiting = line.popleft()
        if not line:
            del self._lines[source]
        return waiting


def settle(waiting: Waiting, outcome: Outcome) -> None:
    """Give a waiter its outcome, if it still waits."""
    if waiting.future.done():
        return
    if isinstance(outcome, StopIteration):  # which a future refuses to hold
        waiting.future.set_exception(ModelError("the model's code raised StopIteration"))
    elif isinstance(outcome, BaseException):
        waiting.future.set_exception(outcome)
    else:
        waiting.future.set_result(outcome)
