"""Runs what is made step by step: newcomers join and the finished leave between any two steps.

Each lane is a thread that steps for its share. Requests take turns to join, each in its own line, and who waits for
room is the next to get it, so that nobody is starved; those that nobody waits for any more leave before the next step.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from hfserve.errors import ModelError, ServeError
from hfserve.messages import Item, Outcome, Step
from hfserve.turns import Turns, Waiting, settle

log = logging.getLogger(__name__)


class Steps(Protocol):
    """What makes outcomes step by step; called from one thread."""

    def start(self, item: Item) -> Hashable | None:
        """Let an item join; None when there is no room now. Raises ServeError when it cannot run."""

    def step(self, threads: int) -> Sequence[tuple[Hashable, Outcome]]:
        """One step for all that have joined; those that ended with it, and have left. Raises ServeError for all."""

    def stop(self, started: Hashable) -> None:
        """Let one leave."""

    @property
    def tokens(self) -> int:
        """Tokens made so far."""

    @property
    def room(self) -> tuple[int, int]:
        """How much of the room is taken, and how much there is, in blocks."""


class Continuous:
    """Threads that step as long as there is something to step, each for its own share; use `open` and `close`."""

    def __init__(
        self, steps: Sequence[Steps], threads: int, observe: Callable[[Step], None] = lambda step: None
    ) -> None:
        self._lanes = [_Lane(each) for each in steps]
        self._threads = threads
        self._observe = observe
        self._turns = Turns()
        self._head: Waiting | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop

    def open(self) -> None:
        """Begin to step."""
        self._loop = asyncio.get_running_loop()
        for number, lane in enumerate(self._lanes):
            threading.Thread(target=self._live, args=(lane,), name=f"steps-{number}", daemon=True).start()

    def close(self) -> list[Waiting]:
        """Step no more; those who have not begun."""
        with self._changed:
            self._closed = True
            left = [*([self._head] if self._head else ()), *self._turns.clear()]
            self._head = None
            self._changed.notify_all()
        return left

    def put(self, source: Hashable, waiting: Sequence[Waiting]) -> None:
        """Let the items of one request wait for their turn."""
        with self._changed:
            self._turns.put(source, waiting)
            self._changed.notify_all()

    def forget_abandoned(self) -> None:
        """Drop those that wait and that nobody waits for."""
        with self._changed:
            self._turns.forget_abandoned()

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._turns.requests + (self._head is not None)

    @property
    def overdue(self) -> float:
        """Seconds that a step under way is past the deadline of all that it runs; 0 when none is."""
        return max(lane.overdue for lane in self._lanes)

    def _live(self, lane: "_Lane") -> None:
        while self._let_in(lane):
            cancelled = lane.drop_abandoned()
            if lane.running or cancelled:
                self._step(lane, cancelled)

    def _let_in(self, lane: "_Lane") -> bool:
        """Wait for something to do, and let those join for whom there is room; False when there will be no more."""
        with self._changed:
            while not self._closed:
                while self._is_next(lane) and (waiting := self._take()):
                    try:
                        started = lane.steps.start(waiting.item)
                    except BaseException as error:
                        self._deliver([(waiting, _told(error))])
                        continue
                    if started is None:
                        self._head = waiting
                        lane.is_full = True
                        break
                    lane.running[started] = waiting
                if lane.running:
                    self._changed.notify_all()  # what is left is for the others
                    return True
                self._changed.wait()
            return False

    def _is_next(self, lane: "_Lane") -> bool:
        """Whether it is this lane's to take one more: that of an emptiest one with room; of idle ones the first's."""
        open_ = [each for each in self._lanes if not each.is_full]
        least = min((len(each.running) for each in open_), default=0)
        emptiest = [each for each in open_ if len(each.running) == least]
        return lane in (emptiest if least else emptiest[:1])

    def _take(self) -> Waiting | None:
        """Who is the next to join; the first who found no room stays so."""
        if self._head and not self._head.future.done():
            head, self._head = self._head, None
            return head
        self._head = None
        return next(iter(self._turns.take(1, 1)), None)

    def _step(self, lane: "_Lane", cancelled: int) -> None:
        others = any(each.running for each in self._lanes if each is not lane)
        alone = lane is self._lanes[0] and not others
        threads = self._threads if alone else max(1, self._threads // len(self._lanes))
        running, before, started = len(lane.running), lane.steps.tokens, time.monotonic()
        ended = lane.step(threads) if running else []
        seconds = time.monotonic() - started
        with self._changed:
            if ended or cancelled:
                lane.is_full = False
        rooms = [each.steps.room for each in self._lanes]
        step = Step(
            running, sum(len(each.running) for each in self._lanes), lane.steps.tokens - before,
            sum(used for used, _ in rooms), sum(blocks for _, blocks in rooms), seconds, cancelled,
        )  # fmt: skip
        self._deliver(ended, step)

    def _deliver(self, ended: Sequence[tuple[Waiting, Outcome]], step: Step | None = None) -> None:
        def deliver() -> None:
            for waiting, outcome in ended:
                settle(waiting, outcome)
            if step:
                self._observe(step)

        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            self._loop.call_soon_threadsafe(deliver)


class _Lane:
    """What one thread steps, and who runs there; `is_full` until one of them leaves."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.running: dict[Hashable, Waiting] = {}
        self.is_full = False
        self._since = 0.0

    @property
    def overdue(self) -> float:
        """Seconds that the step under way is past the deadline of all that it runs."""
        since, running = self._since, list(self.running.values())
        if not since or not running:
            return 0.0
        return max(0.0, time.monotonic() - max(since, *(each.deadline for each in running)))

    def drop_abandoned(self) -> int:
        """Let those leave whose client went or whose deadline passed; how many."""
        gone = [started for started, waiting in self.running.items() if waiting.future.done()]
        for started in gone:
            del self.running[started]
            self.steps.stop(started)
        return len(gone)

    def step(self, threads: int) -> list[tuple[Waiting, Outcome]]:
        """One step; who has ended with it. A thread must outlive whatever is raised in one."""
        self._since = time.monotonic()
        try:
            return [(self.running.pop(each), outcome) for each, outcome in self.steps.step(threads)]
        except BaseException as error:
            ended = [(waiting, _told(error)) for waiting in self.running.values()]
            for each in list(self.running):
                del self.running[each]
                self.steps.stop(each)
            return ended
        finally:
            self._since = 0.0


def _told(error: BaseException) -> Exception:
    if isinstance(error, ServeError):
        return error
    log.error("making a text failed", exc_info=error)
    return ModelError("the model's code failed; the log has the traceback")
