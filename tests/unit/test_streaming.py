import asyncio
import json
import threading

import numpy as np
import pytest

from hfserve.errors import InvalidInput
from hfserve.streaming import begin, frame, pieces

PATIENCE = 5


async def collect(chunks) -> list[bytes]:
    return [chunk async for chunk in chunks]


def stream(source) -> list[bytes]:
    """All that a client gets of what user code yields."""

    async def main():
        return await collect(await begin(pieces(source), "r-1"))

    return asyncio.run(main())


async def later(*values):
    for value in values:
        yield value


class Guarded:
    """A user's generator that tells when it was closed, and can be held before a piece."""

    def __init__(self):
        self.closed = threading.Event()
        self.working = threading.Event()
        self.go_on = threading.Event()

    def plain(self):
        try:
            while True:
                yield "piece\n"
        finally:
            self.closed.set()

    async def asynchronous(self):
        try:
            while True:
                yield "piece\n"
        finally:
            self.closed.set()

    def slow(self):
        try:
            self.working.set()
            self.go_on.wait(PATIENCE)
            yield "too late"
        finally:
            self.closed.set()


@pytest.mark.parametrize(
    ("piece", "framed"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ("wörd", "wörd".encode()),
        ({"token": "ö"}, '{"token":"ö"}\n'.encode()),
        ([1, 2.5, None], b"[1,2.5,null]\n"),
        (np.arange(3), b"[0,1,2]\n"),
        (None, b"null\n"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_text_and_bytes_stay_and_all_else_is_a_line_of_json(piece, framed):
    assert frame(piece) == framed


@pytest.mark.parametrize("make", [lambda *values: iter(values), later], ids=["plain", "async"])
def test_pieces_come_in_order_from_either_kind_of_generator(make):
    assert stream(make({"n": 1}, b"two\n", "three\n")) == [b'{"n":1}\n', b"two\n", b"three\n"]


def test_a_plain_generator_leaves_the_event_loop_free():
    guarded = Guarded()

    async def main():
        going = asyncio.ensure_future(collect(pieces(guarded.slow())))
        await asyncio.to_thread(guarded.working.wait, PATIENCE)
        guarded.go_on.set()  # reached only because the loop is free while the generator works
        return await asyncio.wait_for(going, PATIENCE)

    assert asyncio.run(main()) == [b"too late"]


def test_pieces_are_made_only_as_they_are_wanted():
    made = []

    def counting():
        for number in range(100):
            made.append(number)
            yield number

    async def main():
        chunks = pieces(counting())
        assert await anext(chunks) == b"0\n"
        assert made == [0]
        await chunks.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
@pytest.mark.parametrize("begun", [False, True], ids=["pieces", "begin"])
def test_closing_an_unfinished_stream_closes_the_users_generator(kind, begun):
    guarded = Guarded()

    async def main():
        source = getattr(guarded, kind)()
        chunks = await begin(pieces(source), "r-1") if begun else pieces(source)
        assert await anext(chunks) == b"piece\n"
        await chunks.aclose()
        assert guarded.closed.is_set()

    asyncio.run(main())


def test_a_client_that_goes_while_a_piece_is_made_closes_the_generator_once_it_is():
    guarded = Guarded()

    async def main():
        reading = asyncio.ensure_future(collect(pieces(guarded.slow())))
        await asyncio.to_thread(guarded.working.wait, PATIENCE)
        reading.cancel()
        await asyncio.wait([reading], timeout=0.2)
        guarded.go_on.set()
        await asyncio.wait([reading], timeout=PATIENCE)
        assert reading.cancelled()
        assert await asyncio.to_thread(guarded.closed.wait, PATIENCE)

    asyncio.run(main())


def test_a_first_piece_that_comes_too_late_is_a_timeout_and_nothing_else():
    guarded = Guarded()

    async def main():
        asyncio.get_running_loop().call_later(0.1, guarded.go_on.set)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await begin(pieces(guarded.slow()), "r-1")

    asyncio.run(main())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_failure_before_the_first_piece_is_raised_before_the_stream(asynchronous):
    def plain():
        raise InvalidInput("no such voice")
        yield

    async def other():
        raise InvalidInput("no such voice")
        yield

    with pytest.raises(InvalidInput, match="no such voice"):
        stream(other() if asynchronous else plain())


@pytest.mark.parametrize("first", [b"half a record", b"a record\n"])
def test_a_late_failure_is_the_last_record(first):
    def broken():
        yield first
        raise InvalidInput("the rest is unreadable")

    records = b"".join(stream(broken())).split(b"\n")
    assert records[0] == first.rstrip() and records[-1] == b""
    assert len(records) == 3
    assert json.loads(records[1])["error"] == {
        "status": 422, "type": "InvalidInput", "message": "the rest is unreadable", "request_id": "r-1",
    }  # fmt: skip


def test_a_late_failure_of_another_kind_tells_nothing_of_the_inside():
    def broken():
        yield "a\n"
        raise RuntimeError("secret")

    last = stream(broken())[-1]
    assert b"secret" not in last and last.endswith(b"\n")
    assert json.loads(last)["error"]["type"] == "ModelError"


@pytest.mark.parametrize("values", [["a", "b"], ["a\n", "b"], ["", "a", ""], [b"a"], [{"a": 1}], ["a\n"]], ids=str)
def test_a_stream_ends_with_one_newline(values):
    whole = b"".join(stream(iter(values)))
    assert whole == b"".join(map(frame, values)).removesuffix(b"\n") + b"\n"


def test_an_empty_stream_is_an_empty_line():
    assert b"".join(stream(iter(()))) == b"".join(stream(later())) == b"\n"


def test_no_empty_chunk_is_sent_since_it_would_end_the_answer():
    assert b"" not in stream(iter(["", "a", "", "b\n", ""]))
