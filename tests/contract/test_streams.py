"""Texts go out while they are made, on each engine: framing, arrival, ends, failures, cancellation (rows 23 to 26)."""

import contextlib
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import zoo
from hfserve.tasks.examples import png
from server import Server, assert_error

EVENTS, LINES, PLAIN = "text/event-stream", "application/jsonlines", "text/plain"
GREEDY = {"do_sample": False, "max_new_tokens": 12}
LONG = {"do_sample": False, "max_new_tokens": 6000, "min_new_tokens": 6000}
"""Seconds of work, of which a client reads the beginning."""

DONE = b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with room for long texts."""
    return roomy("text-generation-llama", tmp_path_factory.mktemp("models") / "llama")


def roomy(name, path):
    """A tiny model that takes texts of 8,192 tokens."""
    zoo.named(name, path)
    config = json.loads((path / "config.json").read_text())
    config.get("text_config", config)["max_position_embeddings"] = 8192
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def writer(engine, folder):
    with Server(folder, engine=engine, HFSERVE_TIMEOUT="20", HFSERVE_STREAM_TIMEOUT="120") as server:
        yield server


def metric(server, name):
    lines = server.client.get("/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.split(" ")[0].split("{")[0] == name)


def streamed(server, body, accept=None, path="/invocations"):
    headers = {"Accept": accept} if accept else {}
    return server.client.stream("POST", path, json=body, headers=headers)


def whole(server, body, accept=None):
    with streamed(server, body, accept) as reply:
        assert reply.status_code == 200, reply.read()
        return reply.headers["content-type"], b"".join(reply.iter_raw())


def events(content):
    """The JSON of each event of a stream that ended as it should, byte by byte."""
    assert content.endswith(DONE)
    blocks = content.removesuffix(DONE).split(b"\n\n")
    assert blocks.pop() == b""
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


@pytest.mark.bare
def test_events_add_up_to_the_text(writer):
    body = {"inputs": "Paris is", "parameters": {**GREEDY, "return_full_text": False}}
    ((unary,)) = writer.post(json=body).json()
    kind, content = whole(writer, {**body, "stream": True})
    found = events(content)
    assert kind == EVENTS
    assert [each["index"] for each in found] == list(range(1, 13))
    assert "".join(each["token"]["text"] for each in found) == found[-1]["generated_text"] == unary["generated_text"]
    assert all(each["details"] is each["generated_text"] is None for each in found[:-1])
    details = found[-1]["details"]
    assert details["finish_reason"] == "length" and details["generated_tokens"] == 12
    assert 0 <= details["seconds_to_first_token"] <= details["seconds"] < 20


def test_the_form_is_chosen_by_accept_and_by_the_body(writer):
    body = {"inputs": "Paris is", "parameters": GREEDY}
    _, asked = whole(writer, {**body, "stream": True}, "application/json")
    assert events(asked)[-1]["details"]
    assert events(whole(writer, body, EVENTS)[1])[-1]["details"]
    for name in (LINES, "application/x-ndjson"):
        for sent in (body, {**body, "stream": True}):
            kind, content = whole(writer, sent, name)
            lines = content.decode().splitlines(keepends=True)
            assert kind == name and len(lines) == 12 and all(line.endswith("\n") for line in lines)
            assert json.loads(lines[-1])["details"]["generated_tokens"] == 12
    kind, content = whole(writer, {**body, "stream": True}, PLAIN)
    assert kind.startswith(PLAIN)
    assert content.decode() == events(asked)[-1]["generated_text"] + "\n"
    refused = writer.post(json={**body, "stream": False}, accept=EVENTS)
    assert_error(refused, 406)
    assert isinstance(writer.post(json={**body, "stream": False}).json(), list)
    assert_error(writer.post(json={**body, "stream": "yes"}), 422, words=["stream"])


@pytest.mark.bare
def test_the_first_event_comes_before_the_last_token_is_made(writer):
    before = metric(writer, "hfserve_generated_tokens_total")
    with streamed(writer, {"inputs": "Paris", "parameters": LONG, "stream": True}) as reply:
        first = next(reply.iter_lines())
        made = metric(writer, "hfserve_generated_tokens_total") - before
    assert json.loads(first.removeprefix("data: "))["index"] == 1
    assert made < LONG["max_new_tokens"]


@pytest.mark.bare
def test_a_client_that_goes_has_its_work_ended_and_its_room_given_back(writer):
    before = metric(writer, "hfserve_generation_cancelled_total")

    def leave(_):
        with streamed(writer, {"inputs": "Paris", "parameters": LONG, "stream": True}) as reply:
            next(reply.iter_lines())

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(leave, range(8)))
    writer.wait(lambda: metric(writer, "hfserve_generation_cancelled_total") - before == 8, "all cancelled")
    writer.wait(lambda: metric(writer, "hfserve_kv_blocks_used") == 0, "all room given back")
    assert metric(writer, "hfserve_texts_running") == 0


@pytest.mark.bare
def test_a_unary_client_that_goes_has_its_work_ended_too(writer):
    if writer.engine == "mms":
        pytest.skip("MMS keeps a request of a client that went; its deadline ends it")
    before = metric(writer, "hfserve_generation_cancelled_total")
    with contextlib.suppress(Exception):
        writer.client.post("/invocations", json={"inputs": "Paris", "parameters": LONG}, timeout=0.5)
    writer.wait(lambda: metric(writer, "hfserve_generation_cancelled_total") > before, "cancelled")


def test_unary_requests_and_streams_share_the_model(writer):
    """Short ones are answered while a long stream goes on, with the answers that they have alone."""
    short = {"inputs": "The food", "parameters": GREEDY}
    alone = writer.post(json=short).json()
    with streamed(writer, {"inputs": "Paris", "parameters": LONG, "stream": True}) as reply:
        lines = reply.iter_lines()
        next(lines)
        with ThreadPoolExecutor(6) as clients:
            answers = list(clients.map(lambda _: writer.post(json=short).json(), range(12)))
        assert answers == [alone] * 12
        seen = sum(1 for _ in zip(range(40), lines, strict=False))
        assert seen == 40, "the long one goes on"


def test_streams_run_side_by_side_and_each_has_its_own_text(writer):
    prompts = [f"{word} was" for word in ("London", "The food", "Anna", "Bob", "Paris", "my", "a", "the")]
    alone = [writer.post(json={"inputs": prompt, "parameters": GREEDY}).json()[0] for prompt in prompts]
    gate = threading.Barrier(len(prompts))

    def ask(prompt):
        gate.wait()
        return events(whole(writer, {"inputs": prompt, "parameters": GREEDY, "stream": True})[1])

    with ThreadPoolExecutor(len(prompts)) as clients:
        streams = list(clients.map(ask, prompts))
    for prompt, answer, found in zip(prompts, alone, streams, strict=True):
        assert prompt + found[-1]["generated_text"] == answer["generated_text"]


def test_several_inputs_are_told_as_they_are_made(writer):
    _, content = whole(writer, {"inputs": ["Paris", "a"], "parameters": GREEDY, "stream": True})
    found = events(content)
    assert {each["input"] for each in found} == {0, 1} and len(found) == 24
    ended = [each for each in found if each["details"]]
    assert sorted(each["input"] for each in ended) == [0, 1]
    assert_error(writer.post(json={"inputs": ["a", "b"], "stream": True}, accept=PLAIN), 422)


def test_what_is_wrong_before_the_first_byte_has_an_honest_status(writer):
    wrong = {"inputs": "a", "parameters": {"temperature": -1}, "stream": True}
    assert_error(writer.post(json=wrong), 422, words=["temperature"])
    beams = {"inputs": "a", "parameters": {"num_beams": 2}, "stream": True}
    assert_error(writer.post(json=beams), 422, words=["num_beams"])
    large = {"inputs": "a", "parameters": {"num_return_sequences": 2, "do_sample": True}, "stream": True}
    assert_error(writer.post(json=large), 422, words=["num_return_sequences"])


def test_a_stop_string_ends_a_stream_in_its_event(writer):
    body = {"inputs": "Paris is", "parameters": {**GREEDY, "max_new_tokens": 40, "return_full_text": False}}
    text = writer.post(json=body).json()[0]["generated_text"]
    stop = text[4:6]
    stopped = {**body, "parameters": {**body["parameters"], "stop": [stop]}, "stream": True}
    found = events(whole(writer, stopped)[1])
    assert found[-1]["details"]["finish_reason"] == "stop_sequence"
    assert found[-1]["generated_text"].endswith(stop) and text.startswith(found[-1]["generated_text"])


@pytest.mark.once
def test_a_stream_that_takes_too_long_ends_with_the_error(engine, folder):
    with Server(folder, engine=engine, HFSERVE_TIMEOUT="1", HFSERVE_STREAM_TIMEOUT="0.2") as server:
        _, content = whole(server, {"inputs": "Paris", "parameters": LONG, "stream": True})
        assert content.endswith(DONE)
        *_, told, failure = content.removesuffix(DONE).split(b"\n\n")[:-1]
        assert json.loads(told.removeprefix(b"data: "))["index"] > 1
        kind, data = failure.split(b"\n")
        error = json.loads(data.removeprefix(b"data: "))["error"]
        assert kind == b"event: error" and error["status"] == 504 and error["type"] == "DeadlineExceeded"
        _, content = whole(server, {"inputs": "Paris", "parameters": LONG, "stream": True}, LINES)
        assert json.loads(content.splitlines()[-1])["error"]["status"] == 504 and content.endswith(b"\n")
        server.wait(lambda: metric(server, "hfserve_kv_blocks_used") == 0, "all room given back")
        assert_error(server.post(json={"inputs": "Paris", "parameters": LONG}), 504)
        server.wait(lambda: metric(server, "hfserve_kv_blocks_used") == 0, "the room of the late one given back")


@pytest.mark.bare
def test_sigterm_lets_a_stream_come_to_its_end(engine, folder):
    tokens = {"max_new_tokens": 800, "min_new_tokens": 800}
    with Server(folder, engine=engine) as server:
        body = {"inputs": "Paris", "parameters": {**LONG, **tokens}, "stream": True}
        with streamed(server, body) as reply:
            lines = reply.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["details"]["generated_tokens"] == 800
        assert server.process.wait(40) == 0


@pytest.mark.once
def test_a_summary_streams_too(engine, tmp_path):
    """Without a search with beams, since nobody asked for one."""
    with Server(zoo.named("text2text-generation-t5", tmp_path / "t5"), engine=engine) as server:
        body = {"inputs": "the food was good", "parameters": {"max_new_tokens": 10}}
        likeliest = {**body, "parameters": {**body["parameters"], "num_beams": 1}}
        wanted = server.post(json=likeliest).json()[0]["generated_text"]
        for sent in (body, likeliest):
            found = events(whole(server, {**sent, "stream": True})[1])
            assert "".join(each["token"]["text"] for each in found) == wanted
            assert found[-1]["details"]["generated_tokens"] == len(found) <= 10
        searching = {**body, "parameters": {"num_beams": 3}, "stream": True}
        assert_error(server.post(json=searching), 422, words=["num_beams"])


@pytest.mark.once
def test_what_is_said_of_pictures_streams_too_many_at_once(engine, tmp_path):
    with Server(zoo.build("image-text-to-text", tmp_path / "seeing"), engine=engine) as server:
        document = server.client.get("/openapi.json").json()["paths"]["/invocations"]["post"]
        example = document["requestBody"]["content"]["application/json"]["examples"]["example"]["value"]
        assert EVENTS in document["responses"]["200"]["content"]
        asked = {**example, "parameters": {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}}
        ((record,)) = server.post(json=asked).json()
        found = events(whole(server, {**asked, "stream": True})[1])
        assert "".join(each["token"]["text"] for each in found) == record["generated_text"]
        assert found[-1]["details"]["generated_tokens"] == len(found) <= 6
        both = events(whole(server, {**asked, "inputs": [asked["inputs"]] * 2, "stream": True})[1])
        assert {each["input"] for each in both} == {0, 1}
        for number in (0, 1):
            told = "".join(each["token"]["text"] for each in both if each["input"] == number)
            assert told == record["generated_text"]


def test_a_client_that_leaves_a_text_about_a_picture_frees_its_blocks(engine, tmp_path):
    model = roomy("image-text-to-text-qwen3-vl", tmp_path / "seeing")
    with Server(model, engine=engine, HF_TASK="image-text-to-text") as server:
        example = {"image": png(), "text": "What is it?"}
        body = {"inputs": example, "parameters": LONG, "stream": True}
        with streamed(server, body) as reply:
            next(reply.iter_raw())
        server.wait(lambda: metric(server, "hfserve_generation_cancelled_total") == 1, "the text's end")
        server.wait(lambda: metric(server, "hfserve_kv_blocks_used") == 0, "its blocks' return")
        assert server.post(json={"inputs": example, "parameters": {"max_new_tokens": 3}}).status_code == 200


@pytest.mark.bare
def test_a_list_of_any_task_streams_item_by_item(demo):
    body = {"inputs": ["I love it", "I hate it"] * 100}
    wanted = demo.post(json=body).json()
    with streamed(demo, {**body, "stream": True}) as reply:
        content = b"".join(reply.iter_raw())
    assert [each[0] if isinstance(each, list) else each for each in events(content)] == wanted
    with streamed(demo, {**body, "stream": True}, LINES) as reply:
        lines = reply.read().decode().splitlines()
    assert len(lines) == 200
    assert_error(demo.post(json={"inputs": ["a", 3], "stream": True}), 422, words=["inputs"])
    assert_error(demo.post(json={**body, "stream": True}, accept=PLAIN), 406)
