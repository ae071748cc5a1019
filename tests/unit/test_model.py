import asyncio
import json
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hfserve import hooks
from hfserve.errors import BadRequest, HookError, InvalidInput, LoadError, ModelError, NotAcceptable, ServeError
from hfserve.messages import Item, Reply, Request
from hfserve.model import HookModel, TaskModel, run_or_retry
from hfserve.settings import Settings
from hfserve.tasks import fetch
from hfserve.tasks.base import Task

JSON = "application/json"
LINES = "application/jsonlines"


def ask(body=b"{}", content_type=JSON, accept="", **headers):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(body, {"content-type": content_type, "accept": accept, **named}, "r-1", time.monotonic() + 60)


def answer(model, request):
    job = model.prepare(request)
    if job.stream:
        body = b"".join(part.answered(model.run(part.items, 1)) for part in job.stream.parts)
        return Reply(body=body, content_type=job.stream.content_type)
    return job.finish(model.run(job.items, 1))


def together(model, *requests):
    """Replies, or errors, of requests that share a batch."""
    jobs = [model.prepare(request) for request in requests]
    outcomes = iter(model.run([item for job in jobs for item in job.items], 1))
    replies = []
    for job in jobs:
        try:
            replies.append(job.finish([next(outcomes) for _ in job.items]))
        except ServeError as error:
            replies.append(error)
    return replies


class Shouting:
    """A task that shouts; words that begin with `bad` break the whole pass, `rude` ones fail by themselves."""

    concurrent = True

    def __init__(self, example="hello", native="somewhere:Shouting"):
        self.task = Task("shouting", "TEXT", "TEXT", example, native=native)
        self.passes = []

    def items(self, data):
        inputs = data["inputs"] if isinstance(data, dict) else data
        inputs = inputs if isinstance(inputs, list) else [inputs]
        if not all(isinstance(each, str) for each in inputs):
            raise InvalidInput("inputs should be text")
        return [Item(each, cost=len(each)) for each in inputs]

    def run(self, items):
        self.passes.append([item.data for item in items])
        if any(item.data.startswith("bad") for item in items):
            raise ValueError("the whole pass broke")
        return [InvalidInput("rude") if item.data == "rude" else item.data.upper() for item in items]

    def result(self, data, results):
        many = isinstance(data["inputs"] if isinstance(data, dict) else data, list)
        return list(results) if many else results[0]


def shouting(**changes):
    runner = Shouting()
    return TaskModel(runner, Settings.read().model_copy(update=changes)), runner


# A shared pass


def test_a_pass_that_raises_is_run_again_singly_and_only_the_guilty_fails():
    model, runner = shouting()
    first, guilty, third = together(model, ask({"inputs": "a"}), ask({"inputs": "bad"}), ask({"inputs": "c"}))
    assert (first.body, third.body) == (b'"A"', b'"C"')
    assert isinstance(guilty, ModelError) and "the whole pass broke" in str(guilty)
    assert runner.passes == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]


def test_a_good_pass_is_run_once():
    model, runner = shouting()
    assert answer(model, ask({"inputs": ["a", "b"]})).body == b'["A","B"]'
    assert runner.passes == [["a", "b"]]


def test_one_item_that_raises_is_not_tried_again():
    model, runner = shouting()
    with pytest.raises(ModelError):
        answer(model, ask({"inputs": "bad"}))
    assert runner.passes == [["bad"]]


def test_an_item_that_fails_by_itself_keeps_its_status():
    model, runner = shouting()
    good, rude = together(model, ask({"inputs": "a"}), ask({"inputs": "rude"}))
    assert good.body == b'"A"' and isinstance(rude, InvalidInput)
    assert runner.passes == [["a", "rude"]]


def test_an_error_with_a_status_keeps_it_through_the_retry():
    def run(items):
        if 2 in items:
            raise InvalidInput("two")
        return items

    first, second, third = run_or_retry(run, [1, 2, 3])
    assert (first, third) == (1, 3) and isinstance(second, InvalidInput)
    assert run_or_retry(run, []) == []


@pytest.mark.parametrize("count", [0, 2])
def test_a_pass_with_another_number_of_outcomes_is_an_error_for_all(count):
    model, runner = shouting()
    runner.run = lambda items: ["x"] * count
    outcomes = model.run([Item("a"), Item("b"), Item("c")], 1)
    assert len(outcomes) == 3 and all(isinstance(outcome, ModelError) for outcome in outcomes)


# Requests and records


def test_each_record_gets_its_own_answer_in_order():
    model, _ = shouting()
    body = b'{"inputs": "a"}\n{"inputs": ["b", "c"]}\n"d"\n'
    reply = answer(model, ask(body, LINES))
    assert (reply.body, reply.content_type) == (b'"A"\n["B","C"]\n"D"\n', LINES)


def test_records_are_answered_as_json_when_that_is_asked_for():
    model, _ = shouting()
    reply = answer(model, ask(b'"a"\n"b"\n', LINES, accept=JSON))
    assert (json.loads(reply.body), reply.content_type) == (["A", "B"], JSON)


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [(b'{"inputs": 3}', InvalidInput, "record 2: inputs should be text"), (b"{broken", BadRequest, "record 2: ")],
)
def test_a_bad_record_is_told_by_its_number(line, kind, words):
    model, runner = shouting()
    with pytest.raises(kind, match=words):
        answer(model, ask(b'"a"\n' + line + b"\n", LINES))
    assert runner.passes == []


def test_one_request_has_no_record_number_in_its_error():
    model, _ = shouting()
    with pytest.raises(InvalidInput, match=r"^inputs should be text$"):
        model.prepare(ask({"inputs": 3}))


def test_a_request_has_no_more_items_than_it_may():
    model, _ = shouting(max_items=3)
    assert answer(model, ask({"inputs": ["a"] * 3})).status == 200
    with pytest.raises(InvalidInput, match="4 inputs in one request; this server takes 3"):
        model.prepare(ask({"inputs": ["a"] * 4}))
    assert answer(model, ask(b'["a", "b"]\n["c", "d"]\n', LINES)).body == b'["A","B"]\n["C","D"]\n'
    with pytest.raises(InvalidInput, match="record 2: 4 inputs"):
        answer(model, ask(b'["a"]\n["a", "b", "c", "d"]\n', LINES))


def test_a_request_without_inputs_is_answered_with_none():
    model, runner = shouting()
    assert answer(model, ask({"inputs": []})).body == b"[]"
    assert not any(runner.passes)


def test_a_table_is_one_list_of_inputs():
    model, _ = shouting()
    assert json.loads(answer(model, ask(b"inputs\na\nb\n", "text/csv", accept=JSON)).body) == ["A", "B"]


def test_parameters_beside_the_body_reach_the_task_and_the_hooks(hooked):
    seen = []

    class Listening(Shouting):
        def items(self, data):
            seen.append(data)
            return super().items(data)

    raw = ask(b"hello", "text/plain", x_hf_parameters='{"loud": 1, "long": true}')
    request = Request(raw.body, raw.headers, "r-1", raw.deadline, "loud=2")
    merged = {"inputs": "hello", "parameters": {"loud": 2, "long": True}}
    assert json.loads(answer(TaskModel(Listening(), Settings.read()), request).body) == "HELLO" and seen == [merged]
    model = hooked("def predict_fn(data, model): return data")
    assert json.loads(answer(model, request).body) == merged


def test_a_bad_header_of_parameters_is_the_clients_mistake():
    with pytest.raises(BadRequest, match="X-HF-Parameters"):
        shouting()[0].prepare(ask({"inputs": "a"}, x_hf_parameters="top_k=2"))


def test_what_is_fetched_for_a_request_is_there_by_its_deadline():
    request = ask({"inputs": "a"})
    shouting()[0].prepare(request)
    assert fetch.until.get() == request.deadline


def test_a_form_that_cannot_be_given_is_refused():
    model, _ = shouting()
    with pytest.raises(NotAcceptable):
        answer(model, ask({"inputs": "a"}, accept="image/png"))


def test_a_model_is_warmed_with_its_tasks_example():
    model, runner = shouting()
    model.warm_up()
    assert runner.passes == [["hello"], ["hello"]]


def test_a_model_that_cannot_answer_its_example_is_not_ready():
    with pytest.raises(LoadError, match="cannot answer"):
        TaskModel(Shouting("bad"), Settings.read()).warm_up()


# Hooks


@pytest.fixture
def hooked(tmp_path, monkeypatch):
    """A model with the hooks that a source defines; the model itself is `model`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(hooks, "_code_dirs", [])

    def load(source="", *, model=None, runner=None, handler=None, **changes):
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / "inference.py").write_text(textwrap.dedent(source))
        found = hooks.find(code, "inference.py", handler) if source else hooks.Hooks()
        settings = Settings.read().model_copy(update=changes)
        return HookModel(found, model, runner, settings, model_dir=Path("/m"), gpu_id=None)

    yield load
    sys.modules.pop("inference", None)


def test_all_hooks_follow_each_other(hooked):
    model = hooked("""
        def input_fn(body, content_type):
            return body, content_type

        def predict_fn(data, model):
            return [*data, model]

        def output_fn(prediction, accept):
            return repr((prediction, accept))
    """, model="m")  # fmt: skip
    reply = answer(model, ask(b"x", "Text/X-Own; charset=ascii", accept="text/plain"))
    assert reply.body.decode() == "([b'x', 'text/x-own', 'm'], 'text/plain')"
    assert (reply.status, reply.content_type) == (200, "text/plain")


@pytest.mark.parametrize(
    ("content_type", "body", "seen"),
    [
        (JSON, b'{"a": "\xc3\xa9"}', '{"a": "é"}'),
        ("application/json; charset=utf-8", b"1", "1"),
        ("text/csv", b"a,b", "a,b"),
        ("text/csv; charset=latin-1", b"\xe9", "é"),
        ("", b"{}", "{}"),
        ("application/octet-stream", b"\xff", b"\xff"),
        ("image/png", b"\x89PNG", b"\x89PNG"),
        ("application/x-npy", b"\x93", b"\x93"),
        ("text/plain", b"words", b"words"),
    ],
)
def test_hooks_get_text_for_json_and_csv_and_bytes_otherwise(content_type, body, seen, hooked):
    source = """
        got = []

        def {name}({arguments}):
            got.append(body)
            return b""
    """
    for name, arguments in (("input_fn", "body, content_type"), ("transform_fn", "model, body, content_type, accept")):
        model = hooked(source.format(name=name, arguments=arguments), model=lambda data: b"")
        answer(model, ask(body, content_type))
        (got,) = sys.modules["inference"].got
        assert (type(got), got) == (type(seen), seen)


def test_a_body_that_is_not_the_text_it_claims_to_be_is_the_clients_mistake(hooked):
    model = hooked("def input_fn(body, content_type):\n    return body\n", model=str)
    with pytest.raises(ServeError) as told:
        answer(model, ask(b"\xff\xfe\xff"))
    assert told.value.status in (400, 422)


def test_the_default_prediction_takes_inputs_and_parameters_out_of_the_body(hooked):
    model = hooked(model=lambda inputs, **parameters: [inputs, parameters])
    assert json.loads(answer(model, ask({"inputs": "a", "parameters": {"k": 1}})).body) == ["a", {"k": 1}]
    assert json.loads(answer(model, ask({"inputs": "a", "parameters": None})).body) == ["a", {}]
    assert json.loads(answer(model, ask({"inputs": "a"})).body) == ["a", {}]
    assert json.loads(answer(model, ask({"question": "q"})).body) == [{"question": "q"}, {}]
    assert json.loads(answer(model, ask(["a", "b"])).body) == [["a", "b"], {}]


def test_a_task_stands_in_for_the_hooks_that_are_not_there(hooked):
    runner = Shouting()
    model = hooked("def output_fn(prediction, accept):\n    return str(prediction) + '!'\n", runner=runner)
    assert answer(model, ask({"inputs": "a"})).body == b"A!"
    assert answer(model, ask({"inputs": ["a", "b"]})).body == b"['A', 'B']!"
    with pytest.raises(InvalidInput):
        answer(model, ask({"inputs": 3}))


def test_hooks_written_for_one_get_one_at_a_time(hooked):
    model = hooked("def predict_fn(data, model):\n    return data['n'] * 2\n")
    replies = together(model, *(ask({"n": n}) for n in range(3)))
    assert [reply.body for reply in replies] == [b"0", b"2", b"4"]
    first, second = (model.prepare(ask()).items[0].batch_key for _ in range(2))
    assert first != second


BATCHED = """
    calls = []

    def predict_batch_fn(items, model):
        calls.append([item["n"] for item in items])
        if 13 in calls[-1]:
            raise ValueError("unlucky")
        return [item["n"] * 2 for item in items]
"""


def test_hooks_written_for_many_get_them_together(hooked):
    model = hooked(BATCHED)
    replies = together(model, *(ask({"n": n}) for n in range(3)))
    assert [reply.body for reply in replies] == [b"0", b"2", b"4"]
    assert sys.modules["inference"].calls == [[0, 1, 2]]
    assert model.prepare(ask()).items[0].batch_key == model.prepare(ask()).items[0].batch_key


def test_of_many_only_the_guilty_fails(hooked):
    model = hooked(BATCHED)
    first, guilty, unread, last = together(model, ask({"n": 1}), ask({"n": 13}), ask(b"{broken"), ask({"n": 3}))
    assert (first.body, last.body) == (b"2", b"6")
    assert isinstance(guilty, ModelError) and "ValueError: unlucky" in str(guilty)
    assert isinstance(unread, BadRequest)
    assert sys.modules["inference"].calls == [[1, 13, 3], [1], [13], [3]]


@pytest.mark.parametrize("answers", ["[]", "items + items", "(item for item in items[1:])"])
def test_a_batch_hook_that_answers_for_too_few_or_too_many_is_told_so(answers, hooked):
    model = hooked(f"def predict_batch_fn(items, model):\n    return {answers}\n")
    for failed in together(model, ask({"n": 1}), ask({"n": 2})):
        assert isinstance(failed, ModelError)
        assert "predict_batch_fn got 1 items and returned" in str(failed)


def test_a_batch_hook_may_answer_one_of_its_items_with_an_error(hooked):
    model = hooked("""
        from hfserve.errors import InvalidInput

        def predict_batch_fn(items, model):
            return [item["n"] if item["n"] else InvalidInput("nothing") for item in items]
    """)
    first, second, third = together(model, *(ask({"n": n}) for n in (1, 0, 3)))
    assert (first.body, third.body) == (b"1", b"3") and isinstance(second, InvalidInput)


def test_transform_fn_does_all_the_work(hooked):
    model = hooked("""
        def transform_fn(model, body, content_type, accept):
            return f"{model} {body} {content_type} {accept}", "text/x-own"
    """, model="m")  # fmt: skip
    reply = answer(model, ask(b"1"))
    assert (reply.body, reply.content_type) == (b"m 1 application/json application/json", "text/x-own")


def test_a_service_of_mms_gets_the_body_and_answers_for_it(hooked):
    model = hooked(
        "def handle(data, context):\n    return [{'got': data[0]['body'].decode()}]\n", handler="inference:handle"
    )
    assert answer(model, ask(b"abc")).body == b'{"got":"abc"}'


@pytest.mark.parametrize("answers", ["None", "[]", "[1, 2]", "'x'"])
def test_a_service_of_mms_that_answers_for_too_few_or_too_many_is_told_so(answers, hooked):
    model = hooked(f"def handle(data, context):\n    return {answers}\n", handler="inference")
    with pytest.raises(ModelError, match="one answer for each"):
        answer(model, ask(b"abc"))


# What hooks return


@pytest.mark.parametrize(
    ("returned", "accept", "body", "content_type"),
    [
        ("'wörd'", "text/plain", "wörd".encode(), "text/plain"),
        ("b'\\x00'", "audio/wav", b"\0", "audio/wav"),
        ("bytearray(b'x')", "", b"x", JSON),
        ("('a', 'text/html')", JSON, b"a", "text/html"),
        ("(b'a', 'text/html')", "", b"a", "text/html"),
        ("{'a': 1}", "", b'{"a":1}', JSON),
        ("({'a': 1}, 'application/json')", "text/csv", b'{"a":1}', JSON),
        ("({'a': 1}, 'application/jsonlines')", "", b'{"a":1}\n', LINES),
        ("[1, 2]", "application/jsonlines", b"1\n2\n", LINES),
        ("None", "*/*", b"null", JSON),
    ],
    ids=str,
)
def test_an_answer_is_a_body_or_a_body_with_its_type(returned, accept, body, content_type, hooked):
    model = hooked(f"def output_fn(prediction, accept):\n    return {returned}\n", model=lambda inputs: inputs)
    reply = answer(model, ask(accept=accept))
    assert (reply.body, reply.content_type) == (body, content_type)


def test_an_answer_that_has_to_be_json_is_called_json(hooked):
    model = hooked("def output_fn(prediction, accept):\n    return {'a': 1}\n", model=lambda inputs: inputs)
    reply = answer(model, ask(accept="image/png"))
    assert (reply.body, reply.content_type) == (b'{"a":1}', JSON)


def test_without_output_fn_the_answer_has_the_form_that_was_asked_for(hooked):
    model = hooked(model=lambda inputs: inputs)
    assert answer(model, ask([[1, 2], [3, 4]], accept="text/csv")).body.split() == [b"1,2", b"3,4"]
    assert answer(model, ask({"a": 1})).content_type == JSON
    assert answer(hooked(model=lambda inputs: b"\x00wav"), ask(accept="audio/wav")).body == b"\x00wav"
    with pytest.raises(NotAcceptable):
        answer(model, ask({"a": 1}, accept="image/png"))


def test_hooks_choose_status_headers_and_type_by_the_context(hooked):
    model = hooked("""
        def predict_fn(data, model, context):
            context.set_response_status(202)
            asked = context.get_request_header(0, "X-Asked")
            context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", asked)
            context.set_response_content_type(0, "application/vnd.own+json")
            return data
    """)
    reply = answer(model, ask({"a": 1}, x_asked="it"))
    assert (reply.status, reply.content_type, reply.body) == (202, "application/vnd.own+json", b'{"a":1}')
    assert reply.headers == {"x-amzn-sagemaker-custom-attributes": "it"}


def test_what_one_request_sets_is_not_seen_by_the_next(hooked):
    model = hooked("""
        def predict_fn(data, model, context):
            if data:
                context.set_response_status(data)
            return context.get_request_id()
    """)
    first, second = together(model, ask(418), ask(0))
    assert (first.status, second.status, second.body) == (418, 200, b'"r-1"')


GENERATORS = {
    "output_fn": "def output_fn(prediction, accept):\n    yield 'a'\n    yield {'b': 1}\n",
    "predict_fn": "def predict_fn(data, model):\n    yield 'a'\n    yield {'b': 1}\n",
    "transform_fn": "def transform_fn(model, body, content_type, accept):\n    yield 'a'\n    yield {'b': 1}\n",
    "async": "async def predict_fn(data, model):\n    yield 'a'\n    yield {'b': 1}\n",
    "iterator": "def predict_fn(data, model):\n    return iter(['a', {'b': 1}])\n",
    "with a type": "def output_fn(prediction, accept):\n    return iter(['a', {'b': 1}]), 'text/event-stream'\n",
}


@pytest.mark.parametrize("form", GENERATORS)
def test_a_generator_becomes_the_chunks_of_a_stream(form, hooked):
    reply = answer(hooked(GENERATORS[form], model=lambda inputs: inputs), ask(accept="text/event-stream"))

    async def collect():
        return [chunk async for chunk in reply.chunks]

    assert asyncio.run(collect()) == [b"a", b'data: {"b":1}\n\n']
    assert (reply.body, reply.content_type) == (b"", "text/event-stream")


# Hooks that fail

FAILING = """
    from hfserve.errors import InvalidInput

    def helper():
        raise {error}

    def {name}({arguments}):
        helper()
"""
EACH = {"input_fn": "body, kind", "predict_fn": "data, model", "output_fn": "data, accept"}


@pytest.mark.parametrize("name", EACH)
def test_a_hook_may_say_that_the_input_is_wrong(name, hooked):
    source = FAILING.format(error="InvalidInput('no such voice')", name=name, arguments=EACH[name])
    with pytest.raises(InvalidInput, match=r"^no such voice$"):
        answer(hooked(source, model=lambda inputs: inputs), ask())


@pytest.mark.parametrize("name", [*EACH, "transform_fn", "predict_batch_fn"])
def test_whatever_else_a_hook_raises_is_told_with_the_users_line(name, hooked):
    takes = {**EACH, "transform_fn": "model, body, kind, accept", "predict_batch_fn": "items, model"}
    model = hooked(
        FAILING.format(error="KeyError('voice')", name=name, arguments=takes[name]), model=lambda inputs: inputs
    )
    with pytest.raises(ModelError, match=r"^KeyError: 'voice' \(code/inference\.py:5\)$"):
        answer(model, ask())


def test_a_hook_that_fails_leaves_the_others_of_its_batch_alone(hooked):
    model = hooked("def predict_fn(data, model):\n    return 6 // data\n")
    good, bad, unread = together(model, ask(2), ask(0), ask(b"{"))
    assert good.body == b"3"
    assert isinstance(bad, ModelError) and "ZeroDivisionError" in str(bad)
    assert isinstance(unread, BadRequest)


def test_what_the_model_raises_is_told_too(hooked):
    def broken(inputs):
        raise RuntimeError("no memory of that")

    with pytest.raises(ModelError, match=r"^RuntimeError: no memory of that$"):
        answer(hooked(model=broken), ask())


def test_a_warm_up_of_the_users_is_run_with_the_model(hooked):
    model = hooked("""
        warmed = []

        def model_warmup_fn(model_dir, model):
            warmed.append((model_dir, model))
    """, model="m")  # fmt: skip
    model.warm_up()
    assert sys.modules["inference"].warmed == [("/m", "m")]


def test_a_warm_up_of_the_users_that_fails_is_told_with_its_line(hooked):
    model = hooked("def model_warmup_fn(model_dir, model):\n    raise ValueError('cold')\n")
    with pytest.raises(HookError, match=r"model_warmup_fn raised ValueError: cold \(code/inference\.py:2\)"):
        model.warm_up()
