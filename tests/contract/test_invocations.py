"""What a client of /invocations is promised, on every engine. Numbers in brackets are rows of the contract."""

import concurrent.futures
import io
import json
import pickle
import socket
from urllib.parse import urlsplit

import numpy as np
import pytest

from server import assert_error

pytestmark = pytest.mark.bare

GOOD, BAD = "I love this", "This is terrible"


def label(answer):
    return answer[0]["label"]


def test_the_readme_request_gets_the_readme_answer(demo):
    reply = demo.post(json={"inputs": GOOD})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    [answer] = reply.json()
    assert answer["label"] == "POSITIVE"
    assert answer["score"] >= 0.99


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"inputs": "I love this"}', "application/json; charset=utf-8"),
        ('{"inputs": "I love this"}', None),
        ('"I love this"', "application/json"),
        ('{"inputs": "I love this"}', "application/x-www-form-urlencoded"),
        ("I love this", "text/plain"),
        ("inputs\nI love this\n", "text/csv"),
        ('{"inputs": "I love this", "options": {"wait_for_model": true}}', "application/json"),
        ('{"inputs": "I love this", "parameters": {}}'.encode("utf-16"), "application/json; charset=utf-16"),
        ('{"inputs": {"text": "I love this"}}', "application/json"),
    ],
)
def test_every_usual_form_of_a_request_is_read(demo, body, content_type):
    """[13, 19, 46]"""
    reply = demo.post(body, content_type=content_type)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert (answer if isinstance(answer, dict) else answer[0])["label"] == "POSITIVE"


def test_a_list_is_answered_in_order_and_number(demo):
    texts = [GOOD, BAD] * 20
    answers = demo.post(json={"inputs": texts}).json()
    assert [a["label"] for a in answers] == ["POSITIVE", "NEGATIVE"] * 20
    assert demo.post(json={"inputs": []}).json() == []


def test_parameters_choose_the_answer(demo):
    both = demo.post(json={"inputs": GOOD, "parameters": {"top_k": None}}).json()
    assert [a["label"] for a in both] == ["POSITIVE", "NEGATIVE"]
    assert sum(a["score"] for a in both) == pytest.approx(1)


def test_json_lines_come_back_line_by_line(demo):
    """[33]"""
    body = "\n".join(json.dumps({"inputs": text}) for text in (GOOD, BAD, GOOD)) + "\n"
    reply = demo.post(body, content_type="application/jsonlines")
    assert reply.headers["content-type"] == "application/jsonlines"
    assert reply.text.endswith("\n")
    assert [label(json.loads(line)) for line in reply.text.splitlines()] == ["POSITIVE", "NEGATIVE", "POSITIVE"]
    assert demo.post(body, content_type="application/json").text == reply.text
    assert len(demo.post(body, content_type="application/json", accept="application/json").json()) == 3


def test_a_chunked_body_without_a_length_is_read(demo):
    """[16]"""
    pieces = (piece for piece in (b'{"inputs": ', b'"I love ', b'this"}'))
    assert label(demo.client.post("/invocations", content=pieces).json()) == "POSITIVE"


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/json, text/plain", "application/json;q=0.9", "text/html, application/*;q=0.1"]
)
def test_accept_is_negotiated(demo, accept):
    """[19]"""
    reply = demo.post(json={"inputs": GOOD}, accept=accept)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"


def test_answers_come_as_csv_and_lines_too(demo):
    csv = demo.post(json={"inputs": [GOOD, BAD]}, accept="text/csv")
    assert csv.headers["content-type"].startswith("text/csv")
    assert csv.text.splitlines()[0] == "label,score"
    assert [line.split(",")[0] for line in csv.text.splitlines()[1:]] == ["POSITIVE", "NEGATIVE"]
    lines = demo.post(json={"inputs": [GOOD, BAD]}, accept="application/jsonlines").text.splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["POSITIVE", "NEGATIVE"]


def test_a_form_of_answer_that_cannot_be_given_is_406(demo):
    error = assert_error(demo.post(json={"inputs": GOOD}, accept="image/png"), 406, kind="NotAcceptable")
    assert "application/json" in error["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "kind", "words"),
    [
        ('{"inputs": ', "application/json", 400, "BadRequest", ["line 1 column"]),
        ("", "application/json", 400, "BadRequest", ["empty"]),
        (b"\xff\xfe\xfa", "application/json", 400, "BadRequest", []),
        ("[" * 100_000, "application/json", 400, "BadRequest", []),
        ('{"inputs": 3}', "application/json", 422, "InvalidInput", ["inputs is a number"]),
        ('{"inputs": ["ok", null]}', "application/json", 422, "InvalidInput", ["inputs[1]", "null"]),
        ('{"inputs": "x", "parameters": 1}', "application/json", 422, "InvalidInput", ["parameters"]),
        ('{"inputs": "x", "parameters": {"tok_k": 1}}', "application/json", 422, "InvalidInput", ["tok_k", "top_k"]),
        ('{"inputs": "x", "parameters": {"top_k": "a"}}', "application/json", 422, "InvalidInput", ["top_k"]),
        ("<a/>", "application/xml", 415, "UnsupportedMediaType", ["application/xml", "application/json"]),
        ('{"inputs": "a"}\n{"inputs": 3}\n', "application/jsonlines", 422, "InvalidInput", ["record 2"]),
    ],
)
def test_what_is_wrong_is_said_with_an_honest_status(demo, body, content_type, status, kind, words):
    """[17, 18]"""
    assert_error(demo.post(body, content_type=content_type), status, kind=kind, words=words)


def test_an_overlong_text_is_cut_unless_that_is_forbidden(demo):
    text = "good " * 5000
    assert demo.post(json={"inputs": text}).json()[0]["label"] == "POSITIVE"
    reply = demo.post(json={"inputs": text, "parameters": {"truncation": False}})
    assert_error(reply, 422, words=["tokens"])


def test_a_posted_pickle_never_runs(demo, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for body in (pickle.dumps(Evil()), _npy(np.array([Evil()], dtype=object))):
        assert_error(demo.post(body, content_type="application/x-npy"), 400)
    assert not (tmp_path / "ran").exists()


def _npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/invocations", 405, "POST"), ("PUT", "/invocations", 405, "POST"),
        ("DELETE", "/ping", 405, "GET"), ("POST", "/metrics", 405, "GET"),
        ("GET", "/nope", 404, None), ("POST", "/predictions/model", 404, None), ("GET", "/models/model", 404, None),
        ("GET", "/_reply/0/" + "0" * 32, 404, None), ("DELETE", "/models/model", 404, None),
        ("GET", "/_reply/" + "0" * 32, 404, None), ("POST", "/_asgi", 404, None),
        ("GET", "/api-description", 404, None),
    ],
)  # fmt: skip
def test_a_route_or_method_that_is_not_there_answers_in_the_same_shape(demo, method, path, status, allow):
    reply = demo.client.request(method, path)
    assert_error(reply, status)
    if allow:
        assert allow in reply.headers["allow"]


def test_a_body_over_the_limit_is_413(demo):
    """[15]"""
    body = json.dumps({"inputs": "x" * 3_100_000})
    assert_error(demo.post(body), 413, words=["3000000"])


def test_a_chunked_body_over_the_limit_is_413(demo):
    reply = demo.client.post("/invocations", content=(b"x" * 100_000 for _ in range(40)))
    assert_error(reply, 413)


def test_large_bodies_go_in_and_out(demo):
    texts = [f"{GOOD} {i} " + "x" * 100 for i in range(9000)]
    reply = demo.post(json={"inputs": texts, "parameters": {"max_length": 8}})
    assert reply.status_code == 200, reply.text
    assert len(reply.json()) == 9000


def test_requests_keep_their_id(demo):
    """[21]"""
    given = {"X-Request-Id": "mine-1"}
    assert demo.post(json={"inputs": GOOD}, headers=given).headers["x-request-id"] == "mine-1"
    assert assert_error(demo.post(json={"inputs": 1}, headers=given), 422)["request_id"] == "mine-1"
    both = {**given, "X-Amzn-SageMaker-Inference-Id": "sm-2"}
    assert demo.post(json={"inputs": GOOD}, headers=both).headers["x-request-id"] == "sm-2"
    assert assert_error(demo.client.get("/nope", headers=both), 404)["request_id"] == "sm-2"
    odd = {"X-Request-Id": 'a"b<c>'}
    made = demo.post(json={"inputs": 1}, headers=odd)
    assert_error(made, 422)
    assert len(made.headers["x-request-id"]) >= 16


def test_unknown_headers_and_hosts_do_no_harm(demo):
    """[6, 21]"""
    headers = {
        "Host": "model.internal:99",
        "X-Amzn-SageMaker-Custom-Attributes": "a=b",
        "X-HFServe-Content-Type": "image/png",
    }
    assert label(demo.post(json={"inputs": GOOD}, headers=headers).json()) == "POSITIVE"


def test_good_and_bad_requests_in_company_get_each_its_own(demo):
    def ask(number):
        if number % 5 == 4:
            return assert_error(demo.post(json={"inputs": number}), 422)
        text = GOOD if number % 2 else BAD
        answer = demo.post(json={"inputs": text}).json()
        assert label(answer) == ("POSITIVE" if number % 2 else "NEGATIVE")
        return answer

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        assert len(list(pool.map(ask, range(300)))) == 300


def test_many_requests_share_a_forward_pass(demo):
    before = metric(demo, "hfserve_batch_items_count"), metric(demo, "hfserve_batch_items_sum")
    demo.post(json={"inputs": [GOOD] * 64})
    batches, items = (
        metric(demo, "hfserve_batch_items_count") - before[0],
        metric(demo, "hfserve_batch_items_sum") - before[1],
    )
    assert items == 64
    assert batches < 40


def metric(server, name):
    text = server.client.get("/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def test_metrics_count_requests_by_task_and_status(demo):
    """[43]"""
    line = 'hfserve_requests_total{status="200",task="text-classification"}'
    before = metric(demo, line)
    demo.post(json={"inputs": GOOD})
    assert metric(demo, line) == before + 1
    text = demo.client.get("/metrics").text
    for name in ("hfserve_requests_in_flight", "hfserve_queue_seconds", "hfserve_batch_tokens",
                 "hfserve_forward_seconds",
                 "hfserve_restarts", "hfserve_memory_bytes", "hfserve_workers_ready 1.0"):  # fmt: skip
        assert name in text


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_ping_is_200_and_empty_when_ready(demo, method):
    """[10]"""
    reply = demo.client.request(method, "/ping")
    assert (reply.status_code, reply.content) == (200, b"")


def test_execution_parameters_say_what_batch_transform_may_send(demo):
    """[32]"""
    answer = demo.client.get("/execution-parameters").json()
    assert set(answer) == {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}
    assert answer["MaxConcurrentTransforms"] >= 1
    assert answer["BatchStrategy"] == "MULTI_RECORD"


def test_garbage_on_the_wire_is_answered_400_and_harms_nobody(demo):
    address = urlsplit(demo.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 garbage\r\n\r\n")
        answer = connection.recv(65536)
    assert answer == b"" or b" 400 " in answer.splitlines()[0]
    assert label(demo.post(json={"inputs": GOOD}).json()) == "POSITIVE"


def test_many_requests_on_one_connection(demo):
    address = urlsplit(demo.url)
    body = b'{"inputs": "I love this"}'
    head = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        file = connection.makefile("rb")
        for _ in range(20):
            connection.sendall(head + body)
            assert b" 200 " in file.readline()
            length = 0
            while (line := file.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert b"POSITIVE" in file.read(length)
        file.close()


def test_a_text_that_is_cut_is_told_in_a_header_or_refused_on_request(demo):
    long = "good food " * 2000
    cut = demo.post(json={"inputs": ["good", long]})
    assert cut.status_code == 200 and cut.headers["x-hfserve-truncated"] == "inputs[1]"
    assert "x-hfserve-truncated" not in demo.post(json={"inputs": "good"}).headers
    assert_error(demo.post(json={"inputs": long, "parameters": {"truncation": False}}), 422, words=["inputs", "tokens"])
