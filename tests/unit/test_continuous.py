"""Items that are made step by step share a thread: who joins when, who leaves, and what everybody is told."""

import asyncio
import contextlib
import itertools
import threading
import time

from hfserve.errors import InvalidInput, ModelError, NotReady, OutOfMemory, Overloaded
from hfserve.messages import Item
from hfserve.scheduler import Limits, Scheduler

PATIENCE = 5
SOON = time.monotonic() + 3600


class Counting:
    """Counts each item up to its value, one a step, for as many items as there is room; it can be held."""

    def __init__(self, room=2):
        self.places = room
        self.running = {}
        self.joined = []
        self.steps = 0
        self.tokens = 0
        self.threads = []
        self.peer = None
        self.lead = 0
        self.failure = None
        self.gate = threading.Event()
        self.gate.set()

    @property
    def room(self):
        return len(self.running), self.places

    def start(self, item):
        if item.data == "bad":
            raise InvalidInput("bad")
        if len(self.running) >= self.places:
            return None
        self.joined.append(item.data)
        self.lead = max(self.lead, len(self.running) - len(self.peer.running)) if self.peer else 0
        started = object()
        self.running[started] = [item, 0]
        return started

    def step(self, threads):
        self.gate.wait(PATIENCE)
        self.steps += 1
        self.threads.append(threads)
        if self.failure:
            raise self.failure
        ended = []
        for started, state in list(self.running.items()):
            item, _ = state
            state[1] += 1
            self.tokens += 1
            if item.feed.tell:
                item.feed.tell(state[1])
            if state[1] == item.data:
                del self.running[started]
                ended.append((started, f"counted to {item.data}"))
        return ended

    def stop(self, started):
        del self.running[started]


def never(items, threads):
    raise AssertionError("no lane runs what is made step by step")


def submit(scheduler, *values, source=None):
    return scheduler.submit([Item(v, stepwise=True) for v in values], source=source or object(), deadline=SOON)


async def outcomes(*futures):
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*itertools.chain(*futures), return_exceptions=True)


async def come_true(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def stepping(*steps, **limits):
    seen = []
    async with Scheduler(never, Limits(**limits), steps=steps, observe_step=seen.append) as scheduler:
        yield scheduler, seen


def test_items_join_while_others_are_made_and_each_ends_in_its_time():
    async def main():
        steps = Counting(room=2)
        async with stepping(steps) as (scheduler, seen):
            assert await outcomes(submit(scheduler, 3), submit(scheduler, 1), submit(scheduler, 2)) == [
                "counted to 3", "counted to 1", "counted to 2",
            ]  # fmt: skip
            await come_true(lambda: seen and seen[-1].left == 0)
            assert steps.steps == 3, "the third takes the place of the second, while the first goes on"
            assert sum(step.tokens for step in seen) == 6

    asyncio.run(main())


def test_a_long_request_s_items_take_turns_with_those_of_others():
    async def main():
        steps = Counting(room=1)
        async with stepping(steps) as (scheduler, _):
            steps.gate.clear()
            first = submit(scheduler, 1)
            await come_true(lambda: steps.joined)
            many, lone = submit(scheduler, 5, 5, 5), submit(scheduler, 2)
            steps.gate.set()
            await outcomes(first, many, lone)
            assert steps.joined == [1, 5, 2, 5, 5]

    asyncio.run(main())


def test_two_lanes_share_what_there_is_and_one_that_is_alone_has_all_threads():
    async def main():
        one, two = Counting(room=4), Counting(room=4)
        async with stepping(one, two, threads=8) as (scheduler, _):
            await outcomes(submit(scheduler, 3))
            assert (one.threads, two.threads) == ([8, 8, 8], []), "a lone one is the first lane's"
            one.peer, two.peer = two, one
            one.gate.clear()
            two.gate.clear()
            futures = [submit(scheduler, 50) for _ in range(6)]
            await come_true(lambda: one.running and two.running)
            one.gate.set()
            two.gate.set()
            await outcomes(*futures)
            assert one.lead <= 0 and two.lead <= 0, "whoever joins goes where no more are than elsewhere"
            assert set(two.threads) == {4}

    asyncio.run(main())


def test_one_that_finds_no_room_in_its_lane_takes_another_s():
    async def main():
        small, large = Counting(room=1), Counting(room=3)
        async with stepping(small, large) as (scheduler, _):
            small.gate.clear()
            first = submit(scheduler, 20)
            await come_true(lambda: small.running)
            assert await outcomes(*(submit(scheduler, 20) for _ in range(3))) == ["counted to 20"] * 3
            assert small.joined == [20] and large.joined == [20] * 3
            small.gate.set()
            assert await outcomes(first) == ["counted to 20"]

    asyncio.run(main())


def test_who_is_gone_leaves_before_the_next_step_and_others_go_on():
    async def main():
        steps = Counting()
        async with stepping(steps) as (scheduler, seen):
            steps.gate.clear()
            gone, stays = submit(scheduler, 1000), submit(scheduler, 4)
            await come_true(lambda: len(steps.joined) == 2)
            gone[0].cancel()
            steps.gate.set()
            assert await outcomes(stays) == ["counted to 4"]
            assert not steps.running
            await come_true(lambda: seen and seen[-1].left == 0)
            assert sum(step.cancelled for step in seen) == 1

    asyncio.run(main())


def test_who_is_gone_before_there_was_room_never_joins():
    async def main():
        steps = Counting(room=1)
        async with stepping(steps) as (scheduler, _):
            steps.gate.clear()
            first = submit(scheduler, 2)
            await come_true(lambda: steps.joined)
            waits, last = submit(scheduler, 3), submit(scheduler, 4)
            await come_true(lambda: scheduler.queued == 2)
            waits[0].cancel()
            steps.gate.set()
            await outcomes(first, last)
            assert steps.joined == [2, 4]

    asyncio.run(main())


def test_one_that_cannot_start_fails_alone():
    async def main():
        async with stepping(Counting()) as (scheduler, _):
            good, bad = await outcomes(submit(scheduler, 2, "bad"))
            assert good == "counted to 2" and isinstance(bad, InvalidInput)

    asyncio.run(main())


def test_a_step_that_fails_fails_all_that_run_and_the_next_are_answered():
    async def main():
        steps = Counting()
        async with stepping(steps) as (scheduler, _):
            for failure, told in ((OutOfMemory("full"), OutOfMemory), (RuntimeError("?"), ModelError)):
                steps.failure = failure
                found = await outcomes(submit(scheduler, 2), submit(scheduler, 2))
                assert [type(each) for each in found] == [told, told]
                assert not steps.running
            steps.failure = None
            assert await outcomes(submit(scheduler, 2)) == ["counted to 2"]

    asyncio.run(main())


def test_pieces_are_told_before_the_outcome():
    async def main():
        steps = Counting()
        async with stepping(steps) as (scheduler, _):
            heard = []
            item = Item(3, stepwise=True)
            item.feed.tell = heard.append
            (future,) = scheduler.submit([item], source=1, deadline=SOON)
            future.add_done_callback(lambda _: heard.append("done"))
            await outcomes([future])
            assert heard == [1, 2, 3, "done"]

    asyncio.run(main())


def test_those_who_wait_count_as_queued_and_are_answered_at_the_end():
    async def main():
        steps = Counting(room=1)
        async with stepping(steps, max_queued=2) as (scheduler, _):
            steps.gate.clear()
            submit(scheduler, 1)
            await come_true(lambda: steps.joined)
            left = [*submit(scheduler, 1), *submit(scheduler, 1)]
            await come_true(lambda: scheduler.queued == 2)
            try:
                submit(scheduler, 1)
                raise AssertionError("there was no more room to wait")
            except Overloaded:
                pass
        steps.gate.set()
        found = await outcomes(left)
        assert all(isinstance(each, NotReady) for each in found)

    asyncio.run(main())


def test_nothing_runs_while_nothing_waits():
    async def main():
        steps = Counting()
        async with stepping(steps) as (scheduler, seen):
            await outcomes(submit(scheduler, 2))
            await come_true(lambda: len(seen) == 2)
            threads = [thread for thread in threading.enumerate() if thread.name == "steps-0"]
            before = time.thread_time(), steps.steps
            await asyncio.sleep(0)
            assert threads and steps.steps == before[1]
            assert scheduler.overdue == 0

    asyncio.run(main())
