"""multiple-choice answers as the model called directly on all choices does, whoever shares the pass."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from pydantic import TypeAdapter

import tiny_pairs
from hfserve.errors import InvalidInput, LoadError
from hfserve.runtimes.packing import is_packed
from hfserve.runtimes.tokenizing import NoFastTokenizer
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.detect import detect
from hfserve.tasks.multiple_choice import MultipleChoice
from hfserve.tasks.schemas.pairs import MULTIPLE_CHOICE

torch.set_num_threads(1)

TASK = Task("multiple-choice", "question and choices", "the best choice", {})
NAMES = [name for name in tiny_pairs.NAMES if name.startswith("multiple-choice")]
ASKED = [
    {
        "question": "where was the food good?",
        "choices": ["in london", "paris", "not in paris, in London of all places"],
    },
    {"question": "Is it good?", "choices": ["a", "", "naïve Ünïcode 日本語 🍕", "b"]},
    {"question": "the price is", "choices": ["good", "bad"]},
    {"question": "One?", "choices": ["only"]},
]
LONG = "the food was good " * 40


@pytest.fixture(scope="module", params=NAMES)
def folder(request, tmp_path_factory):
    return tiny_pairs.build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def runner(folder):
    return MultipleChoice(TASK, folder, Options())


def _ask(runner, inputs, **parameters):
    data = {"inputs": inputs, "parameters": parameters}
    answer = runner.result(data, runner.run(runner.items(data)))
    for one in answer if isinstance(inputs, list) else [answer]:
        TypeAdapter(MULTIPLE_CHOICE.answer).validate_python(one)
    return answer


def near(answer):
    return {**answer, "scores": pytest.approx(answer["scores"], abs=1e-5)}


def _expected(folder, asked):
    """By transformers alone: all choices of a question in one row, padded."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder)
    answers = []
    for each in asked:
        questions = [each["question"]] * len(each["choices"])
        encoded = words(questions, each["choices"], return_tensors="pt", padding=True, truncation=True)
        with torch.inference_mode():
            logits = model(**{name: tensor[None] for name, tensor in encoded.items()}).logits[0]
        best = int(logits.argmax())
        answers.append({"choice": each["choices"][best], "index": best, "scores": logits.softmax(-1).tolist()})
    return answers


def test_answers_are_those_of_the_model(folder, runner):
    expected = _expected(folder, ASKED)
    assert _ask(runner, ASKED) == [near(each) for each in expected]
    for asked, answer in zip(ASKED, expected, strict=True):
        assert _ask(runner, asked) == near(answer)
    assert len({answer["index"] for answer in expected}) > 1
    assert max(expected[0]["scores"]) - min(expected[0]["scores"]) > 1e-3


def test_questions_with_any_number_of_choices_share_a_pass(runner):
    items = [runner.items(asked)[0] for asked in ASKED]
    assert len({item.batch_key for item in items}) == 1
    assert is_packed(runner._model.model)
    assert [len(item.data[1]) for item in items] == [3, 4, 2, 1]
    assert [item.cost for item in items] == [sum(len(pair["input_ids"]) for pair in item.data[1]) for item in items]
    assert runner.run(items) == [near(_ask(runner, asked)) for asked in ASKED]


def test_of_equally_good_choices_the_first_is_the_answer_whatever_the_company(runner):
    asked = {"question": "the same", "choices": ["b", "a", "a", "b", "a"]}
    first = asked["choices"].index(_ask(runner, asked)["choice"])
    assert _ask(runner, asked)["index"] == first
    assert [answer["index"] for answer in _ask(runner, [asked, *ASKED, asked]) if len(answer["scores"]) == 5] == [
        first, first
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["question", "prompt", "text"])
def test_what_is_asked_has_several_names(runner, name):
    asked = {name: ASKED[0]["question"], "choices": ASKED[0]["choices"]}
    answer = _ask(runner, ASKED[0])
    assert _ask(runner, asked) == near(answer)
    assert runner.result(asked, runner.run(runner.items(asked))) == near(answer)
    assert _ask(runner, [asked]) == [near(answer)] and _ask(runner, []) == []


def test_a_long_choice_is_cut_unless_that_is_refused(folder, runner):
    asked = {"question": "the price", "choices": ["a", LONG]}
    assert _ask(runner, asked) == near(_expected(folder, [asked])[0])
    assert [item.cut for item in runner.items([ASKED[0], asked])] == ["", "inputs[1]"]
    with pytest.raises(InvalidInput, match=r"inputs\[1\] is longer than the \d+ tokens that the model takes"):
        runner.items({"inputs": [ASKED[0], asked], "parameters": {"truncation": False}})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a", r"inputs is a string; multiple-choice takes \{\"question\""),
        ({"inputs": [ASKED[0], 7]}, r"inputs\[1\] is a number; multiple-choice takes"),
        ({"inputs": {"question": "a"}}, r"inputs.choices is missing"),
        ({"inputs": {"choices": ["a"]}}, r"inputs.question is missing"),
        ({"inputs": {**ASKED[0], "text": "a"}}, r"inputs.text: not known; there are question, choices"),
        ({"inputs": {**ASKED[0], "choices": []}}, r"inputs.choices has to be a list of strings, at least one"),
        ({"inputs": {**ASKED[0], "choices": "ab"}}, r"inputs.choices has to be a list of strings, at least one"),
        ({"inputs": {**ASKED[0], "choices": ["a", 7]}}, r"inputs.choices\[1\] is a number; it has to be a string"),
        ({"inputs": {"prompt": None, "choices": ["a"]}}, r"inputs.prompt is null; it has to be a string"),
        ({"inputs": ASKED[0], "parameters": {"top_k": 1}}, r"parameters.top_k: not known; there are truncation"),
    ],
)
def test_what_cannot_be_read_is_refused(runner, data, words):
    with pytest.raises(InvalidInput, match=words):
        runner.items(data)


def test_the_task_is_found(folder):
    assert detect(folder) == "multiple-choice"
    assert TypeAdapter(MULTIPLE_CHOICE.inputs).validate_python(ASKED[0]).choices == ASKED[0]["choices"]


def test_a_tokenizer_without_a_fast_form_is_refused(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise NoFastTokenizer("SlowTokenizer has no fast form; save the model with a tokenizer.json")

    monkeypatch.setattr("hfserve.runtimes.encoder.Encoder", refuse)
    with pytest.raises(LoadError, match="has no fast form") as caught:
        MultipleChoice(TASK, folder, Options())
    assert not isinstance(caught.value, NoFastTokenizer)
