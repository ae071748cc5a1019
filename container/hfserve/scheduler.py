"""Groups waiting items into batches for the lanes, and gives every waiter its own outcome.

A lane is a thread that runs one batch at a time. A free lane runs what is there at once (no waiting on purpose);
requests take turns, so that a long one starves nobody; items that nobody waits for any more are dropped unrun. Items
that are made step by step go to a thread that steps for all of them (continuous.py).
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from hfserve.continuous import Continuous, Steps
from hfserve.errors import ModelError, NotReady, Overloaded
from hfserve.messages import Batch, Item, Outcome, Step
from hfserve.turns import Turns, Waiting, settle

log = logging.getLogger(__name__)

Run = Callable[[Sequence[Item], int], list[Outcome]]
"""Items of one batch and the number of threads that the lane may use → an outcome for each. Never raises."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much runs and waits at once: lanes and the threads they share, items, tokens, requests, seconds."""

    lanes: int = 1
    threads: int = 0
    """0: as many as lanes."""
    max_batch: int = 32
    max_batch_tokens: int = 512
    max_queued: int = 256
    delay: float = 0.0


class Scheduler:
    """The only caller of the model. Lanes live inside `async with`; leaving answers whoever still waits."""

    def __init__(
        self, run: Run, limits: Limits, *, steps: Sequence[Steps] = (),
        observe: Callable[[Batch], None] = lambda batch: None, observe_step: Callable[[Step], None] = lambda step: None,
        hold: Callable[[int], None] = lambda tokens: None,
    ) -> None:  # fmt: skip
        self._run = run
        self._continuous = Continuous(steps, limits.threads or limits.lanes, observe_step) if steps else None
        self._limits = limits
        self._observe = observe
        self._hold = hold
        self._turns = Turns()
        self._changed = threading.Condition()
        self._running: dict[int, float] = {}
        self._closed = False
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for number in range(self._limits.lanes):
            threading.Thread(target=self._lane, args=(number,), name=f"lane-{number}", daemon=True).start()
        if self._continuous:
            self._continuous.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        with self._changed:
            self._closed = True
            left = self._turns.clear()
            self._changed.notify_all()
        for waiting in [*left, *(self._continuous.close() if self._continuous else ())]:
            settle(waiting, NotReady("the server stopped before this request was run; retry"))

    def submit(self, items: Sequence[Item], *, source: Hashable, deadline: float) -> "list[asyncio.Future[Any]]":
        """Let the items of one request (`source`) wait; their futures in order. Raises Overloaded."""
        now = time.monotonic()
        waiting = [Waiting(item, self._loop.create_future(), deadline, now) for item in items]
        with self._changed:
            if self._closed:
                raise NotReady("the server is stopping; retry")
            if self.queued >= self._limits.max_queued:
                self._forget_abandoned()
            if self.queued >= self._limits.max_queued:
                raise Overloaded(f"{self._limits.max_queued} requests are already waiting; retry later")
            if self._continuous:
                self._continuous.put(source, [each for each in waiting if each.item.stepwise])
            self._turns.put(source, [each for each in waiting if not (self._continuous and each.item.stepwise)])
            self._changed.notify_all()
        for each in waiting:
            self._hold(each.item.cost)
            each.future.add_done_callback(partial(self._let_go, each.item.cost))
        return [each.future for each in waiting]

    def _let_go(self, tokens: int, _: object) -> None:
        self._hold(-tokens)

    @property
    def overdue(self) -> float:
        """Seconds that the most belated running batch is past the deadline of all its items; 0 when none is."""
        stepping = self._continuous.overdue if self._continuous else 0.0
        return max([stepping, *(time.monotonic() - deadline for deadline in list(self._running.values()))])

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._turns.requests + (self._continuous.queued if self._continuous else 0)

    def _forget_abandoned(self) -> None:
        self._turns.forget_abandoned()
        if self._continuous:
            self._continuous.forget_abandoned()

    def _lane(self, number: int) -> None:
        while batch := self._next(number):
            outcomes, seconds = self._outcomes(number, batch)
            with self._changed:
                del self._running[number]
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self._loop.call_soon_threadsafe(self._deliver, batch, outcomes, seconds)

    def _next(self, number: int) -> list[Waiting]:
        """Wait for work; an empty list when there will be none."""
        with self._changed:
            while True:
                if self._closed:
                    return []
                patience = self._patience()
                if patience == 0 and self._is_up(number) and (batch := self._take()):
                    self._running[number] = max(waiting.deadline for waiting in batch)
                    if self._turns:
                        self._changed.notify_all()  # the next lane is up
                    return batch
                self._changed.wait(patience or None)

    def _is_up(self, number: int) -> bool:
        """Whether all lanes before this one are busy: the first is used the most, and alone is given all threads."""
        return all(lane in self._running for lane in range(number))

    def _take(self) -> list[Waiting]:
        idle = self._limits.lanes - len(self._running)
        share = math.ceil(len(self._turns) / max(1, idle))
        return self._turns.take(min(share, self._limits.max_batch), self._limits.max_batch_tokens)

    def _patience(self) -> float | None:
        """Seconds that waiting items wait on for company, 0 when their time has come; None: nothing waits."""
        if not self._turns:
            return None
        if not self._limits.delay or len(self._turns) >= self._limits.max_batch:
            return 0.0
        return max(0.0, self._turns.oldest + self._limits.delay - time.monotonic())

    def _outcomes(self, number: int, batch: list[Waiting]) -> tuple[list[Outcome], float]:
        # A second thread that ever used several would make more threads than cores, and OpenMP wait less eagerly.
        alone = number == 0 and len(self._running) == 1 and not self._turns
        threads = self._limits.threads or self._limits.lanes
        share = threads if alone else max(1, threads // self._limits.lanes)
        started = time.monotonic()
        try:
            outcomes = self._run([waiting.item for waiting in batch], share)
            if len(outcomes) != len(batch):
                raise ModelError(f"{len(batch)} items were run and {len(outcomes)} outcomes came back")
        except BaseException:  # a lane must outlive whatever user code raises, SystemExit included
            log.exception("the model raised where it may not")
            outcomes = [ModelError("the model's code failed; the log has the traceback")] * len(batch)
        return outcomes, time.monotonic() - started

    def _deliver(self, batch: list[Waiting], outcomes: list[Outcome], seconds: float) -> None:
        for waiting, outcome in zip(batch, outcomes, strict=True):
            settle(waiting, outcome)
        now = time.monotonic()
        waits = [max(0.0, now - seconds - waiting.arrived) for waiting in batch]
        self._observe(Batch(len(batch), sum(waiting.item.cost for waiting in batch), waits, seconds))
