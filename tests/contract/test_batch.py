"""A transform job finds in the server what it needs (rows 14 to 16, 32 and 33), on every engine."""

import json
import subprocess
import sys

import httpx
import pytest

from hfserve.boot import capacity
from hfserve.settings import Settings
from server import Server, assert_error

JSON, LINES, CSV = "application/json", "application/jsonlines", "text/csv"
GOOD, BAD = {"inputs": "I love this"}, {"inputs": "This is terrible"}
JOB = {"SAGEMAKER_BATCH": "true", "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD"}
MANY = 12_000
"""Records whose answers are longer than what is held back."""


@pytest.fixture(scope="module")
def job(engine):
    """A server as a transform job starts it."""
    with Server(engine=engine, **JOB) as server:
        yield server


@pytest.fixture(scope="module")
def sparing(engine):
    """The same, with placeholders for bad records."""
    with Server(engine=engine, HFSERVE_BAD_RECORDS="placeholder", **JOB) as server:
        yield server


def lines(*records):
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def labels(text):
    """The label, or the status of the error, that each line tells."""
    answers = [json.loads(line) for line in text.splitlines()]
    return [each["error"]["status"] if isinstance(each, dict) else each[0]["label"] for each in answers]


def numbered(count):
    """Records of which each third is of the other kind, with long answers."""
    for number in range(count):
        yield lines({**(BAD if number % 3 == 0 else GOOD), "parameters": {"top_k": None}})


def expected(count):
    return ["NEGATIVE" if number % 3 == 0 else "POSITIVE" for number in range(count)]


@pytest.mark.parametrize("content_type", [JSON, LINES, None])
@pytest.mark.parametrize("accept", [None, JSON, LINES])
def test_many_records_in_one_body_get_a_line_each_in_order(job, content_type, accept):
    reply = job.post(lines(GOOD, BAD, GOOD), content_type=content_type, accept=accept)
    assert (reply.status_code, reply.headers["content-type"]) == (200, LINES)
    assert labels(reply.text) == ["POSITIVE", "NEGATIVE", "POSITIVE"]
    assert reply.text.endswith("\n")


def test_one_record_alone_is_a_request_like_any_other(job):
    reply = job.post(lines(GOOD), content_type=JSON)
    assert reply.headers["content-type"] == JSON
    assert [answer["label"] for answer in reply.json()] == ["POSITIVE"]


@pytest.mark.parametrize("head", ["", "inputs\n", "Inputs\r\n"])
def test_csv_gets_a_line_for_each_line_with_the_names_of_the_columns_or_without(job, head):
    body = f'{head}I love this\n"This is terrible, really"\nI love it\n'
    assert labels(job.post(body, content_type=CSV).text) == ["POSITIVE", "NEGATIVE", "POSITIVE"]
    table = job.post(body, content_type=CSV, accept=CSV)
    assert table.headers["content-type"].startswith(CSV)
    assert [line.split(",")[0] for line in table.text.splitlines()] == ["POSITIVE", "NEGATIVE", "POSITIVE"]


def test_two_columns_are_a_pair_of_texts(job):
    named = job.post("text,text_pair\nI love this,truly\n", content_type=CSV)
    unnamed = job.post("I love this,truly\nI hate this,truly\n", content_type=CSV)
    alone = job.post(json={"inputs": {"text": "I love this", "text_pair": "truly"}}).json()
    assert json.loads(named.text) == json.loads(unnamed.text.splitlines()[0]) == alone
    assert_error(job.post("a,b,c\nd,e,f\n", content_type=CSV), 400, words=["record 1", "3 columns"])


def test_more_records_than_a_request_may_have_inputs_come_back_in_number_and_order(job):
    reply = job.client.post("/invocations", content=numbered(MANY), headers={"Content-Type": JSON})
    assert reply.status_code == 200
    assert labels(reply.text) == expected(MANY)


@pytest.mark.parametrize(
    ("line", "status", "kind"), [(b"{broken\n", 400, "BadRequest"), (b'{"inputs": 3}\n', 422, "InvalidInput")]
)
def test_a_bad_record_fails_its_body_and_is_named(job, line, status, kind):
    assert_error(job.post(lines(GOOD) + line, content_type=JSON), status, kind=kind, words=["record 2"])


def test_a_body_that_fails_late_is_cut_off_and_never_looks_whole(job):
    body = b"".join(numbered(MANY)) + b'{"inputs": 3}\n'
    seen = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        job.client.stream("POST", "/invocations", content=body, headers={"Content-Type": JSON}) as reply,
    ):
        assert reply.status_code == 200
        for piece in reply.iter_raw():
            seen += piece
    assert labels(seen[: seen.rindex(b"\n")].decode())[:3] == expected(3)
    assert labels(job.post(lines(GOOD, GOOD), content_type=JSON).text) == ["POSITIVE"] * 2


def test_placeholders_stand_where_the_bad_records_were(sparing):
    body = lines(GOOD) + b'{broken\n{"inputs": 3}\n' + lines(BAD) + b"\n" + lines({"inputs": None})
    reply = sparing.post(body, content_type=JSON)
    assert reply.status_code == 200
    assert labels(reply.text) == ["POSITIVE", 400, 422, "NEGATIVE", 422]
    error = json.loads(reply.text.splitlines()[2])["error"]
    assert error["type"] == "InvalidInput" and "inputs is a number" in error["message"]
    assert error["request_id"] == reply.headers["x-request-id"]


def test_placeholders_hold_in_csv_and_far_into_a_long_body(sparing):
    table = sparing.post("inputs\nI love this\na,b\nI hate this\n", content_type=CSV, accept=CSV).text.splitlines()
    assert [line.split(",")[0] for line in table] == ["POSITIVE", '"{""error"": {""status"": 400', "NEGATIVE"]
    body = b"".join(numbered(MANY)) + b"nonsense\n" + lines(GOOD)
    assert labels(sparing.post(body, content_type=JSON).text) == [*expected(MANY), 400, "POSITIVE"]


def test_a_body_without_records_is_told_so(sparing):
    assert_error(sparing.post("inputs\n", content_type=CSV), 400, words=["no records"])
    assert_error(sparing.post("\n \n", content_type=LINES), 400, words=["empty"])


def test_a_record_that_was_cut_is_told_in_the_head(job):
    reply = job.post(lines(GOOD, {"inputs": "good " * 5000}, GOOD), content_type=JSON)
    assert labels(reply.text) == ["POSITIVE"] * 3
    assert reply.headers["x-hfserve-truncated"] == "inputs"


@pytest.mark.once
def test_hooks_see_a_record_at_a_time(engine, model_with):
    source = """
def model_fn(model_dir): return None
def predict_fn(data, model):
    if data["inputs"] == "bad":
        raise ValueError("no luck")
    return {"said": data["inputs"], "times": data.get("parameters", {}).get("times", 1)}
"""
    body = lines({"inputs": "a"}, {"inputs": "bad"}, {"inputs": "b", "parameters": {"times": 2}})
    with Server(model_with(source), engine=engine, HFSERVE_BAD_RECORDS="placeholder", **JOB) as server:
        first, second, third = map(json.loads, server.post(body, content_type=JSON).text.splitlines())
        assert (first, third) == ({"said": "a", "times": 1}, {"said": "b", "times": 2})
        assert second["error"]["status"] == 500 and "no luck" in second["error"]["message"]
        table = server.post("x\ny\n", content_type=CSV, accept=CSV)
        assert table.text == "x,1\ny,1\n"


@pytest.mark.once
def test_hooks_that_write_their_answers_are_told_in_lines(engine, model_with):
    source = """
import json
def model_fn(model_dir): return None
def predict_batch_fn(items, model): return [item["inputs"].upper() for item in items]
def output_fn(prediction, accept): return json.dumps({"said": prediction}, indent=2), accept
"""
    with Server(model_with(source), engine=engine, **JOB) as server:
        reply = server.post(lines({"inputs": "a"}, {"inputs": "b"}), content_type=LINES)
        assert reply.text == '{"said":"A"}\n{"said":"B"}\n'


def test_the_limits_are_those_of_a_transform_job(monkeypatch):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert (settings.timeout, settings.body_limit) == (3600, 100 << 20)
    monkeypatch.setenv("SAGEMAKER_MAX_PAYLOAD_IN_MB", "0")
    assert Settings.read().body_limit == 1 << 30
    monkeypatch.setenv("SAGEMAKER_MAX_PAYLOAD_IN_MB", "50")
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "900")
    assert (Settings.read().timeout, Settings.read().body_limit) == (900, 50 << 20)


@pytest.mark.parametrize(
    ("workers", "lanes", "at_once", "largest"), [(1, 1, 1, 100), (1, 4, 4, 25), (2, 4, 8, 12), (8, 64, 100, 1)]
)
def test_what_may_be_under_way_together_is_what_sagemaker_allows(monkeypatch, workers, lanes, at_once, largest):
    monkeypatch.setenv("SAGEMAKER_BATCH", "true")
    told = capacity.execution_parameters(Settings.read(lanes=lanes), workers)
    assert told == {"MaxConcurrentTransforms": at_once, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": largest}


MEMORY = """
import json, resource, sys
from pathlib import Path
from hfserve import batch, model
from hfserve.messages import Item, Request
from hfserve.settings import Settings

class Runner:
    concurrent = True
    class task: name, takes = "any", "text"
    def items(self, data): return [Item(data["inputs"])]
    def result(self, data, outcomes): return {"length": outcomes[0]}

body = (json.dumps({"inputs": "x" * 85}) + "\\n").encode() * 1_000_000
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
request = Request(body, {"content-type": "application/json"}, "r", 1e12)
job = model.TaskModel(Runner(), Settings.read(batch=True)).prepare(request)
answers = 0
for part in job.stream.parts:
    answers += part.answered([len(item.data) for item in part.items]).count(b"\\n")
print(len(body) >> 20, answers, peak() - before)
"""


def test_a_million_records_take_less_memory_than_their_body():
    """In a process of its own, beside the body itself; the model stands aside."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=150)
    body, answers, more = map(int, done.stdout.split())
    assert (body, answers) == (95, 1_000_000)
    assert more < 20
