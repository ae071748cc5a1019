import asyncio
import contextlib
import re
import socket
import stat
import struct
import time

import pytest
from mms.protocol import otf_message_handler as stock

from hfserve.doors.mms_protocol import PADDING, MmsDoor, request
from hfserve.doors.stash import Stash
from hfserve.errors import Overloaded
from hfserve.messages import Reply
from hfserve.streaming import begin, pieces

PATIENCE = 5
MMS_ID = b"0c3e8d0a-3f55-4b58-9b68-a7bd2c84e8ec"
FETCH = re.compile(r"/_reply/3/([0-9a-f]{32})")


class Service:
    """Gives the replies it was made with, one after the other, and remembers what it was asked."""

    def __init__(self, *replies):
        self.asked = []
        self._replies = list(replies)

    async def answer(self, request):
        self.asked.append(request)
        return self._replies.pop(0) if self._replies else Reply(body=b'{"ok":true}')


class Frontend:
    """MMS's end of a connection, by hand."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    async def send(self, *frames):
        self._writer.write(b"".join(frames))
        await self._writer.drain()

    async def number(self):
        return struct.unpack("!i", await self._reader.readexactly(4))[0]

    async def text(self):
        return await self._reader.readexactly(await self.number())

    async def response(self):
        """The code, the message, and the predictions as (id, content type, status, phrase, headers, body)."""
        async with asyncio.timeout(PATIENCE):
            code, message, predictions = await self.number(), await self.text(), []
            while (length := await self.number()) != -1:
                mms_id = await self._reader.readexactly(length)
                content_type, status, phrase = await self.text(), await self.number(), await self.text()
                headers = {
                    (await self.text()).decode(): (await self.text()).decode() for _ in range(await self.number())
                }
                predictions.append((mms_id, content_type.decode(), status, phrase, headers, await self.text()))
            return code, message, predictions

    async def raw(self, length):
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(length)

    async def ends(self):
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read() == b""


@contextlib.asynccontextmanager
async def connected(door):
    ours, theirs = socket.socketpair()
    serving = asyncio.ensure_future(door.serve(*await asyncio.open_connection(sock=theirs)))
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        yield Frontend(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(serving, PATIENCE)


@pytest.fixture
def stash():
    return Stash()


@pytest.fixture
def talk(stash, tmp_path):
    """Run a conversation with a door whose service gives these replies; what the service was asked comes back."""

    def run(conversation, *replies):
        service = Service(*replies)

        async def main():
            async with connected(MmsDoor(service, stash, slot=3, timeout=60, tmp_dir=tmp_path)) as frontend:
                return await conversation(frontend)

        return asyncio.run(main()), service.asked

    return run


def packed(content):
    return struct.pack("!i", len(content)) + content


def load_frame(descriptor="fd-1"):
    return b"".join([
        b"L", packed(b"model"), packed(b"/store/model"), struct.pack("!i", 1), packed(b"service.py:handle"),
        struct.pack("!i", -1), packed(descriptor.encode()),
    ])  # fmt: skip


END = struct.pack("!i", -1)


def one(headers, parameters, mms_id=MMS_ID):
    return b"".join([
        packed(mms_id), *(packed(name) + packed(value) for name, value in headers), END,
        *(packed(name) + packed(kind) + packed(value) for name, kind, value in parameters), END,
    ])  # fmt: skip


def ask_frame(body=b"{}", *headers, mms_id=MMS_ID):
    return b"I" + one(headers, [(b"body", b"application/octet-stream", body)], mms_id) + END


class Conn:
    """What the stock decoder reads from."""

    def __init__(self, content):
        self._content = content

    def recv(self, length):
        piece, self._content = self._content[:length], self._content[length:]
        return piece


class Said:
    """What the stock encoder asks of a context."""

    def __init__(self, content_type, headers):
        self._content_type = content_type
        self._headers = headers

    def get_response_content_type(self, idx):
        return self._content_type

    def get_response_status(self, idx):
        return 200, "OK"

    def get_response_headers(self, idx):
        return self._headers


def test_the_frames_of_these_tests_are_those_that_the_stock_backend_reads(monkeypatch):
    monkeypatch.setenv("MMS_DECODE_INPUT_REQUEST", "false")
    command, message = stock.retrieve_msg(Conn(load_frame("x")))
    assert command == b"L" and message["ioFileDescriptor"] == b"x" and message["batchSize"] == 1
    command, (asked,) = stock.retrieve_msg(Conn(ask_frame(b"\x00body", (b"Accept", b"*/*"))))
    assert command == b"I" and asked["requestId"] == MMS_ID
    assert asked["headers"] == [{"name": b"Accept", "value": b"*/*"}]
    assert asked["parameters"] == [{"name": "body", "contentType": "application/octet-stream", "value": b"\x00body"}]


def test_loading_is_answered_as_the_stock_backend_answers_it_and_padded(talk):
    async def conversation(mms):
        await mms.send(load_frame())
        return await mms.response()

    (code, message, predictions), asked = talk(conversation)
    assert (code, predictions, asked) == (200, [], [])
    assert message.startswith(PADDING) and b"loaded [PID]:" in message


def test_the_pipes_that_mms_reads_are_there_until_it_goes(talk, tmp_path):
    async def conversation(mms):
        await mms.send(load_frame("a-b"))
        await mms.response()
        return {path.name: stat.S_ISFIFO(path.stat().st_mode) for path in tmp_path.iterdir()}

    assert talk(conversation)[0] == {"a-b-stdout": True, "a-b-stderr": True}
    assert list(tmp_path.iterdir()) == []
    assert talk(conversation)[0] == {"a-b-stdout": True, "a-b-stderr": True}


def test_a_small_good_reply_goes_back_as_the_stock_backend_writes_it(talk, stash):
    headers = {"x-amzn-sagemaker-custom-attributes": "a=b", "x-more": "1"}
    expected = bytes(
        stock.create_predict_response(
            [b"\x93answer"], {0: MMS_ID.decode()}, PADDING.decode(), 200, Said("application/x-npy", headers)
        )
    )

    async def conversation(mms):
        await mms.send(ask_frame())
        return await mms.raw(len(expected))

    got, _ = talk(conversation, Reply(200, b"\x93answer", "application/x-npy", headers))
    assert got == expected
    assert len(stash) == 0


def test_every_reply_is_padded_to_more_than_its_own_metadata(talk):
    async def conversation(mms):
        for _ in range(3):
            await mms.send(ask_frame())
            code, message, ((mms_id, *_),) = await mms.response()
            assert (code, mms_id) == (200, MMS_ID)
            assert len(message) > 2048 and message.isspace()

    talk(conversation, Reply(), Reply(headers={"x": "y" * 1400}), Reply(status=500))


async def one_stream():
    async def tokens():
        yield "a"
        yield "b"

    return Reply(chunks=await begin(pieces(tokens()), "r"), content_type="text/event-stream")


@pytest.mark.parametrize(
    "reply",
    [
        Reply.of_error(Overloaded("full"), "r-1"),
        Reply(201, b"made"),
        Reply(200, b"x" * ((1 << 20) + 1), "audio/wav"),
        Reply(200, b"x", headers={"x-long": "v" * 1600}),
        Reply(200, b"x", content_type="text/plain; x=" + "v" * 1600),
    ],
    ids=["error", "another status", "large", "long headers", "long type"],
)
def test_what_mms_cannot_carry_is_left_for_nginx_to_fetch_once(reply, talk, stash):
    async def conversation(mms):
        await mms.send(ask_frame())
        _, _, (prediction,) = await mms.response()
        mms_id, _, status, _, headers, body = prediction
        assert (mms_id, status, body) == (MMS_ID, 200, b"")
        (ticket,) = FETCH.fullmatch(headers.pop("X-Accel-Redirect")).groups()
        assert headers == {}
        assert stash.take(ticket) is reply
        assert stash.take(ticket) is None

    talk(conversation, reply)


def test_a_stream_is_left_for_nginx_too(stash, tmp_path):
    async def main():
        reply = await one_stream()
        async with connected(MmsDoor(Service(reply), stash, slot=3, timeout=60, tmp_dir=tmp_path)) as mms:
            await mms.send(ask_frame())
            _, _, ((*_, headers, body),) = await mms.response()
            fetched = stash.take(FETCH.fullmatch(headers["X-Accel-Redirect"])[1])
            assert body == b"" and fetched is reply
            assert b"".join([chunk async for chunk in fetched.chunks]) == b"ab\n"

    asyncio.run(main())


def test_the_request_is_what_the_client_sent_to_nginx(talk):
    body = bytes(range(256)) * 3

    async def conversation(mms):
        await mms.send(ask_frame(
            body, (b"Accept", b"text/csv"), (b"Content-Type", b"application/octet-stream"),
            (b"X-HFServe-Content-Type", b"multipart/form-data; boundary=XyZ"), (b"X-HFServe-Query", b"a=1&b"),
            (b"X-HFServe-Request-Id", b"r-9"), (b"X-Amzn-SageMaker-Custom-Attributes", b"caf\xe9"),
        ))  # fmt: skip
        await mms.response()

    _, (asked,) = talk(conversation)
    assert asked.body == body
    assert asked.headers == {
        "accept": "text/csv",
        "content-type": "multipart/form-data; boundary=XyZ",
        "x-amzn-sagemaker-custom-attributes": "café",
    }
    assert (asked.content_type, asked.accept) == ("multipart/form-data; boundary=XyZ", "text/csv")
    assert (asked.request_id, asked.query) == ("r-9", "a=1&b")


def test_a_request_without_a_type_has_none_whatever_nginx_wrote(talk):
    async def conversation(mms):
        await mms.send(ask_frame(b"{}", (b"content-type", b"application/octet-stream")))
        await mms.response()

    assert talk(conversation)[1][0].content_type == ""


def test_the_body_is_the_parameter_of_that_name(talk):
    async def conversation(mms):
        parameters = [(b"stream", b"", b"true"), (b"body", b"x", b"the body"), (b"other", b"", b"1")]
        await mms.send(b"I", one([], parameters), END)
        await mms.response()
        await mms.send(b"I", one([], []), END)
        await mms.response()

    first, second = talk(conversation)[1]
    assert (first.body, second.body) == (b"the body", b"")


def test_the_deadline_counts_from_when_nginx_had_the_request(talk):
    async def conversation(mms):
        await mms.send(ask_frame(b"{}", (b"x-hfserve-start", f"{time.time() - 20:.3f}".encode())))
        await mms.response()
        await mms.send(ask_frame(b"{}"))
        await mms.response()

    before = time.monotonic()
    early, late = talk(conversation)[1]
    after = time.monotonic()
    assert before + 39.9 <= early.deadline <= after + 40.1
    assert before + 60 <= late.deadline <= after + 60


@pytest.mark.parametrize("start", ["", "now", "nan", "inf", "1e400", "99999999999"])
def test_a_start_that_cannot_be_is_no_start(start):
    got = request({"x-hfserve-start": start}, b"", 1000.0, 60.0)
    assert got.deadline == 1060.0


def test_one_connection_carries_one_request_after_the_other(talk):
    replies = [Reply(body=b"%d" % n) for n in range(5)]

    async def conversation(mms):
        bodies = []
        await mms.send(load_frame())
        await mms.response()
        for number in range(5):
            await mms.send(ask_frame(b"%d" % number, mms_id=b"id-%d" % number))
            _, _, ((mms_id, *_, body),) = await mms.response()
            bodies.append((mms_id, body))
        return bodies

    bodies, asked = talk(conversation, *replies)
    assert bodies == [(b"id-%d" % n, b"%d" % n) for n in range(5)]
    assert [each.body for each in asked] == [b"%d" % n for n in range(5)]


def test_a_batch_of_mms_is_answered_for_each_of_its_requests(talk):
    async def conversation(mms):
        requests = [one([], [(b"body", b"", b"%d" % n)], b"id-%d" % n) for n in range(3)]
        await mms.send(b"I", *requests, END)
        return await mms.response()

    (_, _, predictions), asked = talk(conversation, *(Reply(body=b"%d" % n) for n in range(3)))
    assert [(prediction[0], prediction[-1]) for prediction in predictions] == [
        (b"id-%d" % n, b"%d" % n) for n in range(3)
    ]
    assert [each.body for each in asked] == [b"0", b"1", b"2"]


def test_frames_may_come_byte_by_byte(talk):
    async def conversation(mms):
        for byte in load_frame() + ask_frame(b"body", (b"accept", b"*/*")):
            await mms.send(bytes([byte]))
            await asyncio.sleep(0)
        await mms.response()
        return await mms.response()

    (_, _, ((*_, body),)), asked = talk(conversation)
    assert body == b'{"ok":true}' and asked[0].body == b"body"


@pytest.mark.parametrize(
    "whole",
    [load_frame(), b"I" + one([(b"accept", b"*/*")], [(b"body", b"text/plain", b"body")])],
    ids=["load", "ask"],
)
def test_a_connection_that_closes_within_a_frame_harms_nothing(whole, stash, tmp_path):
    async def main():
        service = Service()
        door = MmsDoor(service, stash, slot=3, timeout=60, tmp_dir=tmp_path)
        for length in range(len(whole)):
            async with connected(door) as mms:
                await mms.send(whole[:length])
        assert service.asked == [] and list(tmp_path.iterdir()) == [] and len(stash) == 0
        async with connected(door) as mms:
            await mms.send(ask_frame())
            assert (await mms.response())[0] == 200

    asyncio.run(main())


def test_what_mms_would_never_send_closes_the_connection(stash, tmp_path):
    async def main():
        door = MmsDoor(Service(), stash, slot=3, timeout=60, tmp_dir=tmp_path)
        with contextlib.suppress(ValueError):
            async with connected(door) as mms:
                await mms.send(b"GET / HTTP/1.1\r\n\r\n")
                assert await mms.ends()

    asyncio.run(main())
