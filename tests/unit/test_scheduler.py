import asyncio
import contextlib
import itertools
import math
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hfserve import scheduler as room
from hfserve.errors import ModelError, NotReady, Overloaded
from hfserve.messages import Item
from hfserve.scheduler import Limits, Scheduler

PATIENCE = 5
SOON = time.monotonic() + 3600


class Doubling:
    """A model that doubles numbers and fails on words; it remembers its batches, and can be held within one."""

    def __init__(self):
        self.batches = []
        self.threads = []
        self.gate = threading.Event()
        self.gate.set()
        self._entered = threading.Semaphore(0)

    def __call__(self, items, threads):
        self.batches.append([item.data for item in items])
        self.threads.append(threads)
        self._entered.release()
        self.gate.wait(PATIENCE)
        return [ModelError(item.data) if isinstance(item.data, str) else item.data * 2 for item in items]

    async def entered(self):
        """Wait until one more batch is being run."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=PATIENCE)

    @contextlib.asynccontextmanager
    async def held(self, scheduler, lanes=1):
        """Meanwhile every lane is busy, so that what is submitted waits; afterwards they are free."""
        self.gate.clear()
        for _ in range(lanes):
            submit(scheduler, 0, key="held")
            await self.entered()
        try:
            yield
        finally:
            self.gate.set()


def submit(scheduler, *values, key=None, source=None, cost=1, deadline=SOON):
    items = [Item(value, batch_key=key, cost=cost) for value in values]
    return scheduler.submit(items, source=source or object(), deadline=deadline)


async def outcomes(*futures):
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*itertools.chain(*futures), return_exceptions=True)


def test_each_item_gets_its_own_outcome_in_order():
    async def main():
        async with Scheduler(Doubling(), Limits(lanes=2)) as scheduler:
            assert await outcomes(submit(scheduler, 1, 2, 3), submit(scheduler, 4)) == [2, 4, 6, 8]

    asyncio.run(main())


def test_a_free_lane_runs_what_is_there_at_once_and_together():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits()) as scheduler:
            async with model.held(scheduler):
                waiting = [submit(scheduler, n) for n in range(1, 6)]
                assert scheduler.queued == 5
            assert await outcomes(*waiting) == [2, 4, 6, 8, 10]
            assert scheduler.queued == 0

    asyncio.run(main())
    assert model.batches == [[0], [1, 2, 3, 4, 5]]


def test_free_lanes_share_what_is_there():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(lanes=2)) as scheduler:
            model.gate.clear()
            futures = submit(scheduler, *range(10))
            await model.entered()
            await model.entered()
            model.gate.set()
            await outcomes(futures)

    asyncio.run(main())
    assert sorted(map(len, model.batches)) == [5, 5]


def test_one_bad_item_fails_alone():
    async def main():
        model = Doubling()
        async with Scheduler(model, Limits()) as scheduler:
            async with model.held(scheduler):
                waiting = [submit(scheduler, value) for value in (1, "bad", 3)]
            got = await outcomes(*waiting)
        assert model.batches[1] == [1, "bad", 3]
        assert [got[0], got[2]] == [2, 6]
        assert isinstance(got[1], ModelError) and str(got[1]) == "bad"

    asyncio.run(main())


def test_items_of_different_keys_never_share():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits()) as scheduler:
            async with model.held(scheduler):
                waiting = [submit(scheduler, n, key=n % 3) for n in range(1, 10)]
            assert await outcomes(*waiting) == [2 * n for n in range(1, 10)]

    asyncio.run(main())
    assert sorted(map(sorted, model.batches[1:])) == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


def test_no_batch_has_more_items_than_it_may():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(max_batch=4)) as scheduler:
            async with model.held(scheduler):
                waiting = submit(scheduler, *range(10))
            await outcomes(waiting)

    asyncio.run(main())
    assert [len(batch) for batch in model.batches[1:]] == [4, 4, 2]


def test_no_batch_has_more_tokens_than_it_may_yet_a_longer_item_runs_by_itself():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(max_batch_tokens=10)) as scheduler:
            async with model.held(scheduler):
                waiting = [submit(scheduler, n, cost=n) for n in (4, 5, 3, 99, 2)]
            assert await outcomes(*waiting) == [8, 10, 6, 198, 4]

    asyncio.run(main())
    assert [99] in model.batches
    assert all(sum(batch) <= 10 for batch in model.batches if batch != [99])


def test_a_request_of_a_thousand_items_starves_nobody():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(max_batch=10)) as scheduler:
            async with model.held(scheduler):
                many = submit(scheduler, *range(1000))
                lone = [submit(scheduler, n) for n in (-1, -2)]
            await outcomes(*lone, many)

    asyncio.run(main())
    assert {-1, -2} < set(model.batches[1])


def test_long_requests_that_share_passes_do_not_starve_one_that_may_not_join():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(max_batch=10)) as scheduler:
            async with model.held(scheduler):
                many = submit(scheduler, *range(100), key="a")
                lone = submit(scheduler, -1, key="b")
                more = submit(scheduler, *range(100, 200), key="a")
            await outcomes(many, lone, more)

    asyncio.run(main())
    assert model.batches.index([-1]) <= 2


def test_the_items_of_one_request_run_in_their_order():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(max_batch=3)) as scheduler:
            async with model.held(scheduler):
                source = object()
                waiting = [submit(scheduler, n, n + 1, source=source) for n in (1, 3, 5)]
                assert scheduler.queued == 1
            await outcomes(*waiting)

    asyncio.run(main())
    assert model.batches[1:] == [[1, 2, 3], [4, 5, 6]]


def test_too_many_waiting_requests_are_refused_and_those_before_are_answered():
    async def main():
        model = Doubling()
        async with Scheduler(model, Limits(max_queued=2)) as scheduler:
            async with model.held(scheduler):
                waiting = [submit(scheduler, 1), submit(scheduler, *range(500))]
                with pytest.raises(Overloaded, match="2 requests are already waiting"):
                    submit(scheduler, 2)
            assert (await outcomes(*waiting))[0] == 2
            assert await outcomes(submit(scheduler, 3)) == [6]

    asyncio.run(main())


def test_requests_that_were_given_up_take_no_places():
    async def main():
        model = Doubling()
        async with Scheduler(model, Limits(max_queued=2)) as scheduler:
            async with model.held(scheduler):
                for future in submit(scheduler, 1, 2) + submit(scheduler, 3):
                    future.cancel()
                waiting = submit(scheduler, 4)
            assert await outcomes(waiting) == [8]

    asyncio.run(main())


def test_a_request_without_items_waits_for_nothing():
    async def main():
        async with Scheduler(Doubling(), Limits()) as scheduler:
            assert submit(scheduler) == []
            assert scheduler.queued == 0
            assert await outcomes(submit(scheduler, 1)) == [2]

    asyncio.run(main())


def test_items_that_nobody_waits_for_are_dropped_unrun():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits()) as scheduler:
            async with model.held(scheduler):
                waiting = [submit(scheduler, n) for n in range(1, 6)]
                for (future,) in (waiting[0], waiting[2], waiting[4]):
                    future.cancel()
            assert await outcomes(waiting[1], waiting[3]) == [4, 8]

    asyncio.run(main())
    assert model.batches == [[0], [2, 4]]


def test_what_is_cancelled_while_it_runs_harms_nobody():
    async def main():
        model = Doubling()
        async with Scheduler(model, Limits()) as scheduler:
            model.gate.clear()
            first, second = submit(scheduler, 1, 2)
            await model.entered()
            first.cancel()
            model.gate.set()
            assert await outcomes([second]) == [4]
            assert first.cancelled()

    asyncio.run(main())


def test_leaving_answers_whoever_waits_and_lets_what_runs_end():
    async def main():
        model = Doubling()
        async with Scheduler(model, Limits()) as scheduler:
            model.gate.clear()
            running = submit(scheduler, 21)
            await model.entered()
            waiting = [submit(scheduler, 1, 2), submit(scheduler, 3)]
            waiting[1][0].cancel()
        assert all(isinstance(outcome, NotReady) for outcome in await outcomes(waiting[0]))
        assert waiting[1][0].cancelled()
        with pytest.raises(NotReady, match="stopping"):
            submit(scheduler, 4)
        model.gate.set()
        assert await outcomes(running) == [42]
        assert model.batches == [[21]]

    asyncio.run(main())


def test_lanes_end_with_the_scheduler():
    async def main():
        before = set(threading.enumerate())
        async with Scheduler(Doubling(), Limits(lanes=3)) as scheduler:
            await outcomes(submit(scheduler, 1))
            lanes = set(threading.enumerate()) - before
            assert sum(lane.name.startswith("lane-") for lane in lanes) == 3
        for lane in lanes:
            lane.join(PATIENCE)
            assert not lane.is_alive()

    asyncio.run(main())


def test_a_batch_that_outlives_the_event_loop_ends_quietly(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_value))
    model = Doubling()
    before = set(threading.enumerate())

    async def main():
        async with Scheduler(model, Limits()) as scheduler:
            model.gate.clear()
            submit(scheduler, 1)
            await model.entered()

    asyncio.run(main())
    lanes = set(threading.enumerate()) - before
    model.gate.set()
    for lane in lanes:
        lane.join(PATIENCE)
    assert raised == []


@pytest.mark.parametrize(
    "raised", [SystemExit(1), KeyboardInterrupt(), ValueError("x"), GeneratorExit(), MemoryError()], ids=repr
)
def test_a_lane_outlives_whatever_the_model_raises(raised):
    def run(items, threads):
        if items[0].data == "raise":
            raise raised
        return [item.data for item in items]

    async def main():
        async with Scheduler(run, Limits()) as scheduler:
            (failed,) = await outcomes(submit(scheduler, "raise"))
            assert isinstance(failed, ModelError)
            assert await outcomes(submit(scheduler, 1)) == [1]

    asyncio.run(main())


@pytest.mark.parametrize("answers", [[], [10], [10, 20, 30, 40]], ids=len)
def test_a_model_that_answers_for_too_few_or_too_many_leaves_nobody_waiting(answers):
    async def main():
        async with Scheduler(lambda items, threads: answers, Limits()) as scheduler:
            got = await outcomes(submit(scheduler, 1, 2, 3))
            assert all(isinstance(outcome, ModelError) for outcome in got), got

    asyncio.run(main())


def test_an_outcome_that_a_future_cannot_hold_is_an_error_of_that_item_alone():
    async def main():
        async with Scheduler(lambda items, threads: [1, StopIteration(), 3], Limits()) as scheduler:
            first, second, third = await outcomes(submit(scheduler, 1, 2, 3))
            assert (first, third) == (1, 3) and isinstance(second, Exception)

    asyncio.run(main())


def test_a_batch_is_overdue_once_the_deadline_of_all_its_items_has_passed():
    async def main():
        model = Doubling()
        async with Scheduler(model, Limits()) as scheduler:
            past = time.monotonic() - 100
            assert scheduler.overdue == 0
            async with model.held(scheduler):
                waiting = [submit(scheduler, 1, deadline=past - 50), submit(scheduler, 2, deadline=past)]
            await outcomes(*waiting)
            await model.entered()
            model.gate.clear()
            late = submit(scheduler, 1, deadline=past - 50) + submit(scheduler, 2, deadline=past)
            await model.entered()
            assert 100 <= scheduler.overdue < 100 + PATIENCE + 50
            model.gate.set()
            await outcomes(late)

    asyncio.run(main())


def test_a_batch_in_time_is_not_overdue():
    async def main():
        model = Doubling()
        async with Scheduler(model, Limits()) as scheduler, model.held(scheduler):
            assert scheduler.overdue == 0

    asyncio.run(main())


def test_a_batch_that_is_alone_gets_all_threads():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(lanes=4)) as scheduler:
            await outcomes(submit(scheduler, 1))
            assert model.threads == [4]
            model.gate.clear()
            both = submit(scheduler, 1, 2)
            await model.entered()
            await model.entered()
            await model.entered()
            model.gate.set()
            await outcomes(both)
            assert model.threads == [4, 1, 1]
            await outcomes(submit(scheduler, 1))
            assert model.threads[-1] == 4

    asyncio.run(main())


def test_what_is_alone_is_always_the_first_lanes():
    lanes = []

    def run(items, threads):
        lanes.append(threading.current_thread().name)
        return [item.data for item in items]

    async def main():
        async with Scheduler(run, Limits(lanes=3)) as scheduler:
            for value in range(9):
                await outcomes(submit(scheduler, value))

    asyncio.run(main())
    assert lanes == ["lane-0"] * 9


def test_a_lone_lane_keeps_all_threads_whatever_waits():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(lanes=1, threads=4, max_batch=1)) as scheduler:
            assert await outcomes(submit(scheduler, 1, 2, 3)) == [2, 4, 6]
        assert model.threads == [4, 4, 4]

    asyncio.run(main())


def test_with_a_delay_a_lane_waits_for_company_until_the_batch_is_full():
    model = Doubling()

    async def main():
        async with Scheduler(model, Limits(max_batch=2, delay=3600)) as scheduler:
            assert await outcomes(submit(scheduler, 1), submit(scheduler, 2)) == [2, 4]

    asyncio.run(main())
    assert model.batches == [[1, 2]]


def test_with_a_delay_a_lone_item_runs_when_it_is_over():
    ran = []

    async def main():
        async with Scheduler(Doubling(), Limits(delay=0.02), observe=ran.append) as scheduler:
            assert await outcomes(submit(scheduler, 1)) == [2]

    asyncio.run(main())
    assert ran[0].waits[0] >= 0.019


def test_a_delay_that_ends_while_the_lane_looks_at_the_clock_is_over(monkeypatch):
    ticks = itertools.count(0, 0.006)
    monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: next(ticks)))

    async def main():
        async with Scheduler(Doubling(), Limits(delay=0.01)) as scheduler:
            async with asyncio.timeout(2):
                assert await submit(scheduler, 1, deadline=math.inf)[0] == 2

    asyncio.run(main())


def test_what_was_run_is_told():
    ran = []

    async def main():
        async with Scheduler(Doubling(), Limits(), observe=ran.append) as scheduler:
            await outcomes(submit(scheduler, 1, 2, 3, cost=5))

    asyncio.run(main())
    (batch,) = ran
    assert (batch.items, batch.tokens, len(batch.waits)) == (3, 15, 3)
    assert batch.seconds >= 0 and min(batch.waits) >= 0


@pytest.mark.parametrize("delay", [0.0, 0.001])
def test_nothing_runs_while_nothing_waits(delay):
    async def main():
        async with Scheduler(Doubling(), Limits(lanes=8, delay=delay)) as scheduler:
            await outcomes(submit(scheduler, 1, 2, 3))
            over = threading.Event()
            timer = threading.Timer(0.3, over.set)
            timer.start()
            before = time.process_time()
            assert over.wait(PATIENCE)
            assert time.process_time() - before < 0.05
            timer.join()

    asyncio.run(main())


LIMITS = Limits(lanes=2, max_batch=3, max_batch_tokens=6, max_queued=4)


class Life(RuleBasedStateMachine):
    """Requests come, are given up and are run in any order: every future ends once, with what is its own."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.steps = threading.Semaphore(0)
        self.numbers = itertools.count(1)
        self.ran = []
        self.mistakes = []
        self.observed = 0
        self.futures = {}
        self.cancelled = set()
        self.closed = False
        self.scheduler = Scheduler(self.run_batch, LIMITS, observe=self.observe)
        self.loop.run_until_complete(self.scheduler.__aenter__())

    def run_batch(self, items, threads):
        self.ran += [item.data for item in items]
        if len({item.batch_key for item in items}) > 1:
            self.mistakes.append("keys were mixed")
        if len(items) > LIMITS.max_batch:
            self.mistakes.append("too many items")
        if len(items) > 1 and sum(item.cost for item in items) > LIMITS.max_batch_tokens:
            self.mistakes.append("too many tokens")
        self.steps.acquire(timeout=PATIENCE)
        if any(item.data % 11 == 0 for item in items):
            raise SystemExit(1)
        return [ModelError(str(item.data)) if item.data % 7 == 0 else -item.data for item in items]

    def observe(self, batch):
        self.observed += batch.items

    def turn(self):
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule(source=st.integers(0, 3), key=st.integers(0, 1), costs=st.lists(st.integers(1, 8), max_size=5))
    def submit(self, source, key, costs):
        numbers = [next(self.numbers) for _ in costs]
        items = [Item(number, batch_key=key, cost=cost) for number, cost in zip(numbers, costs, strict=True)]
        try:
            futures = self.scheduler.submit(items, source=source, deadline=SOON)
        except NotReady:
            assert self.closed
        except Overloaded:
            assert not self.closed
        else:
            assert not self.closed
            self.futures.update(zip(numbers, futures, strict=True))

    @rule(which=st.integers(0, 1000))
    def cancel(self, which):
        if self.futures:
            number = list(self.futures)[which % len(self.futures)]
            if self.futures[number].cancel():
                self.cancelled.add(number)

    @rule(batches=st.integers(1, 3))
    def finish(self, batches):
        self.steps.release(batches)
        self.turn()

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self):
        self.closed = True
        self.loop.run_until_complete(self.scheduler.__aexit__(None, None, None))

    @invariant()
    def nothing_is_shared_that_may_not_be(self):
        assert self.mistakes == []

    def teardown(self):
        try:
            self.loop.run_until_complete(asyncio.wait_for(self.end(), PATIENCE))
        finally:
            self.loop.close()
        assert self.mistakes == []
        assert len(self.ran) == len(set(self.ran)) and set(self.ran) <= set(self.futures)
        for number, future in self.futures.items():
            if number in self.cancelled:
                assert future.cancelled()
            elif number not in self.ran:
                assert self.closed and isinstance(future.exception(), NotReady)
            elif isinstance(future.exception(), ModelError):
                assert number % 7 == 0 or "traceback" in str(future.exception())
                assert str(number) == str(future.exception()) or "traceback" in str(future.exception())
            else:
                assert future.result() == -number

    async def end(self):
        self.steps.release(10_000)
        await asyncio.gather(*self.futures.values(), return_exceptions=True)
        if not self.closed:
            await self.scheduler.__aexit__(None, None, None)
        while self.observed < len(self.ran):
            await asyncio.sleep(0.001)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
