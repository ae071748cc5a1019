"""The front of a multi-model endpoint against a small container that keeps the contract, and has room for so many."""

import contextlib
import http.client
import io
import json
import tarfile
import threading

import pytest
from local_test.errors import AwsError, ValidationError
from local_test.multi_model import Front, model_name
from local_test.s3 import Store

from small_container import SmallContainer

PREFIX = "s3://models/some/"


class Models:
    """What a container does with models: loads up to `room` of them, knows no others."""

    def __init__(self, room):
        self.room, self.loaded, self.calls = room, {}, []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = set()

    def answer(self, asked):
        self.calls.append((asked.method, asked.path))
        if asked.path == "/models":
            return self._load(**json.loads(asked.body))
        name = asked.path.split("/")[2]
        if name not in self.loaded:
            return 404, b"not loaded"
        if asked.method == "DELETE":
            del self.loaded[name]
            return 200, b""
        if asked.method == "GET":
            return 200, b"{}"
        if asked.body == b"unknown":
            return 404, b"no such customer"
        return 200, f"{asked.headers['X-Amzn-SageMaker-Target-Model']} of {self.loaded[name]}".encode()

    def _load(self, model_name, url):
        self.gate.wait(30)
        if model_name in self.broken:
            return 500, b"inference.py has a bug"
        if model_name in self.loaded:
            return 409, b"loaded already"
        if len(self.loaded) >= self.room:
            return 507, b"no memory"
        self.loaded[model_name] = url
        return 200, b""


def archive(**files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "s3")
    for name in ("a", "b", "c"):
        store.put(f"{PREFIX}{name}.tar.gz", archive(config=name))
    return store


@pytest.fixture
def models():
    return Models(room=2)


@pytest.fixture
def container(tmp_path, models):
    container = SmallContainer(models.answer, tmp_path / "ml")
    yield container
    container.stop()


@pytest.fixture
def front(container, store):
    return Front(container, store, PREFIX)


def ask(front, container, target, body=b"body"):
    with contextlib.ExitStack() as opened:

        def send(path):
            connection = http.client.HTTPConnection(container.url.removeprefix("http://"), timeout=30)
            opened.callback(connection.close)
            connection.request("POST", path, body, {"X-Amzn-SageMaker-Target-Model": target})
            return connection.getresponse()

        answer = front.invoke(target, send)
        return answer.status, answer.read().decode()


def test_a_model_is_loaded_when_it_is_first_asked_for(front, container, models):
    a = model_name("a.tar.gz")
    assert ask(front, container, "a.tar.gz") == (200, f"a.tar.gz of /opt/ml/models/{a}/model")
    assert (container.base_dir / "models" / a / "model" / "config").read_text() == "a"
    assert ask(front, container, "a.tar.gz")[0] == 200
    assert models.calls == [("POST", "/models"), *[("POST", f"/models/{a}/invoke")] * 2]


def test_the_least_recently_used_makes_room(front, container, models):
    for target in ("a.tar.gz", "b.tar.gz", "a.tar.gz", "c.tar.gz"):
        assert ask(front, container, target)[0] == 200
    assert set(models.loaded) == {model_name("a.tar.gz"), model_name("c.tar.gz")}
    assert ask(front, container, "b.tar.gz")[0] == 200
    assert set(models.loaded) == {model_name("b.tar.gz"), model_name("c.tar.gz")}


def test_a_model_for_which_there_is_no_room_is_a_model_error(front, container, models):
    models.room = 0
    with pytest.raises(AwsError, match="no memory") as error:
        ask(front, container, "a.tar.gz")
    assert (error.value.code, error.value.status) == ("ModelError", 424)
    assert error.value.more == {"OriginalStatusCode": 507, "OriginalMessage": "no memory"}


def test_a_model_that_the_container_has_lost_is_loaded_again(front, container, models):
    ask(front, container, "a.tar.gz")
    models.loaded.clear()
    assert ask(front, container, "a.tar.gz")[0] == 200
    assert set(models.loaded) == {model_name("a.tar.gz")}


def test_a_models_own_404_is_its_answer(front, container, models):
    assert ask(front, container, "a.tar.gz", b"unknown") == (404, "no such customer")
    assert models.calls.count(("POST", "/models")) == 1
    assert models.calls.count(("POST", f"/models/{model_name('a.tar.gz')}/invoke")) == 1


def test_a_model_that_the_container_has_already_is_used(front, container, models):
    models.loaded[model_name("a.tar.gz")] = "/kept"
    assert ask(front, container, "a.tar.gz") == (200, "a.tar.gz of /kept")


def test_an_object_that_is_not_there_is_said_as_aws_says_it(front, container, models):
    for target in ("none.tar.gz", "../../etc/passwd"):
        with pytest.raises(ValidationError, match=r"Failed to download model data\(bucket: models, key: some/"):
            ask(front, container, target)
    assert models.calls == []


def test_what_is_no_archive_is_refused(front, container, store, models):
    store.put(f"{PREFIX}text.tar.gz", b"text")
    with pytest.raises(ValidationError, match=r"valid tar\.gz archive"):
        ask(front, container, "text.tar.gz")
    store.put(f"{PREFIX}text.tar.gz", archive(config="mended"))
    assert ask(front, container, "text.tar.gz")[0] == 200


def test_a_load_that_fails_is_told_and_tried_again(front, container, models):
    models.broken.add(model_name("a.tar.gz"))
    with pytest.raises(AwsError, match=r"Received server error \(500\) from model with message .*has a bug"):
        ask(front, container, "a.tar.gz")
    models.broken.clear()
    assert ask(front, container, "a.tar.gz")[0] == 200


def test_a_load_that_takes_too_long_is_told_and_goes_on(container, store, models):
    front = Front(container, store, PREFIX, patience=0.05)
    models.gate.clear()
    for _ in range(2):
        with pytest.raises(AwsError) as error:
            ask(front, container, "a.tar.gz")
        assert (error.value.code, error.value.status) == ("ModelNotReadyException", 429)
    models.gate.set()
    assert ask(Front(container, store, PREFIX), container, "a.tar.gz")[0] == 200
    assert models.calls.count(("POST", "/models")) == 2


def test_many_who_ask_at_once_wait_for_one_load(front, container, models):
    models.gate.clear()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(front, container, "a.tar.gz")[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    models.gate.set()
    for thread in threads:
        thread.join(30)
    assert answers == [200] * 8
    assert models.calls.count(("POST", "/models")) == 1


def test_a_container_that_is_gone_is_a_model_error(front, container):
    container.stop()
    with pytest.raises(AwsError) as error:
        ask(front, container, "a.tar.gz")
    assert error.value.more["OriginalStatusCode"] == 0
