"""zero-shot-classification scores labels as transformers' pipeline does, one text at a time or many."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

import tiny
from hfserve.errors import InvalidInput
from hfserve.settings import Options
from hfserve.tasks.table import TASKS
from hfserve.tasks.zero_shot_classification import ZeroShotClassification

torch.set_num_threads(1)

NAMES = ["zero-shot-classification", "zero-shot-classification-roberta", "zero-shot-classification-bart"]
TEXTS = ["the food was good", "London!", "naïve Ünïcode 日本語 🍕", "a", "the service in paris was not bad " * 2]
LABELS = ["food", "service", "the price of it", "日本"]


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    """Our runner and transformers' pipeline of one directory."""
    folder = tiny.build(request.param, tmp_path_factory.mktemp(request.param))
    ours = ZeroShotClassification(TASKS["zero-shot-classification"], folder, Options())
    return ours, transformers.pipeline("zero-shot-classification", model=str(folder), device="cpu")


def _ask(runner, data):
    return runner.result(data, runner.run(runner.items(data)))


def near(value):
    """Equal to the same structure whose scores differ by 1e-4 at most."""
    if isinstance(value, dict):
        return {name: near(each) for name, each in value.items()}
    if isinstance(value, list):
        return [near(each) for each in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:1], "food, service,the price ,"])
@pytest.mark.parametrize("template", ["This example is {}.", "{}", "日本 {}?"])
def test_the_scores_are_those_of_the_pipeline(both, multi_label, labels, template):
    ours, pipe = both
    chosen = {"candidate_labels": labels, "multi_label": multi_label, "hypothesis_template": template}
    expected = [pipe(text, **chosen) for text in TEXTS]
    assert _ask(ours, {"inputs": TEXTS, "parameters": chosen}) == near(expected)
    assert [_ask(ours, {"inputs": text, "parameters": chosen}) for text in TEXTS] == near(expected)


def test_labels_stand_in_parameters_in_inputs_or_in_the_body(both):
    ours, pipe = both
    expected = near(pipe(TEXTS[0], candidate_labels=LABELS))
    assert _ask(ours, {"inputs": TEXTS[0], "parameters": {"candidate_labels": LABELS}}) == expected
    for name in ("text", "sequence", "sequences"):
        assert _ask(ours, {"inputs": {name: TEXTS[0], "candidate_labels": LABELS}}) == expected
        assert _ask(ours, {name: TEXTS[0], "candidate_labels": LABELS}) == expected
    many = {"inputs": {"sequences": TEXTS[:1], "candidate_labels": LABELS, "multi_label": True}}
    assert _ask(ours, many) == near(pipe(TEXTS[:1], candidate_labels=LABELS, multi_label=True))


def test_a_long_text_is_cut_and_the_labels_stay_whole(both):
    ours, pipe = both
    text, chosen = "the food was good " * 40, {"candidate_labels": LABELS}
    assert _ask(ours, {"inputs": text, "parameters": chosen}) == near(pipe(text, **chosen))
    assert {len(pair["input_ids"]) for pair in ours.items({"inputs": text, "parameters": chosen})[0].data[1]} == {
        pipe.tokenizer.model_max_length
    }
    assert [item.cut for item in ours.items({"inputs": ["a", text], "parameters": chosen})] == ["", "inputs[1]"]
    with pytest.raises(InvalidInput, match=r"inputs\[1\] is longer than the \d+ tokens that the model takes"):
        ours.items({"inputs": ["a", text], "parameters": {**chosen, "truncation": False}})


def test_there_are_no_more_labels_than_the_server_takes(tmp_path):
    folder = tiny.build(NAMES[0], tmp_path)
    ours = ZeroShotClassification(TASKS["zero-shot-classification"], folder, Options(max_labels=2))
    assert len(_ask(ours, {"inputs": "a", "parameters": {"candidate_labels": "a, b"}})["labels"]) == 2
    for labels in ("a, b, c", ["a", "b", "c"]):
        with pytest.raises(InvalidInput, match=r"parameters.candidate_labels: this server takes 2 at most"):
            ours.items({"inputs": "a", "parameters": {"candidate_labels": labels}})


def test_requests_of_different_parameters_share_a_pass(both):
    ours, pipe = both
    asked = [
        (text, {"candidate_labels": LABELS[: 1 + i % 4], "multi_label": bool(i % 2)}) for i, text in enumerate(TEXTS)
    ]
    items = [ours.items({"inputs": text, "parameters": chosen})[0] for text, chosen in asked]
    assert len({item.batch_key for item in items}) == 1
    tokens = [
        sum(len(pipe.tokenizer(text, f"This example is {label}.")["input_ids"]) for label in chosen["candidate_labels"])
        for text, chosen in asked
    ]
    assert [item.cost for item in items] == tokens
    assert ours.run(items) == near([pipe(text, **chosen) for text, chosen in asked])


def test_an_empty_text_and_an_empty_list_are_answered(both):
    ours, _ = both
    chosen = {"candidate_labels": LABELS}
    answer = _ask(ours, {"inputs": "", "parameters": chosen})
    assert answer["sequence"] == "" and sum(answer["scores"]) == pytest.approx(1)
    assert _ask(ours, {"inputs": [], "parameters": chosen}) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a", r"parameters.candidate_labels is missing"),
        ({"inputs": "a", "parameters": {"candidate_labels": []}}, r"parameters.candidate_labels: .*at least 1"),
        ({"inputs": "a", "parameters": {"candidate_labels": " , "}}, r"parameters.candidate_labels: .*at least 1"),
        (
            {"inputs": "a", "parameters": {"candidate_labels": ["a", 1]}},
            r"candidate_labels: .*string",
        ),
        ({"inputs": 7, "parameters": {"candidate_labels": "a"}}, r"inputs is a number; it has to be a string"),
        ({"inputs": ["a", None], "parameters": {"candidate_labels": "a"}}, r"inputs\[1\] is null"),
        ({"inputs": "a", "parameters": {"candidate_labels": "a", "top_k": 1}}, r"parameters.top_k: not known"),
        ({"inputs": "a", "parameters": {"candidate_labels": "a", "multi_label": "x"}}, r"parameters.multi_label: "),
        (
            {"inputs": "a", "parameters": {"candidate_labels": "food " * 99}},
            r"a label, in its template, leaves no room",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(both, data, words):
    with pytest.raises(InvalidInput, match=words):
        both[0].items(data)


@pytest.mark.parametrize("template", ["no place", "{:>99999999}", "{0.__class__}", "{} or {}", "{{}}", "{", 7])
def test_a_template_has_one_place_and_nothing_else(both, template):
    with pytest.raises(InvalidInput, match=r"parameters.hypothesis_template"):
        both[0].items({"inputs": "a", "parameters": {"candidate_labels": "a", "hypothesis_template": template}})
