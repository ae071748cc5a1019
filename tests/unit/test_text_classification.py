"""text-classification gives the labels and scores of transformers' pipeline, and tells of texts that it cuts."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

import tiny
from hfserve.errors import InvalidInput
from hfserve.settings import Options
from hfserve.tasks.table import TASKS
from hfserve.tasks.text_classification import TextClassification

torch.set_num_threads(1)

TASK = TASKS["text-classification"]
NAMES = [
    "text-classification-bert", "text-classification-roberta", "text-classification-multi-label",
    "text-classification-regression",
]  # fmt: skip
TEXTS = ["the food was good", "London!", "naïve Ünïcode 日本語 🍕", "", "the service in paris was not bad " * 2]
LONG = "the food was good " * 40


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    """Our runner and transformers' pipeline of one directory."""
    folder = tiny.build(request.param, tmp_path_factory.mktemp(request.param))
    ours = TextClassification(TASK, folder, Options())
    return ours, transformers.pipeline("text-classification", model=str(folder), device="cpu")


def _ask(runner, inputs, **parameters):
    data = {"inputs": inputs, "parameters": parameters}
    return runner.result(data, runner.run(runner.items(data)))


def near(value):
    if isinstance(value, list):
        return [near(each) for each in value]
    return {**value, "score": pytest.approx(value["score"], abs=1e-5)}


@pytest.mark.parametrize(
    "chosen", [{}, {"top_k": None}, {"top_k": 2}, {"function_to_apply": "none", "top_k": None}, {"top_k": 1}]
)
def test_labels_and_scores_are_those_of_the_pipeline(both, chosen):
    ours, pipe = both
    assert _ask(ours, TEXTS, **chosen) == near(pipe(TEXTS, **chosen))
    assert _ask(ours, TEXTS[0], **chosen) == near(pipe(TEXTS[0], **chosen))
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    assert _ask(ours, pair, **chosen) == near(pipe(pair, **chosen))
    assert _ask(ours, [TEXTS[:2]], **chosen) == near(_ask(ours, pair, **chosen))


def test_a_long_text_is_cut_unless_that_is_refused(both):
    ours, pipe = both
    assert _ask(ours, LONG) == near(pipe(LONG, truncation=True))
    assert _ask(ours, LONG, max_length=7) == near(pipe(LONG, truncation=True, max_length=7))
    assert [item.cut for item in ours.items([TEXTS[0], LONG])] == ["", "inputs[1]"]
    for chosen in (False, "do_not_truncate"):
        with pytest.raises(InvalidInput, match=r"inputs\[1\] is longer than the \d+ tokens that the model takes"):
            ours.items({"inputs": ["a", LONG], "parameters": {"truncation": chosen}})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (7, r"inputs is a number; text-classification takes a string"),
        ({"inputs": ["a", None]}, r"inputs\[1\] is null"),
        ({"inputs": {"text": "a", "more": 1}}, r"inputs is an object"),
        ({"inputs": "a", "parameters": {"top_k": -2}}, r"parameters.top_k: "),
        ({"inputs": "a", "parameters": {"function_to_apply": "relu"}}, r"parameters.function_to_apply: "),
        ({"inputs": "a", "parameters": {"labels": 1}}, r"parameters.labels: not known; there are top_k"),
    ],
)
def test_what_cannot_be_read_is_refused(both, data, words):
    with pytest.raises(InvalidInput, match=words):
        both[0].items(data)
