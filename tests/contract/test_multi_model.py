"""Many models in one server: loaded, listed, described, asked and unloaded (contract rows 29 to 31)."""

import collections
import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import httpx
import pytest

import tiny
from server import HFSERVE, Server, assert_error, thoroughly

ECHO = """
def model_fn(model_dir): return {word!r}
def predict_fn(data, model): return {{"word": model, "data": data}}
"""
SLOW = """
import os, time
def model_fn(model_dir): return None
def predict_fn(data, model):
    time.sleep(data["seconds"])
    return {"pid": os.getpid()}
"""
WAITS = """
import os, time
def model_fn(model_dir):
    while not os.path.exists(os.path.join(model_dir, "go")):
        time.sleep(0.01)
    return "gone"
def predict_fn(data, model): return model
"""


@pytest.fixture(scope="module")
def many(engine):
    """A server without a model."""
    with Server(engine=engine, SAGEMAKER_MULTI_MODEL="true", HFSERVE_MAX_BODY="5000000") as server:
        yield server


@pytest.fixture
def server(many):
    """The same for each test, with no model left by another."""
    for model in listed(many):
        assert many.client.delete(f"/models/{model}").status_code == 200
    return many


@pytest.fixture(scope="module")
def tinies(tmp_path_factory):
    """Model directories as SageMaker has them."""
    root = tmp_path_factory.mktemp("tinies")
    return {name: tiny.build(name, root / name) for name in ("text-classification-bert", "text-generation-gpt2")}


@pytest.fixture
def directory(tmp_path):
    """A model directory with hooks of its own."""

    def make(name, source, **files):
        code = tmp_path / name / "code"
        code.mkdir(parents=True)
        (code / "inference.py").write_text(source)
        for file, content in files.items():
            (code / file).write_text(content)
        return tmp_path / name

    return make


def load(server, name, url, status=200):
    reply = server.client.post("/models", json={"model_name": name, "url": str(url)}, timeout=150)
    assert reply.status_code == status, reply.text
    return reply


def ask(server, name, json, **options):
    return server.client.post(f"/models/{name}/invoke", json=json, **options)


def listed(server):
    return [model["modelName"] for model in server.client.get("/models").json()["models"]]


def described(server, name):
    reply = server.client.get(f"/models/{name}")
    assert reply.status_code == 200, reply.text
    return reply.json()


def pids(server, name):
    return described(server, name)["pids"]


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def figure(server, name):
    lines = server.client.get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


# What SageMaker asks


@pytest.mark.bare
def test_a_model_is_loaded_listed_described_asked_and_unloaded(server, tinies):
    """[29, 30, 31]"""
    assert server.ping() == 200
    assert server.client.get("/models").json() == {"models": []}
    for name, url in tinies.items():
        assert load(server, name, url).json()["modelName"] == name
    assert server.client.get("/models").json() == {
        "models": [{"modelName": name, "modelUrl": str(url)} for name, url in sorted(tinies.items())]
    }
    about = described(server, "text-classification-bert")
    assert (about["modelUrl"], about["status"]) == (str(tinies["text-classification-bert"]), "Healthy")
    assert (about["task"], about["workers"], about["readyWorkers"]) == ("text-classification", 1, 1)
    assert about["memoryBytes"] > 1 << 20
    [answer] = ask(server, "text-classification-bert", {"inputs": "the food is good"}).json()
    assert answer["label"] in {"NEGATIVE", "POSITIVE"}
    parameters = {"max_new_tokens": 3}
    [text] = ask(server, "text-generation-gpt2", {"inputs": "a", "parameters": parameters}).json()
    assert isinstance(text["generated_text"], str)
    [worker] = pids(server, "text-classification-bert")
    assert alive(worker)
    assert figure(server, 'hfserve_model_memory_bytes{model="text-classification-bert"}') > 1 << 20
    assert server.client.delete("/models/text-classification-bert").status_code == 200
    assert not alive(worker)  # which is what gives the memory back
    assert listed(server) == ["text-generation-gpt2"]
    assert_error(ask(server, "text-classification-bert", {"inputs": "x"}), 404, kind="NotFound")
    assert_error(server.client.get("/models/text-classification-bert"), 404, kind="NotFound")
    assert_error(server.client.delete("/models/text-classification-bert"), 404, kind="NotFound")
    assert ask(server, "text-generation-gpt2", {"inputs": "a", "parameters": parameters}).status_code == 200
    load(server, "text-classification-bert", tinies["text-classification-bert"])
    assert ask(server, "text-classification-bert", {"inputs": "the food is good"}).json() == [answer]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"{}", b'{"model_name": "x"}', b'{"url": "/tmp"}', b'{"model_name": "x", "url": ""}',
        b'{"model_name": 3, "url": "/tmp"}', b'{"model_name": "", "url": "/tmp"}',
        b'{"model_name": "a/b", "url": "/tmp"}', b'{"model_name": "..", "url": "/tmp"}',
        b'{"model_name": "a\\u0000", "url": "/tmp"}', b'{"model_name": "x", "url": "/tmp\\u0000"}',
        b'{"model_name": "' + b"x" * 81 + b'", "url": "/tmp"}',
    ],
)  # fmt: skip
def test_a_load_that_makes_no_sense_is_400(server, body):
    """[29]"""
    assert_error(server.client.post("/models", content=body), 400, kind="BadRequest")
    assert listed(server) == []


def test_a_load_that_cannot_be_done_says_why_and_leaves_nothing(server, directory, tmp_path):
    """[29]"""
    (tmp_path / "empty").mkdir()
    large = directory("large", ECHO.format(word=""))
    with (large / "model.safetensors").open("wb") as weights:
        weights.truncate(1 << 42)
    cases = {
        "nowhere": (tmp_path / "nowhere", 404, "nowhere"),
        "empty": (tmp_path / "empty", 500, "is empty"),
        "raises": (directory("raises", "def model_fn(d): raise ValueError('bad luck')"), 500, "bad luck"),
        "syntax": (directory("syntax", "def model_fn("), 500, "inference.py"),
        "dies": (directory("dies", "import os\ndef model_fn(d): os._exit(7)"), 500, "exit status 7"),
        "memory": (directory("memory", "def model_fn(d): raise MemoryError('no room')"), 507, "no room"),
        "killed": (directory("killed", "import os\ndef model_fn(d): os.kill(os.getpid(), 9)"), 507, "SIGKILL"),
        "large": (large, 507, "unload another model first"),
    }
    for name, (url, status, word) in cases.items():
        assert_error(load(server, name, url, status), status, words=[word])
        assert_error(server.client.get(f"/models/{name}"), 404)
    assert server.ping() == 200
    assert listed(server) == []
    load(server, "raises", directory("mended", ECHO.format(word="hello")))
    assert ask(server, "raises", 1).json() == {"word": "hello", "data": 1}
    assert_error(load(server, "raises", tmp_path / "mended", 409), 409, kind="Conflict", words=["loaded already"])


def test_an_answer_is_what_invocations_would_give(server, tinies, directory):
    """[31]"""
    source = """
def model_fn(model_dir): return None
def input_fn(body, content_type): return body, content_type
def predict_fn(data, model, context):
    name = "X-Amzn-SageMaker-Custom-Attributes"
    context.set_response_header(0, name, context.get_request_header(0, name) or "none")
    return data
def output_fn(prediction, accept):
    body, content_type = prediction
    return (body if isinstance(body, bytes) else body.encode()), content_type
"""
    load(server, "verbatim", directory("verbatim", source))
    load(server, "gpt", tinies["text-generation-gpt2"])
    for body in (b"\x00\xff" * 10, os.urandom(2_000_000)):
        headers = {
            "Content-Type": "application/x-any; a=b",
            "X-Amzn-SageMaker-Custom-Attributes": "c=1",
            "X-Request-Id": "r-7",
        }
        reply = server.client.post("/models/verbatim/invoke", content=body, headers=headers)
        assert reply.content == body
        assert reply.headers["content-type"] == "application/x-any"
        assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "c=1"
        assert reply.headers["x-request-id"] == "r-7"
    chunked = server.client.post("/models/verbatim/invoke", content=iter([b"ab", b"cd"]))
    assert chunked.content == b"abcd"
    assert_error(server.client.post("/models/verbatim/invoke", content=b"x" * 5_000_001), 413)
    assert_error(server.client.post("/models/gpt/invoke", content=b"{"), 400, kind="BadRequest")
    assert_error(ask(server, "gpt", {"inputs": "a", "parameters": {"nonsense": 1}}), 422, kind="InvalidInput")
    assert_error(server.client.get("/models/gpt/invoke"), 405, kind="MethodNotAllowed")
    assert_error(server.post(json={}), 404, words=["/models/NAME/invoke"])
    asked = {"inputs": "the", "parameters": {"max_new_tokens": 4}}
    for accept, beginning in (("text/event-stream", "data: {"), ("application/jsonlines", '{"')):
        body = {**asked, "stream": True} if accept == "text/event-stream" else asked
        with server.client.stream("POST", "/models/gpt/invoke", json=body, headers={"Accept": accept}) as stream:
            lines = [line for line in stream.iter_lines() if line]
        assert stream.headers["content-type"].startswith(accept)
        assert len(lines) >= 4
        assert all(line.startswith(beginning) for line in lines[:4])


def test_memory_that_runs_out_in_a_request_is_507(server, directory):
    """[31]"""
    source = """
import torch
def model_fn(model_dir): return None
def predict_fn(data, model): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
"""
    load(server, "hungry", directory("hungry", source))
    assert_error(ask(server, "hungry", {}), 507, kind="OutOfMemory", words=["2.00 GiB"])
    assert server.ping() == 200


def test_hooks_of_the_same_names_are_kept_apart(server, directory):
    source = "import words\ndef model_fn(d): return words.WORD\ndef predict_fn(data, model): return model\n"
    for word in ("one", "two"):
        load(server, word, directory(word, source, **{"words.py": f"WORD = {word!r}\n"}))
    assert [ask(server, word, {}).json() for word in ("one", "two", "one")] == ["one", "two", "one"]


@pytest.mark.once
def test_requirements_are_kept_apart(server, directory):
    source = "import handmade\ndef model_fn(d): return handmade.VERSION\ndef predict_fn(data, model): return model\n"
    for version in ("1.0", "2.0"):
        files = {"requirements.txt": f"--no-index\nhandmade=={version}\n"}
        place = directory(f"v{version}", source, **files)
        a_wheel(place / "code" / "wheels", version)
        load(server, f"v{version}", place)
    assert [ask(server, f"v{version}", {}).json() for version in ("1.0", "2.0")] == ["1.0", "2.0"]
    bad = directory("bad", source, **{"requirements.txt": "--no-index\nnot-there-at-all\n"})
    assert_error(load(server, "bad", bad, 500), 500, words=["not-there-at-all"])


def a_wheel(place, version):
    info = f"handmade-{version}.dist-info"
    files = {
        "handmade.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: handmade\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    place.mkdir(parents=True)
    with zipfile.ZipFile(place / f"handmade-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, content)


# What must not disturb whom


def test_a_load_holds_up_neither_ping_nor_another_model(server, directory):
    """[31]"""
    load(server, "quick", directory("quick", ECHO.format(word="quick")))
    slow = directory("slow", WAITS)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load, server, "slow", slow)
        server.wait(lambda: server.client.get("/models/slow").status_code == 200, "a load")
        for _ in range(20):
            assert server.ping() == 200
            assert ask(server, "quick", 1).json()["word"] == "quick"
        assert described(server, "slow")["status"] == "Loading"
        assert listed(server) == ["quick"]
        assert_error(ask(server, "slow", {}), 404)
        assert_error(load(server, "slow", slow, 409), 409, words=["being loaded"])
        assert_error(server.client.delete("/models/slow"), 409, words=["being loaded"])
        assert not loading.done()
        (slow / "go").touch()
        loading.result(60)
    assert ask(server, "slow", {}).json() == "gone"


@pytest.mark.bare
def test_unloading_answers_what_was_accepted(server, directory):
    load(server, "slow", directory("slow", SLOW))
    [worker] = pids(server, "slow")
    with concurrent.futures.ThreadPoolExecutor(13) as pool:
        asked = [pool.submit(ask, server, "slow", {"seconds": 0.2}) for _ in range(12)]
        server.wait(lambda: figure(server, "hfserve_requests_in_flight ") >= 1, "a request in flight")
        replies = [each.result(30) for each in asked[:1]]
        asked.append(pool.submit(ask, server, "slow", {"seconds": 0.5}))
        server.wait(lambda: figure(server, "hfserve_requests_in_flight ") >= 1, "a request in flight")
        assert server.client.delete("/models/slow").status_code == 200
        replies += [each.result(30) for each in asked[1:]]
    counts = collections.Counter(reply.status_code for reply in replies)
    assert set(counts) <= {200, 404}
    assert counts[200] >= 2
    assert {reply.json()["pid"] for reply in replies if reply.status_code == 200} == {worker}
    assert not alive(worker)


@pytest.mark.bare
def test_a_killed_worker_is_replaced_and_the_list_stays(server, directory):
    """[31]"""
    for word in ("one", "two"):
        load(server, word, directory(word, ECHO.format(word=word)))
    before = server.client.get("/models").json()
    [worker] = pids(server, "one")
    os.kill(worker, signal.SIGKILL)
    server.wait(lambda: not alive(worker), "an end")
    answers = []
    server.wait(lambda: answers.append(ask(server, "one", 1)) or answers[-1].status_code == 200, "an answer")
    for answer in answers[:-1]:
        assert_error(answer, 503)
        assert server.ping() == 200
    assert ask(server, "two", 2).json() == {"word": "two", "data": 2}
    assert server.client.get("/models").json() == before
    assert server.ping() == 200
    assert described(server, "one")["status"] == "Healthy"
    assert server.client.delete("/models/one").status_code == 200


def test_a_model_that_cannot_be_kept_is_told_of_and_disturbs_no_other(server, directory):
    """[12]"""
    source = """
import os
def model_fn(model_dir):
    if os.path.exists(os.path.join(model_dir, "broken")):
        raise ValueError("broken meanwhile")
    return 1
def predict_fn(data, model): return os.getpid()
"""
    place = directory("fragile", source)
    load(server, "fragile", place)
    load(server, "sound", directory("sound", ECHO.format(word="sound")))
    (place / "broken").touch()
    os.kill(ask(server, "fragile", {}).json(), signal.SIGKILL)
    server.wait(lambda: described(server, "fragile")["status"] == "Unhealthy", "the truth")
    assert "broken meanwhile" in described(server, "fragile")["reason"]
    assert_error(ask(server, "fragile", {}), 503, kind="NotReady")
    assert server.ping() == 200
    assert ask(server, "sound", 1).status_code == 200
    assert listed(server) == ["fragile", "sound"]
    (place / "broken").unlink()
    assert server.client.delete("/models/fragile").status_code == 200
    load(server, "fragile", place)
    assert ask(server, "fragile", {}).status_code == 200


@pytest.mark.once
def test_what_workers_are_forked_from_may_end(server, directory):
    load(server, "before", directory("before", ECHO.format(word="before")))
    [worker] = pids(server, "before")
    [nursery] = set(server.pids("doors.nursery")) - {worker}
    os.kill(nursery, signal.SIGKILL)
    server.wait(lambda: not alive(nursery), "an end")
    assert ask(server, "before", 1).status_code == 200
    load(server, "after", directory("after", ECHO.format(word="after")))
    assert ask(server, "after", 1).json()["word"] == "after"
    assert alive(worker)
    server.wait(lambda: len(server.pids("doors.nursery")) >= 2, "another")


def test_models_are_registered_again_when_mms_or_its_backend_ends(many, server, directory):
    if server.engine != "mms":
        pytest.skip("without MMS there is nothing to register with")
    for word in ("one", "two"):
        load(server, word, directory(word, ECHO.format(word=word)))
    before = server.client.get("/models").json()
    for victims in (server.pids("model_service_worker")[:1], server.pids("ModelServer")):
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        server.wait(lambda gone=victims: not any(map(alive, gone)), "an end")
        for word in ("one", "two"):
            server.wait(lambda word=word: ask(server, word, 1).status_code == 200, f"an answer of {word}")
        server.wait(lambda: len(server.pids("model_service_worker")) == 2 and server.ping() == 200, "both again")
        assert server.client.get("/models").json() == before
    assert server.client.delete("/models/one").status_code == 200
    server.wait(lambda: len(server.pids("model_service_worker")) == 1, "one")
    assert ask(server, "two", 1).status_code == 200


def test_threads_of_models_that_share_the_cores_do_not_spin(directory, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY")
    source = """
import os
def model_fn(model_dir): return os.environ.get("OMP_WAIT_POLICY")
def predict_fn(data, model): return model
"""
    model = directory("waits", source)
    with Server(engine="asgi", SAGEMAKER_MULTI_MODEL="true", HFSERVE_PRELOAD="0") as server:
        load(server, "waits", model)
        assert ask(server, "waits", {}).json() == "passive"
    with Server(model, engine="asgi") as server:
        assert server.post(json={}).json() is None


def test_two_hundred_models_come_and_go(server, directory):
    """[29, 30]"""
    places = [directory(f"place-{n}", ECHO.format(word=n)) for n in range(5)]
    total, kept = (200, 101) if server.engine == "asgi" else (24, 12)
    names = [f"{n:03}-{'x' * 40}" for n in range(total)]
    loads = figure(server, 'hfserve_model_loads_total{status="200"}')

    def come(n):
        load(server, names[n], places[n % 5])
        assert ask(server, names[n], n).json() == {"word": n % 5, "data": n}

    def go(n):
        assert server.client.delete(f"/models/{names[n]}").status_code == 200

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(come, range(kept)))
        assert server.ping() == 200
        pages = [server.client.get("/models").json()]
        while token := pages[-1].get("nextPageToken"):
            pages.append(server.client.get("/models", params={"next_page_token": token}).json())
        assert [model["modelName"] for page in pages for model in page["models"]] == names[:kept]
        assert [len(page["models"]) for page in pages] == ([100, 1] if kept > 100 else [kept])
        workers = [pid for name in names[:kept] for pid in pids(server, name)]
        assert len(set(workers)) == kept
        list(pool.map(go, range(kept)))
        assert not any(map(alive, workers))
        list(pool.map(lambda n: (come(n), go(n)), range(kept, total)))
    assert listed(server) == []
    assert figure(server, 'hfserve_model_loads_total{status="200"}') == loads + total
    assert figure(server, "hfserve_models_loaded") == 0
    assert list((server.run_dir / "models").iterdir()) == list((server.run_dir / "names").iterdir()) == []
    assert len(server.pids("doors.nursery")) == 1
    assert len(list((server.run_dir / "metrics").iterdir())) < 10


# Other servers


@pytest.mark.parametrize("engine", ["asgi", thoroughly("mms")])
def test_a_model_may_have_several_workers(engine, directory):
    environment = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"}
    with Server(engine=engine, **environment) as server:
        load(server, "slow", directory("slow", SLOW))
        assert described(server, "slow")["readyWorkers"] == 2
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = list(pool.map(lambda _: ask(server, "slow", {"seconds": 0.2}).json()["pid"], range(16)))
        assert set(asked) == set(pids(server, "slow"))
        os.kill(asked[0], signal.SIGKILL)
        server.wait(lambda: not alive(asked[0]), "an end")
        server.wait(lambda: ask(server, "slow", {"seconds": 0}).status_code == 200, "an answer")
        server.wait(lambda: described(server, "slow")["readyWorkers"] == 2, "both again")


def test_a_load_that_takes_more_than_there_is_ends_with_507(directory):
    hungry = """
import time
def model_fn(model_dir):
    held = []
    for _ in range(400):
        held.append(b"x" * (16 << 20))
        time.sleep(0.02)
    return held
def predict_fn(data, model): return len(model)
"""
    environment = {"SAGEMAKER_MULTI_MODEL": "true", "HFSERVE_MEMORY_MB": "1400"}
    with Server(engine="asgi", **environment) as server:
        load(server, "small", directory("small", ECHO.format(word="small")))
        assert_error(load(server, "hungry", directory("hungry", hungry), 507), 507, kind="OutOfMemory")
        assert ask(server, "small", 1).status_code == 200
        assert listed(server) == ["small"]
        assert server.ping() == 200


def test_sigterm_answers_what_was_accepted_and_leaves_nobody(directory):
    environment = {"SAGEMAKER_MULTI_MODEL": "true"}
    with Server(engine="asgi", **environment) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        load(server, "slow", directory("slow", SLOW))
        waiting = directory("waiting", WAITS)
        accepted = pool.submit(ask, server, "slow", {"seconds": 1.5})
        loading = pool.submit(server.client.post, "/models", json={"model_name": "waiting", "url": str(waiting)})
        server.wait(lambda: figure(server, "hfserve_requests_in_flight ") >= 1, "a request in flight")
        server.wait(lambda: server.client.get("/models/waiting").status_code == 200, "a load")
        server.process.send_signal(signal.SIGTERM)
        assert accepted.result(30).status_code == 200
        assert_error(loading.result(30), 503, words=["stopping"])
        assert server.process.wait(30) == 0
        assert server.pids("") == []


def test_sigkill_of_the_supervisor_leaves_no_forked_worker(directory):
    with Server(engine="asgi", SAGEMAKER_MULTI_MODEL="true") as server:
        load(server, "one", directory("one", ECHO.format(word="one")))
        [worker] = pids(server, "one")
        server.process.kill()
        server.process.wait()
        end = time.monotonic() + 15
        while alive(worker) and time.monotonic() < end:
            threading.Event().wait(0.02)
        assert not alive(worker)


def test_models_that_share_nothing_are_served_too(directory, tinies):
    with Server(engine="asgi", SAGEMAKER_MULTI_MODEL="true", HFSERVE_PRELOAD="0") as server:
        load(server, "bert", tinies["text-classification-bert"])
        assert ask(server, "bert", {"inputs": "the food is good"}).json()[0]["score"] > 0
        assert server.pids("doors.nursery") == []
        assert server.pids("doors.worker") == pids(server, "bert")


# On demand


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A directory of models."""
    root = tmp_path_factory.mktemp("shelf")
    for word in ("a", "b", "c", "slow"):
        code = root / word / "code"
        code.mkdir(parents=True)
        (code / "inference.py").write_text(LINES.format(word=word) if word != "slow" else DRIPS)
    tiny.build("text-classification-bert", root / "bert")
    return root


LINES = """
import os
def model_fn(model_dir): return {word!r}
def predict_fn(data, model): return [dict(word=model, text=text, pid=os.getpid()) for text in data["inputs"]]
"""
DRIPS = """
import os, time
def model_fn(model_dir): return model_dir
def predict_fn(data, model):
    for number in range(2):
        yield {"number": number}
        while not os.path.exists(data["inputs"][0]):
            time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def on_demand(engine, shelf):
    with Server(engine=engine, HFSERVE_MODELS=str(shelf), HFSERVE_MAX_MODELS="2") as server:
        yield server


def predict(server, text, name, **more):
    return server.client.post("/predict", json={"text": text, "model_name": name, **more}, timeout=150)


def items(reply):
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/jsonlines"
    assert reply.text.endswith("\n")
    return [json.loads(line) for line in reply.text.splitlines()]


@pytest.mark.bare
def test_a_model_is_loaded_when_it_is_asked_and_the_least_recently_used_leaves(on_demand):
    assert [item["text"] for item in items(predict(on_demand, "hello", "a"))] == ["hello"]
    assert [item["text"] for item in items(predict(on_demand, ["x", "y"], "b"))] == ["x", "y"]
    assert items(predict(on_demand, "again", "a"))[0]["word"] == "a"
    assert items(predict(on_demand, "hello", "c"))[0]["word"] == "c"
    assert listed(on_demand) == ["a", "c"]
    assert described(on_demand, "a")["onDemand"] is True
    results = items(predict(on_demand, ["the food is good", "bad"], "bert", task="text-classification"))
    assert [result["label"] in {"NEGATIVE", "POSITIVE"} for result in results] == [True, True]
    assert len(listed(on_demand)) == 2


def test_requests_that_meet_at_a_cold_model_load_it_once(on_demand):
    items(predict(on_demand, "x", "b"))
    items(predict(on_demand, "x", "c"))
    loads = figure(on_demand, 'hfserve_model_loads_total{status="200"}')
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: items(predict(on_demand, str(n), "a"))[0], range(6)))
    assert [answer["text"] for answer in answers] == [str(n) for n in range(6)]
    assert len({answer["pid"] for answer in answers}) == 1
    assert figure(on_demand, 'hfserve_model_loads_total{status="200"}') == loads + 1


def test_a_model_in_use_is_never_unloaded(on_demand, tmp_path):
    end = tmp_path / "end"
    body = {"text": str(end), "model_name": "slow"}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=on_demand.url, timeout=60, trust_env=False)) for _ in "ab"]
        first = stack.enter_context(clients[0].stream("POST", "/predict", json=body))
        lines = first.iter_lines()
        assert json.loads(next(lines)) == {"number": 0}  # it comes as it is made
        for name in ("a", "b", "c", "a"):
            assert items(predict(on_demand, "x", name))[0]["word"] == name
            assert listed(on_demand) == sorted(["slow", name])
        end.touch()
        assert [json.loads(line) for line in lines] == [{"number": 1}]


def test_what_is_wrong_with_a_prediction_is_said(on_demand):
    assert_error(predict(on_demand, "x", "nowhere"), 404, kind="NotFound", words=["nowhere", "bert"])
    assert_error(predict(on_demand, "x", "../shelf"), 404, kind="NotFound")
    assert_error(predict(on_demand, 3, "a"), 422, kind="InvalidInput", words=["text"])
    assert_error(predict(on_demand, "x", "a", more=1), 422, kind="InvalidInput", words=["more"])
    assert_error(predict(on_demand, "x", "bert", task="nonsense"), 422, kind="InvalidInput", words=["nonsense"])
    assert_error(on_demand.client.post("/predict", content=b"{"), 422, kind="InvalidInput")
    assert_error(on_demand.client.post("/models", json={"model_name": "x", "url": "/tmp"}), 405)
    assert_error(on_demand.client.delete("/models/a"), 405)


def test_a_server_of_sagemakers_predicts_only_what_is_allowed(server, directory):
    load(server, "one", directory("one", ECHO.format(word="one")))
    assert_error(predict(server, "x", "one"), 404, kind="NotFound")


@pytest.mark.parametrize("models", ["/nowhere/at/all", "a=/nowhere", "x y=/tmp", "a=/tmp,a=/usr", ","])
def test_models_that_cannot_be_are_exit_3_and_a_sentence(models):
    environment = {**os.environ, "HFSERVE_MODELS": models, "HFSERVE_ENGINE": "asgi"}
    done = subprocess.run(
        [HFSERVE, "serve", "--port", "0"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "HFSERVE_MODELS" in done.stdout
