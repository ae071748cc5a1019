"""Bidirectional streams: frames in, frames out, on every engine [27]."""

import asyncio
import concurrent.futures
import contextlib
import json
import shutil
import signal
import socket
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

import tiny
from hfserve import artifacts
from hfserve.doors import bidi
from hfserve.doors.http import embedded
from hfserve.messages import Reply
from hfserve.settings import Settings
from server import Server, assert_error

pytestmark = pytest.mark.once

SOON = 20
ANSWERING = """
import asyncio, time

def model_fn(model_dir): return {"open": 0}

ASYNCdef bidi_fn(frames, model, context):
    model["open"] += 1
    try:
        ASYNCfor frame in frames:
            match frame:
                case "raise": raise ValueError("no luck")
                case "exit": raise SystemExit(1)
                case "end": return
                case "open": yield model
                case "unsendable": yield object()
                case "header": yield context.get_request_header(0, "X-Custom")
                case "slow":
                    yield "begun"
                    WAIT(1)
                    yield "done"
                case "thrice":
                    for i in range(3): yield {"i": i}
                case "silence": pass
                case _: yield frame
    finally:
        model["open"] -= 1
"""
WORDS = {"async": ("async ", "await asyncio.sleep"), "plain": ("", "time.sleep")}


@pytest.fixture(scope="module", params=WORDS)
def talking(request, engine, tmp_path_factory):
    """A server whose bidi_fn echoes, or does what a frame says."""
    with Server(written(request.param, tmp_path_factory.mktemp("talking")), engine=engine) as server:
        yield server


@pytest.fixture(scope="module")
def storyteller(engine, tmp_path_factory):
    with Server(tiny.build("text-generation-gpt2", tmp_path_factory.mktemp("gpt2")), engine=engine) as server:
        yield server


def written(kind, path):
    loop, wait = WORDS[kind]
    (path / "code").mkdir()
    (path / "code" / "inference.py").write_text(ANSWERING.replace("ASYNC", loop).replace("WAIT", wait))
    return path


def talk(server, query="", **options):
    url = server.url.replace("http", "ws") + bidi.PATH + query
    return connect(url, proxy=None, open_timeout=SOON, close_timeout=SOON, **options)


def ask(talk, frame):
    talk.send(frame)
    return talk.recv(SOON)


def closing(talk):
    """The close frame that comes next."""
    with pytest.raises(ConnectionClosed) as closed:
        talk.recv(SOON)
    return closed.value.rcvd


def error(frame, status, **options):
    """A frame in the one shape of an error."""
    assert isinstance(frame, str)
    told = json.loads(frame)["error"]
    head = {"content-type": "application/json", "x-request-id": told["request_id"]}
    return assert_error(httpx.Response(told["status"], text=frame, headers=head), status, **options)


# bidi_fn


@pytest.mark.bare
def test_frames_are_answered_by_frames_of_their_kind(talking):
    with talk(talking) as frames:
        assert ask(frames, "héllo") == "héllo"
        assert ask(frames, b"\x00\xff\n") == b"\x00\xff\n"
        assert ask(frames, "") == ""
        assert json.loads(ask(frames, "open"))["open"] >= 1


def test_an_answer_need_not_follow_a_frame(talking):
    with talk(talking) as frames:
        frames.send("silence")
        assert [json.loads(ask(frames, "thrice")), *(json.loads(frames.recv(SOON)) for _ in range(2))] == [
            {"i": 0}, {"i": 1}, {"i": 2},
        ]  # fmt: skip


def test_a_message_in_several_frames_arrives_as_one(talking):
    with talk(talking) as frames:
        assert ask(frames, ["one ", "message ", "in parts"]) == "one message in parts"
        assert ask(frames, [b"\x00", b"\x01"]) == b"\x00\x01"


@pytest.mark.bare
def test_large_messages_go_both_ways(talking):
    with talk(talking, max_size=None) as frames:
        assert ask(frames, "x" * 5_000_000) == "x" * 5_000_000


def test_bidi_fn_sees_the_headers_of_the_handshake(talking):
    with talk(talking, additional_headers={"X-Custom": "7"}) as frames:
        assert ask(frames, "header") == "7"


def test_connections_are_apart(talking):
    with contextlib.ExitStack() as stack:
        all_frames = [stack.enter_context(talk(talking)) for _ in range(10)]
        for number, frames in enumerate(all_frames):
            frames.send(str(number))
        assert [frames.recv(SOON) for frames in all_frames] == [str(number) for number in range(10)]
        assert json.loads(ask(all_frames[0], "open"))["open"] >= 10


def test_a_bidi_fn_that_raises_is_told_as_a_frame_and_closes_with_1011(talking):
    with talk(talking) as frames:
        rid = frames.response.headers["X-Request-Id"]
        told = error(ask(frames, "raise"), 500, kind="ModelError", words=["no luck", "inference.py:"])
        assert told["request_id"] == rid
        closed = closing(frames)
        assert closed.code == 1011 and "no luck" in closed.reason
    with talk(talking) as frames:
        assert ask(frames, "still here") == "still here"


@pytest.mark.parametrize("frame", ["exit", "unsendable"])
def test_a_bidi_fn_that_breaks_a_rule_harms_only_its_own_connection(talking, frame):
    with talk(talking) as other, talk(talking) as frames:
        error(ask(frames, frame), 500)
        assert closing(frames).code == 1011
        assert ask(other, "still here") == "still here"


def test_a_bidi_fn_that_returns_closes_with_1000(talking):
    with talk(talking) as frames:
        frames.send("end")
        assert closing(frames).code == 1000


@pytest.mark.bare
def test_when_the_client_goes_the_generator_is_closed(talking):
    with talk(talking) as watching:
        with talk(talking) as frames:
            assert ask(frames, "here") == "here"
        with talk(talking) as frames:
            assert ask(frames, "slow") == "begun"
            frames.socket.shutdown(socket.SHUT_RDWR)  # without a word
        talking.wait(lambda: json.loads(ask(watching, "open")) == {"open": 1}, "the end of the other generators", SOON)


def test_a_ping_gets_a_pong_while_bidi_fn_is_busy(talking):
    with talk(talking) as frames:
        assert frames.ping().wait(SOON)
        for frame in ("slow", "a", "b"):
            frames.send(frame)
        assert frames.ping().wait(SOON)
        assert [frames.recv(SOON) for _ in range(4)] == ["begun", "done", "a", "b"]


def test_without_a_websocket_the_answer_is_an_error_of_the_usual_shape(talking):
    assert_error(talking.client.get(bidi.PATH), 400, words=["WebSocket"])
    refused = talking.client.post(bidi.PATH, json={})
    assert_error(refused, 405)
    assert "GET" in refused.headers["allow"]


def test_a_model_for_connections_only_says_so_at_invocations(talking):
    assert_error(talking.post(json={"inputs": "a"}), 404, words=[bidi.PATH])


def test_bidi_fn_without_model_fn_gets_the_pipeline(engine, tmp_path):
    shutil.copytree(artifacts.DEMO, tmp_path / "model")
    (tmp_path / "model" / "code").mkdir()
    (tmp_path / "model" / "code" / "inference.py").write_text(
        "def bidi_fn(frames, model):\n    for frame in frames:\n        yield model(frame)[0]['label']\n"
    )
    with Server(tmp_path / "model", engine=engine) as server:
        with talk(server) as frames:
            assert [ask(frames, "I love this"), ask(frames, "I hate this")] == ["POSITIVE", "NEGATIVE"]
        assert server.post(json={"inputs": ["I love this"]}).json()[0]["label"] == "POSITIVE"
        error = assert_error(server.post(json={"inputs": "a", "parameters": {"colour": 1}}), 422)
        assert "colour" in error["message"]


@pytest.mark.parametrize("kind", WORDS)
def test_sigterm_lets_an_answer_end_and_closes_with_1001(engine, tmp_path, kind):
    with Server(written(kind, tmp_path), engine=engine) as server, talk(server) as frames, talk(server) as idle:
        assert ask(idle, "here") == "here"
        assert ask(frames, "slow") == "begun"
        server.process.send_signal(signal.SIGTERM)
        assert frames.recv(SOON) == "done"
        for each in (frames, idle):
            closed = closing(each)
            assert closed.code == 1001 and "stopping" in closed.reason
        assert server.process.wait(SOON) == 0


# Without bidi_fn


@pytest.mark.bare
def test_every_frame_is_a_request(demo):
    body = '{"inputs": "I love this"}'
    with talk(demo) as frames:
        answer = ask(frames, body)
        assert json.loads(answer) == demo.post(body, content_type="application/json").json()
        assert ask(frames, body.encode()) == ask(frames, b"I love this") == answer


def test_answers_come_in_the_order_of_the_frames(demo):
    texts = ["I love this", "I hate this", "so so", "I love this"]
    expected = [demo.post(json={"inputs": text}).json() for text in texts]
    with talk(demo) as frames:
        for text in texts:
            frames.send(json.dumps({"inputs": text}))
        answers = [json.loads(frames.recv(SOON)) for _ in texts]
    assert [answer[0]["label"] for answer in answers] == [each[0]["label"] for each in expected]


def test_a_bad_frame_fails_alone(demo):
    with talk(demo) as frames:
        bad = error(ask(frames, '{"inputs": '), 400, kind="BadRequest")
        worse = error(ask(frames, '{"inputs": "a", "parameters": {"colour": 1}}'), 422)
        refused = demo.post(b"\x00\xff", content_type="application/octet-stream")
        error(ask(frames, b"\x00\xff"), refused.status_code)
        assert json.loads(ask(frames, '{"inputs": "I love this"}'))[0]["label"] == "POSITIVE"
        rid = frames.response.headers["X-Request-Id"]
        assert [bad["request_id"], worse["request_id"]] == [f"{rid}/1", f"{rid}/2"]


def test_frames_are_counted_as_requests(demo):
    def counted():
        lines = demo.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("hfserve_requests_total{"))

    before = counted()
    with talk(demo) as frames:
        ask(frames, '{"inputs": "I love this"}')
        ask(frames, "no JSON")
    assert counted() == before + 2


def test_parameters_of_the_address_hold_for_all_frames(demo):
    with talk(demo, "?top_k=2") as frames:
        for _ in range(2):
            assert len(json.loads(ask(frames, '{"inputs": "I love this"}'))) == 2


def test_a_message_over_the_limit_ends_its_connection_only(demo):
    with talk(demo) as other, talk(demo) as frames:
        with contextlib.suppress(ConnectionClosed):
            frames.send("x" * 4_000_000)
        with pytest.raises(ConnectionClosed):
            frames.recv(SOON)
        assert json.loads(ask(other, '{"inputs": "I love this"}'))[0]["label"] == "POSITIVE"


def test_a_stream_is_a_frame_for_each_event(storyteller):
    body = {"inputs": "a", "parameters": {"max_new_tokens": 5, "do_sample": False}}
    with talk(storyteller) as frames:
        whole = json.loads(ask(frames, json.dumps(body)))
        frames.send(json.dumps({**body, "stream": True}))
        events = [json.loads(frames.recv(SOON)) for _ in range(5)]
        assert [event["token"]["id"] >= 0 for event in events] == [True] * 5
        assert events[-1]["generated_text"] == whole[0]["generated_text"].removeprefix("a")
        assert [event["generated_text"] for event in events[:-1]] == [None] * 4
        assert json.loads(ask(frames, json.dumps(body))) == whole


# Its bounds, in this process


@contextlib.asynccontextmanager
async def served(answer=None, message=1 << 20):
    """Connections whose frames are answered by a function, without a model."""
    made = bidi.Bidi(SimpleNamespace(answer=answer), None, Settings.read())
    server = embedded(Starlette(routes=made.routes), message=message)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listener]))
    port = listener.getsockname()[1]
    try:
        yield made, f"ws://127.0.0.1:{port}{bidi.PATH}"
    finally:
        server.should_exit = True
        await serving


async def echo(request):
    return Reply(body=request.body)


def run(test):
    async def bounded():
        async with asyncio.timeout(SOON):
            await test()

    asyncio.run(bounded())


def test_a_connection_is_bounded_in_time(monkeypatch):
    monkeypatch.setattr(bidi, "LIFE", 0.05)

    async def test():
        async with served(echo) as (_, url), connect_async(url, proxy=None) as frames:
            with pytest.raises(ConnectionClosed) as closed:
                await frames.recv()
            assert closed.value.rcvd.code == 1000 and "30 minutes" in closed.value.rcvd.reason

    run(test)


def test_a_message_over_the_limit_closes_with_1009():
    async def test():
        async with served(echo, message=100) as (_, url), connect_async(url, proxy=None) as frames:
            await frames.send("x" * 100)
            assert await frames.recv() == "x" * 100
            await frames.send(["x" * 60, "x" * 60])
            with pytest.raises(ConnectionClosed) as closed:
                await frames.recv()
            assert closed.value.rcvd.code == 1009

    run(test)


def test_one_connection_too_many_is_refused_with_503(monkeypatch):
    monkeypatch.setattr(bidi, "MOST", 1)

    async def test():
        async with served(echo) as (_, url):
            async with connect_async(url, proxy=None) as frames:
                with pytest.raises(InvalidStatus) as refused:
                    await connect_async(url, proxy=None)
                error(refused.value.response.body.decode(), 503, kind="Overloaded")
                await frames.send("1")
                assert await frames.recv() == "1"
            async with connect_async(url, proxy=None) as frames:
                await frames.send("2")
                assert await frames.recv() == "2"

    run(test)


def test_who_connects_while_the_server_stops_is_refused_with_503():
    async def test():
        async with served(echo) as (made, url):
            await made.drain()
            with pytest.raises(InvalidStatus) as refused:
                await connect_async(url, proxy=None)
            error(refused.value.response.body.decode(), 503, kind="NotReady")

    run(test)


def test_frames_are_not_taken_faster_than_they_are_read(monkeypatch):
    monkeypatch.setattr(bidi, "AHEAD", 1000)
    answering = asyncio.Event()

    async def late(request):
        await answering.wait()
        return Reply(body=request.body[:1])

    async def test():
        frames = bidi.Frames()
        await frames.put("x" * 900)
        blocked = asyncio.ensure_future(frames.put("y" * 900))
        await asyncio.wait({blocked}, timeout=0.05)
        assert not blocked.done()
        assert await anext(frames) == "x" * 900
        await blocked
        async with served(late) as (_, url), connect_async(url, proxy=None) as socket:
            for i in range(5):
                await socket.send(str(i) * 900)
            answering.set()
            assert [await socket.recv() for _ in range(5)] == list("01234")

    run(test)


def test_a_client_that_goes_leaves_nothing_running():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def never(request):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def test():
        async with served(never) as (_, url):
            async with connect_async(url, proxy=None) as frames:
                await frames.send("{}")
                await begun.wait()
            await ended.wait()

    run(test)


def test_frames_cannot_be_waited_for_in_the_event_loops_own_thread():
    async def test():
        with pytest.raises(Exception, match="async for"):
            next(bidi.Frames())

    run(test)


def test_a_plain_loop_over_frames_ends_with_them():
    async def test():
        frames = bidi.Frames()
        for frame in ("a", b"b"):
            await frames.put(frame)
        frames.end()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            assert await asyncio.get_running_loop().run_in_executor(thread, list, frames) == ["a", b"b"]

    run(test)
