"""question-answering answers as the pipeline of transformers 4.57.6 did, one request at a time or many."""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

import tiny
from hfserve.errors import InvalidInput, LoadError
from hfserve.messages import Request
from hfserve.model import TaskModel
from hfserve.runtimes import tokenizing
from hfserve.runtimes.packing import is_packed
from hfserve.settings import Options, Settings
from hfserve.tasks import question_answering
from hfserve.tasks.detect import detect
from hfserve.tasks.question_answering import QuestionAnswering
from hfserve.tasks.table import TASKS

torch.set_num_threads(1)

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "question_answering.json").read_text(encoding="utf-8"))
REQUESTS = GOLDEN["requests"]
TASK = TASKS["question-answering"]
LONG = "The food was good in London, and the service was not bad. " * 40
ASKED = {"question": "Where?", "context": "In London."}


@pytest.fixture(scope="module", params=list(GOLDEN["answers"]))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory):
    return tiny.build(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def runner(folder):
    return QuestionAnswering(TASK, folder, Options())


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tiny.build("question-answering", tmp_path_factory.mktemp("bert"))
    return QuestionAnswering(TASK, folder, Options())


def _ask(runner, data):
    return runner.result(data, runner.run(runner.items(data)))


def near(value):
    """Equal to the same answers whose scores differ by a thousandth of themselves at most."""
    if isinstance(value, list):
        return [near(each) for each in value]
    return {**value, "score": pytest.approx(value["score"], rel=1e-3, abs=1e-7)}


def test_the_goldens_tell_answers_apart():
    """The scores of a list lie further from each other than the arithmetic of two machines."""
    for answers in GOLDEN["answers"].values():
        lone = [answer for data, answer in zip(REQUESTS, answers, strict=True) if _is_lone(data["inputs"])]
        gaps = [one["score"] - two["score"] for each in lone if isinstance(each, list) for one, two in pairwise(each)]
        assert len(gaps) > 20 and min(gaps) > 1e-5


def _is_lone(inputs):
    return isinstance(inputs, dict) and isinstance(inputs["question"], str)


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_every_request_is_answered_as_the_pipeline_did(runner, name, number):
    assert _ask(runner, REQUESTS[number]) == near(GOLDEN["answers"][name][number])


def test_requests_of_all_lengths_and_parameters_share_a_pass(runner, name):
    apart = [runner.items(data) for data in REQUESTS]
    outcomes = iter(runner.run([item for items in apart for item in items]))
    together = [
        runner.result(data, [next(outcomes) for _ in items]) for data, items in zip(REQUESTS, apart, strict=True)
    ]
    assert len({item.batch_key for items in apart for item in items}) == 1
    assert together == [near(_ask(runner, data)) for data in REQUESTS]
    assert together == near(GOLDEN["answers"][name])


def test_an_item_costs_the_tokens_of_its_windows(runner):
    (short,) = runner.items({"inputs": ASKED})
    (long,) = runner.items({"inputs": {"question": "Where?", "context": LONG}})
    assert len(short.data.windows) == 1 and len(long.data.windows) > 5
    assert short.cost == len(short.data.windows[0].inputs["input_ids"])
    assert long.cost == sum(len(window.inputs["input_ids"]) for window in long.data.windows)


def test_a_context_of_many_windows_runs_a_few_at_a_time(bert, monkeypatch):
    data = {"inputs": {"question": "Where?", "context": LONG}, "parameters": {"doc_stride": 60}}
    whole = _ask(bert, data)
    seen = []
    hook = bert._model.model.register_forward_pre_hook(
        lambda _, given, named: seen.append(int(named["attention_mask"].sum())), with_kwargs=True
    )
    monkeypatch.setattr("hfserve.runtimes.torch.MOST_TOKENS", 400)
    assert _ask(bert, data) == near(whole)
    hook.remove()
    assert len(seen) > 2 and max(seen) <= 400


def test_windows_lie_in_one_row_and_company_changes_no_score(runner):
    assert is_packed(runner._model.model)
    windows = [window.inputs for data in REQUESTS for item in runner.items(data) for window in item.data.windows]
    for together, window in zip(runner._model(windows), windows, strict=True):
        (alone,) = runner._model([window])
        assert alone.shape == (len(window["input_ids"]), 2)
        torch.testing.assert_close(together.softmax(0), alone.softmax(0), atol=1e-5, rtol=0)


def test_a_body_is_read_in_every_form(bert):
    answer = _ask(bert, {"inputs": ASKED})
    assert set(answer) == {"score", "start", "end", "answer"}
    assert answer["answer"] == ASKED["context"][answer["start"] : answer["end"]]
    assert _ask(bert, ASKED) == _ask(bert, {"inputs": [ASKED]}) == answer
    assert _ask(bert, [ASKED, ASKED]) == [near(answer)] * 2
    assert _ask(bert, {"inputs": {**ASKED, "question": ["Where?", "Where?"]}}) == [near(answer)] * 2
    assert _ask(bert, {"inputs": []}) == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", json.dumps({"inputs": ASKED})),
        ("application/json", json.dumps(ASKED)),
        ("text/csv", "question,context\nWhere?,In London.\n"),
        ("application/jsonlines", json.dumps({"inputs": ASKED}) + "\n"),
    ],
)
def test_a_request_is_answered_whatever_its_type(bert, content_type, body):
    model = TaskModel(bert, Settings(model_dir=Path(), _env_file=None))
    model.warm_up()
    job = model.prepare(Request(body.encode(), {"content-type": content_type}, "1", float("inf")))
    if job.stream:
        (part,) = job.stream.parts
        answer = part.answered(model.run(part.items, 1))
    else:
        answer = job.finish(model.run(job.items, 1)).body
    assert json.loads(answer) == near(_ask(bert, ASKED))


def test_a_text_without_tokens_has_no_answer(bert):
    for parameters in ({}, {"top_k": 3}):
        answer = _ask(bert, {"inputs": {"question": "Where?", "context": " \u0007"}, "parameters": parameters})
        assert answer in ([], {"score": 0.0, "start": 0, "end": 0, "answer": ""})


def test_fewer_tokens_than_answers_asked_for(bert):
    answer = _ask(bert, {"inputs": {"question": "Where?", "context": "Paris"}, "parameters": {"top_k": 50}})
    best, *rest = answer if isinstance(answer, list) else [answer]
    assert best["answer"] == "Paris" and best["score"] > 0.1 and not any(other["score"] for other in rest)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ("Where?", r"inputs is a string; question-answering takes \{\"question\", \"context\"\}"),
        (["Where?", "In London."], r"inputs\[0\] is a string"),
        ({"question": "Where?"}, r"inputs.context is missing"),
        ({"context": "Here."}, r"inputs.question is missing"),
        ({**ASKED, "top_k": 3}, r"inputs.top_k: not known; there are question, context"),
        ({**ASKED, "question": ""}, r"inputs.question is empty"),
        ({**ASKED, "context": ""}, r"inputs.context is empty"),
        ({**ASKED, "context": None}, r"inputs.context is null; it has to be a string"),
        ({**ASKED, "context": [ASKED["context"]]}, r"inputs.context is a list; it has to be a string"),
        ({**ASKED, "question": ["Where?", ""]}, r"inputs.question\[1\] is empty"),
        ({"question": ["a", "b"], "context": ["c"]}, r"inputs.question has 2 questions and inputs.context 1 contexts"),
        ([ASKED, {**ASKED, "context": ""}], r"inputs\[1\].context is empty"),
        ([{**ASKED, "question": ["Where?"]}], r"inputs\[0\].question is a list; it has to be a string"),
    ],
)
def test_wrong_inputs_are_named(bert, inputs, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        bert.items({"inputs": inputs})


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"temperature": 1}, r"parameters.temperature: not known; there are top_k, .*doc_stride"),
        ({"top_k": 0}, r"parameters.top_k: .*greater than or equal to 1"),
        ({"topk": 0}, r"parameters.topk: "),
        ({"max_answer_len": 0}, r"parameters.max_answer_len: "),
        ({"max_seq_len": "long"}, r"parameters.max_seq_len: "),
        ({"doc_stride": -1}, r"parameters.doc_stride: "),
        ({"doc_stride": 96}, r"parameters.doc_stride: 96 has to be less than the 96 tokens of a window"),
    ],
)
def test_wrong_parameters_are_named(bert, parameters, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        bert.items({"inputs": ASKED, "parameters": parameters})


@pytest.mark.parametrize(
    ("question", "parameters"),
    [
        ("Where, oh where, was it that the food was good?", {"max_seq_len": 40}),
        ("Where, oh where, " * 40, {}),
        ("Where?", {"doc_stride": 90}),
        ("Where?", {"max_seq_len": 4, "doc_stride": 1}),
    ],
)
def test_a_question_that_leaves_no_room_is_refused(runner, question, parameters):
    with pytest.raises(InvalidInput, match=r"the question takes \d+ tokens or more of the \d+ of a window, which"):
        runner.items({"inputs": {"question": question, "context": LONG}, "parameters": parameters})


def test_a_short_context_needs_no_room(runner):
    question = "Where was the food good, and was it in London or not in Paris?"
    (item,) = runner.items({"inputs": {"question": question, "context": "In Oslo"}})
    assert len(item.data.windows) == 1


def test_a_long_context_is_read_whole(runner):
    for parameters in ({}, {"truncation": False}):
        (item,) = runner.items({"inputs": {"question": "Where?", "context": LONG}, "parameters": parameters})
        assert item.cut == "" and item.data.windows[-1].encoding.offsets[-2][1] >= len(LONG.rstrip())


def test_windows_are_never_longer_than_the_model_takes(runner):
    data = {"inputs": {"question": "Where?", "context": LONG}, "parameters": {"max_seq_len": 5000}}
    assert _ask(runner, data) == near(_ask(runner, {"inputs": data["inputs"]}))


def test_null_parameters_are_the_defaults(bert):
    unset = dict.fromkeys(question_answering.Parameters.model_fields)
    assert _ask(bert, {"inputs": ASKED, "parameters": unset}) == near(_ask(bert, {"inputs": ASKED}))


def test_families_trained_with_token_types_get_them(tmp_path):
    """Transformers 5 dropped them from some tokenizers, ALBERT's among them, and the answers would change."""
    folder = tiny.build("text-classification-albert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["AlbertForQuestionAnswering"]}))
    runner = QuestionAnswering(TASK, folder, Options())
    assert is_packed(runner._model.model)
    (window,) = runner.items(ASKED)[0].data.windows
    assert window.inputs["token_type_ids"] == [int(sequence == 1) for sequence in window.encoding.sequence_ids[:-1]] + [
        1
    ]
    said = folder / "tokenizer_config.json"
    names = ["input_ids", "attention_mask"]
    said.write_text(json.dumps({**json.loads(said.read_text()), "model_input_names": names}))
    (window,) = QuestionAnswering(TASK, folder, Options()).items(ASKED)[0].data.windows
    assert set(window.inputs) == {"input_ids", "attention_mask"}


def test_the_task_is_found(folder):
    assert detect(folder) == "question-answering"


def test_a_tokenizer_without_a_fast_form_is_refused(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise tokenizing.NoFastTokenizer("SlowTokenizer has no fast form; save the model with a tokenizer.json")

    monkeypatch.setattr("hfserve.runtimes.encoder.Encoder", refuse)
    with pytest.raises(LoadError, match="has no fast form") as caught:
        QuestionAnswering(TASK, folder, Options())
    assert not isinstance(caught.value, tokenizing.NoFastTokenizer)
