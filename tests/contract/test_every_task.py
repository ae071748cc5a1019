"""Every task of the table through a door: its example is answered as declared, its ill-formed twins are refused.

What the tasks do is the same behind every door: usually one task of each kind of answer is asked (all of them in
process, in tests/unit/test_generated_requests.py), thoroughly all of them, and those through Multi Model Server too.

A server is started for each task and engine; the next one loads while one is asked.
"""

import hypothesis
import jsonschema
import pytest
import schemathesis

import zoo
from hfserve.tasks.table import TASKS
from server import Server, assert_error, thoroughly

OF_EACH_KIND = list({task.gives: name for name, task in reversed(TASKS.items())}.values())
OTHERS = [task for task in TASKS if task not in OF_EACH_KIND]
KEYS = [*((task, "asgi") for task in OF_EACH_KIND + OTHERS), *((task, "mms") for task in OF_EACH_KIND)]
USUAL = len(OF_EACH_KIND)
CHANCE = {"text-to-audio", "text-to-image"}
"""Tasks whose answers differ from time to time."""
BOUNDS = {"HFSERVE_MAX_NEW_TOKENS": "8", "HFSERVE_MAX_PIXELS": "20000", "HFSERVE_MAX_LABELS": "20"}


class Fleet:
    """Servers by task and engine: the one that is asked for, and the next."""

    def __init__(self, folder):
        self._folder = folder
        self._running = {}

    def get(self, key):
        number = KEYS.index(key)
        now = KEYS[number : number + (1 if number == USUAL - 1 else 2)]
        for other in set(self._running) - set(now):
            self._running.pop(other).__exit__()
        for wanted in now:
            if wanted not in self._running:
                self._running[wanted] = self._start(*wanted)
        self._running[key].wait_until_ready()
        return self._running[key]

    def _start(self, task, engine):
        model = self._folder / task
        if not model.exists():
            zoo.build(task, model)
        return Server(model, engine=engine, ready=False, HF_TASK=task, **BOUNDS).__enter__()

    def close(self):
        for server in self._running.values():
            server.__exit__()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("models"))
    yield fleet
    fleet.close()


@pytest.fixture(scope="module", params=[thoroughly(key, i >= USUAL) for i, key in enumerate(KEYS)], ids="-".join)
def key(request):
    return request.param


@pytest.fixture(scope="module")
def server(fleet, key):
    return fleet.get(key)


def _valid(value, schema, document):
    jsonschema.validate(value, {**schema, "components": document["components"]}, jsonschema.Draft202012Validator)


def _near(one, other):
    """Equal but for the last digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_near, one, other))
    return one == pytest.approx(other, abs=1e-3) if isinstance(one, float) else one == other


def test_a_task_is_answered_as_declared(server, key):
    document = server.client.get("/openapi.json").json()
    post = document["paths"]["/invocations"]["post"]
    asked = post["requestBody"]["content"]["application/json"]
    answered = post["responses"]["200"]["content"]["application/json"]
    example = asked["examples"]["example"]["value"]
    _valid(example, asked["schema"], document)

    reply = server.post(json=example)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    _valid(answer, answered["schema"], document)
    assert key[0] in CHANCE or _near(answered["examples"]["example"]["value"], answer)

    listed = server.post(json={**example, "inputs": [example["inputs"]] * 2})
    assert listed.status_code == 200, listed.text
    assert len(listed.json()) == 2
    _valid(listed.json(), answered["schema"], document)

    for twin, words in (
        ({**example, "parameters": {**example.get("parameters", {}), "no_such": 1}}, ["parameters.no_such"]),
        ({**example, "inputs": 12345}, ["inputs"]),
        ({**example, "inputs": [example["inputs"], None]}, ["inputs[1]"]),
        ({**example, "parameters": [1]}, ["parameters"]),
    ):
        assert_error(server.post(json=twin), 422, words=words)


def test_no_generated_request_gets_a_server_error(server):
    """A few through the doors; tests/unit/test_generated_requests.py has many, in process."""
    document = server.client.get("/openapi.json").json()
    operation = schemathesis.openapi.from_dict(document)["/invocations"]["POST"]

    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=5, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    def ask(case):
        reply = case.call(base_url=server.url)
        assert reply.status_code < 500, (reply.text, case.as_curl_command()[:2000])

    ask()
