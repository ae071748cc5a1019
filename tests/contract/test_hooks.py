"""What user code in code/inference.py is promised, on every engine [45-48]."""

import concurrent.futures
import json
import shutil
import subprocess

import httpx
import pytest

from server import HFSERVE, Server, assert_error

EVERYTHING = """
import threading, time
from hfserve import InvalidInput

def model_fn(model_dir):
    return {"calls": 0, "threads": set(), "dir": model_dir}

def input_fn(body, content_type):
    if content_type == "application/json":
        assert type(body) is str
        import json
        return json.loads(body)
    assert type(body) is bytes
    return {"bytes": body.decode("latin-1"), "type": content_type}

def predict_fn(data, model, context):
    model["calls"] += 1
    model["threads"].add(threading.get_ident())
    match data.get("do"):
        case "raise": raise ValueError("no luck")
        case "refuse": raise InvalidInput("colour is not known; use red or blue")
        case "exit": raise SystemExit(1)
        case "sleep": time.sleep(data["seconds"])
        case "threads": return {"threads": len(model["threads"])}
        case "header": return {"got": context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")}
        case "status": context.set_response_status(202, "Accepted")
        case "large": return {"x": "y" * data["size"]}
        case "stream":
            def numbers():
                for i in range(5):
                    if i == data.get("fail_at"): raise RuntimeError("late")
                    yield {"i": i}
            return numbers()
    return data

def output_fn(prediction, accept, context):
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "from=hook")
    if hasattr(prediction, "send"):
        return prediction, "application/jsonlines"
    import json
    if accept == "text/plain":
        return str(prediction), "text/plain; charset=utf-8"
    return json.dumps(prediction)
"""


@pytest.fixture(scope="module")
def hooked(engine, tmp_path_factory):
    code = tmp_path_factory.mktemp("hooked") / "code"
    code.mkdir()
    (code / "inference.py").write_text(EVERYTHING)
    with Server(code.parent, engine=engine) as server:
        yield server


@pytest.mark.bare
def test_a_request_goes_through_all_hooks(hooked):
    reply = hooked.post(json={"a": 1}, headers={"X-Amzn-SageMaker-Custom-Attributes": "c=1"})
    assert reply.json() == {"a": 1}
    assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "from=hook"


@pytest.mark.bare
def test_bodies_and_types_reach_the_hook_verbatim(hooked):
    boundary = "multipart/form-data; boundary=xyz"
    body = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n\x00\xff\r\n--xyz--\r\n'
    answer = hooked.post(body, content_type=boundary).json()
    assert answer["bytes"].encode("latin-1") == body
    assert answer["type"].startswith("multipart/form-data")
    assert hooked.post(b"\x00\x01", content_type="application/x-thing").json()["bytes"] == "\x00\x01"


def test_request_headers_are_read_and_status_and_type_are_chosen(hooked):
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": "user=7"}
    assert hooked.post(json={"do": "header"}, headers=attributes).json() == {"got": "user=7"}
    assert hooked.post(json={"do": "status"}).status_code == 202
    reply = hooked.post(json={"a": 1}, accept="text/plain")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text == "{'a': 1}"


def test_an_error_of_the_user_is_500_with_the_line_and_without_the_traceback(hooked):
    error = assert_error(hooked.post(json={"do": "raise"}), 500, kind="ModelError", words=["no luck", "inference.py:"])
    assert "Traceback" not in error["message"]

    def logged():
        tracebacks = [line for line in list(hooked.lines) if "Traceback" in str(line.get("traceback"))]
        return any(line["request_id"] == error["request_id"] for line in tracebacks)

    hooked.wait(logged, "the traceback in the log")


def test_a_hook_chooses_the_status_by_raising_our_errors(hooked):
    assert_error(hooked.post(json={"do": "refuse"}), 422, kind="InvalidInput", words=["use red or blue"])


def test_a_hook_that_exits_harms_only_its_own_request(hooked):
    assert_error(hooked.post(json={"do": "exit"}), 500)
    assert hooked.post(json={"a": 2}).json() == {"a": 2}


def test_code_written_for_one_thread_stays_on_one(hooked):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: hooked.post(json={"i": i}), range(40)))
    assert hooked.post(json={"do": "threads"}).json() == {"threads": 1}


@pytest.mark.bare
def test_a_large_answer_arrives_whole(hooked):
    assert len(hooked.post(json={"do": "large", "size": 5_000_000}).json()["x"]) == 5_000_000


@pytest.mark.bare
def test_a_generator_streams_line_by_line(hooked):
    """[23, 24]"""
    with hooked.client.stream("POST", "/invocations", json={"do": "stream"}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"] == "application/jsonlines"
        assert "content-length" not in reply.headers
        text = "".join(reply.iter_text())
    assert [json.loads(line) for line in text.splitlines()] == [{"i": i} for i in range(5)]
    assert text.endswith("\n")


@pytest.mark.bare
def test_a_stream_that_fails_late_ends_with_the_error(hooked):
    """[25]"""
    lines = hooked.post(json={"do": "stream", "fail_at": 3}).text.splitlines()
    assert [json.loads(line) for line in lines[:3]] == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert json.loads(lines[3])["error"]["status"] == 500


def test_a_stream_that_fails_before_its_first_piece_has_an_honest_status(hooked):
    assert_error(hooked.post(json={"do": "stream", "fail_at": 0}), 500)


def test_predict_batch_fn_gets_waiting_requests_together_and_the_guilty_fails_alone(engine, model_with):
    source = """
import time
def model_fn(model_dir): return None
def predict_batch_fn(items, model):
    time.sleep(0.2)
    if any(item["inputs"] == "bad" for item in items):
        raise ValueError("bad in company")
    return [{"size": len(items), "text": item["inputs"]} for item in items]
"""
    with Server(model_with(source), engine=engine) as server, concurrent.futures.ThreadPoolExecutor(12) as pool:
        texts = ["a", "b", "bad", *"cdefghijk"]
        replies = list(pool.map(lambda text: server.post(json={"inputs": text}), texts))
        for text, reply in zip(texts, replies, strict=True):
            if text == "bad":
                assert_error(reply, 500, words=["bad in company"])
            else:
                assert reply.json()["text"] == text
        good = list(pool.map(lambda text: server.post(json={"inputs": text}).json()["size"], "abcdefghijkl"))
        assert max(good) > 1


@pytest.mark.once
def test_model_fn_alone_is_called_like_a_pipeline(engine, model_with):
    source = """
def model_fn(model_dir): return lambda inputs, shout=False: {"echo": inputs.upper() if shout else inputs}
"""
    with Server(model_with(source), engine=engine) as server:
        assert server.post(json={"inputs": "a"}).json() == {"echo": "a"}
        assert server.post(json={"inputs": "a", "parameters": {"shout": True}}).json() == {"echo": "A"}


@pytest.mark.once
def test_predict_fn_without_model_fn_gets_the_pipeline(engine, tmp_path):
    model = tmp_path / "model"
    from hfserve import artifacts

    shutil.copytree(artifacts.DEMO, model)
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text(
        "def predict_fn(data, model):\n    return {'label': model(data.pop('inputs', data))[0]['label']}\n"
    )
    with Server(model, engine=engine) as server:
        assert server.post(json={"inputs": "I love this"}).json() == {"label": "POSITIVE"}
        assert server.post("inputs\nI love this\n", content_type="text/csv").json() == {"label": "POSITIVE"}


@pytest.mark.once
def test_input_and_output_hooks_alone_keep_our_model(engine, tmp_path):
    from hfserve import artifacts

    shutil.copytree(artifacts.DEMO, tmp_path / "model")
    (tmp_path / "model" / "code").mkdir()
    (tmp_path / "model" / "code" / "inference.py").write_text(
        "def input_fn(body, content_type):\n    return {'inputs': body.decode()}\n"
        "def output_fn(prediction, accept):\n    return prediction[0]['label'], 'text/plain'\n"
    )
    with Server(tmp_path / "model", engine=engine) as server:
        assert server.post("I love this", content_type="text/plain").text == "POSITIVE"


@pytest.mark.once
def test_transform_fn_alone_does_everything(engine, model_with):
    source = """
def model_fn(model_dir): return "m"
def transform_fn(model, body, content_type, accept): return f"{model}:{body}:{content_type}:{accept}", "text/plain"
"""
    with Server(model_with(source), engine=engine) as server:
        assert (
            server.post('{"a":1}', content_type="application/json").text
            == 'm:{"a":1}:application/json:application/json'
        )


@pytest.mark.once
def test_hooks_that_do_without_torch_are_served_without_it(engine, model_with):
    """A second of every start and 170 MiB of every worker."""
    source = """
import sys

def model_fn(model_dir):
    return lambda data: 1 / data["divisor"]

def output_fn(prediction, accept):
    return {"quotient": prediction, "torch": "torch" in sys.modules}
"""
    with Server(model_with(source), engine=engine) as server:
        assert_error(server.post(json={"divisor": 0}), 500, kind="ModelError", words=["division by zero"])
        for _ in range(2):
            assert server.post(json={"divisor": 4}).json() == {"quotient": 0.25, "torch": False}


def test_a_custom_service_of_multi_model_server_keeps_working(engine, model_with):
    source = """
loaded = []
def handle(data, context):
    if data is None:
        loaded.append(context.system_properties["model_dir"])
        return None
    context.set_response_content_type(0, "text/plain")
    context.set_response_header(0, "X-Mine", "yes")
    return [f"{len(loaded)} {bytes(data[0]['body']).decode()} {context.get_request_header(0, 'Content-Type')}"]
"""
    with Server(
        model_with(source, **{"service.py": source}), engine=engine, SAGEMAKER_HANDLER="service:handle"
    ) as server:
        reply = server.post("hello", content_type="text/plain")
        assert reply.text == "1 hello text/plain"
        assert (reply.headers["x-mine"], reply.headers["content-type"]) == ("yes", "text/plain")


@pytest.mark.once
def test_warm_up_and_pre_model_hooks_run_before_ready(engine, model_with):
    source = """
seen = []
def pre_model_fn(model_dir): seen.append("pre")
def model_fn(model_dir): seen.append("model"); return seen
def model_warmup_fn(model_dir, model): seen.append("warm")
def predict_fn(data, model): return list(model)
"""
    with Server(model_with(source), engine=engine) as server:
        assert server.post(json={}).json() == ["pre", "model", "warm"]


TWO_ARE_TOO_MANY = """
def transform_fn(model, body, content_type, accept): pass
def predict_fn(data, model): pass
"""
NO_WEIGHTS = """
def model_fn(model_dir):
    raise OSError('no weights')
"""
COLD = """
def model_fn(model_dir): return 1
def predict_fn(data, model): pass
def model_warmup_fn(model_dir, model): 1 / 0
"""


@pytest.mark.once
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def model_fn(a, b, c): pass", ["code/inference.py:1", "model_fn(a, b, c)", "should take (model_dir)"]),
        (TWO_ARE_TOO_MANY, ["transform_fn", "predict_fn"]),
        ("import not_there", ["code/inference.py:1", "not_there", "requirements.txt"]),
        ("x = 1", ["none of", "model_fn"]),
        (NO_WEIGHTS, ["model_fn", "no weights", "code/inference.py:3"]),
        (COLD, ["model_warmup_fn", "ZeroDivisionError", "code/inference.py:4"]),
    ],
)
def test_a_start_that_cannot_succeed_ends_with_exit_3_and_one_sentence(engine, model_with, source, words):
    server = Server(model_with(source), engine=engine, ready=False)
    with server:
        assert server.process.wait(60) == 3
        server._reader.join(5)
    last = server.lines[-1]
    assert last["level"] == "error"
    for word in words:
        assert word in last["event"], last
    with pytest.raises(httpx.HTTPError):
        httpx.get(server.url + "/ping", trust_env=False)


def test_check_says_the_same_without_serving(model_with):
    model = model_with("def model_fn(a, b, c): pass\ndef predict_fn(): pass")
    done = subprocess.run([HFSERVE, "check", str(model)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "code/inference.py:1" in done.stdout
    assert "code/inference.py:2" in done.stdout
