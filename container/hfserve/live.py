"""Answers that go out while they are made: the pieces of texts, or the answers of a long list one after the other."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from hfserve.errors import DeadlineExceeded, Overloaded
from hfserve.messages import Item, Job, Outcome, Part, Stream

Submit = Callable[[Sequence[Item]], "list[asyncio.Future[Any]]"]

_ENDED, _LATE = object(), object()


def chunks(job: Job, submit: Submit, until: float) -> AsyncIterator[bytes]:
    """The whole stream of a job; raises what its items raise, and DeadlineExceeded at `until`."""
    assert job.stream
    return _told(job.items, job.stream, submit, until) if job.stream.told else _answered(job.stream, submit, until)


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


async def _answered(stream: Stream, submit: Submit, until: float) -> AsyncIterator[bytes]:
    """The answer of each part in their order; no more than a few are made before they are read."""
    assert stream.parts
    waiting: deque[tuple[Part, list[asyncio.Future[Outcome]]]] = deque()
    part = await asyncio.to_thread(next, stream.parts, None)
    begun = False
    try:
        while waiting or part:
            while part and len(waiting) < stream.ahead:
                waiting.append((part, await _admitted(part.items, submit, until if begun else 0.0)))
                begun = True
                part = await asyncio.to_thread(next, stream.parts, None)
            done, futures = waiting[0]
            try:
                together = asyncio.gather(*futures, return_exceptions=True)
                outcomes = await asyncio.wait_for(together, until - time.monotonic())
            except TimeoutError:
                raise _overdue() from None
            waiting.popleft()
            yield await asyncio.to_thread(done.answered, outcomes)
        yield stream.end()
    finally:
        for unread, futures in waiting:
            let_go(unread.items, futures)


async def _admitted(items: Sequence[Item], submit: Submit, until: float) -> "list[asyncio.Future[Any]]":
    """Where the queue is full, what has begun comes again until its time is over; what is new is refused."""
    while time.monotonic() < until:
        with contextlib.suppress(Overloaded):
            return submit(items)
        await asyncio.sleep(Overloaded.retry_after)
    return submit(items)


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
