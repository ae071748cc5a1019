import asyncio
import re

from hfserve.doors.stash import Stash
from hfserve.messages import Reply


def test_a_reply_is_given_once():
    async def main():
        stash = Stash()
        one, other = Reply(body=b"one"), Reply(body=b"other")
        first, second = stash.put(one), stash.put(other)
        assert len(stash) == 2
        assert stash.take(second) is other and stash.take(first) is one
        assert stash.take(first) is None and len(stash) == 0

    asyncio.run(main())


def test_a_ticket_cannot_be_guessed():
    async def main():
        stash = Stash()
        tickets = {stash.put(Reply()) for _ in range(100)}
        assert len(tickets) == 100
        assert all(re.fullmatch(r"[0-9a-f]{32}", ticket) for ticket in tickets)
        assert stash.take("0" * 32) is None
        for ticket in tickets:
            stash.take(ticket)

    asyncio.run(main())


def test_a_stream_that_nobody_fetches_is_closed_and_forgotten():
    async def main():
        closed = asyncio.Event()

        async def chunks():
            try:
                while True:
                    yield b"piece"
            finally:
                closed.set()

        source = chunks()
        await anext(source)
        stash = Stash(seconds=0.01)
        ticket = stash.put(Reply(chunks=source))
        await asyncio.wait_for(closed.wait(), 5)
        assert stash.take(ticket) is None and len(stash) == 0

    asyncio.run(main())


def test_a_reply_that_was_fetched_is_left_alone():
    async def main():
        async def chunks():
            yield b"first"
            yield b"second"

        source = chunks()
        stash = Stash(seconds=0.01)
        reply = stash.take(stash.put(Reply(chunks=source)))
        after = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, after.set_result, None)
        await after
        assert [chunk async for chunk in reply.chunks] == [b"first", b"second"]

    asyncio.run(main())
