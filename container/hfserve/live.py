"""Answers that go out while they are made: the pieces of texts, or the answers of a long list one after the other."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from hfserve.errors import DeadlineExceeded
from hfserve.messages import Item, Job, Outcome, Stream

Submit = Callable[[Sequence[Item]], "list[asyncio.Future[Any]]"]

AHEAD = 64
"""Items of a list that run, or whose answers wait for those before them."""

_ENDED, _LATE = object(), object()


def chunks(job: Job, submit: Submit, until: float) -> AsyncIterator[bytes]:
    """The whole stream of a job; raises what its items raise, and DeadlineExceeded at `until`."""
    assert job.stream
    return (_told if job.stream.told else _answered)(job.items, job.stream, submit, until)


async def _told(items: Sequence[Item], stream: Stream, submit: Submit, until: float) -> AsyncIterator[bytes]:
    """Every piece as it is made, those of several items as they come."""
    assert stream.told
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    for number, item in enumerate(items):
        item.feed.tell = partial(_hand_over, loop, heard, number)
    futures = submit(items)
    everything = asyncio.gather(*futures)
    everything.add_done_callback(lambda _: heard.put_nowait((0, _ENDED)))
    late = loop.call_later(until - time.monotonic(), heard.put_nowait, (0, _LATE))
    try:
        while (news := await heard.get())[1] is not _ENDED:
            if news[1] is _LATE:
                raise _overdue()
            yield stream.told(*news)
        await everything
        yield stream.end()
    finally:
        late.cancel()
        let_go(items, futures)
        everything.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _answered(items: Sequence[Item], stream: Stream, submit: Submit, until: float) -> AsyncIterator[bytes]:
    """The answer of each part in their order; no more than a few are made before they are read."""
    assert stream.answered
    waiting: deque[tuple[int, Sequence[Item], list[asyncio.Future[Outcome]]]] = deque()
    left = deque(enumerate(items[part] for part in stream.parts))
    try:
        while waiting or left:
            while left and sum(len(some) for _, some, _ in waiting) < AHEAD:
                number, some = left.popleft()
                waiting.append((number, some, submit(some)))
            number, some, futures = waiting[0]
            done = asyncio.gather(*futures)
            try:
                outcomes = await asyncio.wait_for(done, until - time.monotonic())
            except TimeoutError:
                raise _overdue() from None
            waiting.popleft()
            yield stream.answered(number, outcomes)
        yield stream.end()
    finally:
        for _, some, futures in waiting:
            let_go(some, futures)


def _hand_over(
    loop: asyncio.AbstractEventLoop, heard: "asyncio.Queue[tuple[int, Any]]", number: int, piece: Any
) -> None:
    """From the thread that makes the pieces; a loop that has ended has nobody who listens."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(heard.put_nowait, (number, piece))


def let_go(items: Sequence[Item], futures: "Sequence[asyncio.Future[Any]]") -> None:
    """Wait for the items no more; those that run hear of it."""
    for item in items:
        item.feed.gone = True
    for future in futures:
        future.cancel()


def _overdue() -> DeadlineExceeded:
    return DeadlineExceeded("the stream was not at its end before its time (HFSERVE_STREAM_TIMEOUT)")
