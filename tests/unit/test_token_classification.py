"""token-classification finds what transformers' pipeline finds, one text at a time or many."""

import os
import warnings

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

import tiny
from hfserve.errors import InvalidInput
from hfserve.settings import Options
from hfserve.tasks.table import TASKS
from hfserve.tasks.token_classification import TokenClassification

torch.set_num_threads(1)

NAMES = ["token-classification", "token-classification-roberta", "token-classification-xlm-roberta"]
STRATEGIES = ["none", "simple", "first", "average", "max"]
TEXTS = [
    "the food was good", "London, Paris: unhappy people?", "", "  spaces  and\ttabs\n", "naïve Ünïcode 日本語 🍕 café",
    "a", "good-bad food's 12.5", "xyzzy" * 4, "the service in london was not bad " * 3,
]  # fmt: skip
LONG = "the food in london was good and the people of paris were not bad, " * 12


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    """Our runner and transformers' pipeline of one directory."""
    folder = tiny.build(request.param, tmp_path_factory.mktemp(request.param))
    ours = TokenClassification(TASKS["token-classification"], folder, Options())
    return ours, transformers.pipeline("token-classification", model=str(folder), device="cpu")


def _ask(runner, data):
    return runner.result(data, runner.run(runner.items(data)))


def _theirs(pipe, inputs, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pipe(inputs, **parameters)


def near(value):
    """Equal to the same structure whose scores differ by 1e-4 at most."""
    if isinstance(value, dict):
        return {name: near(each) for name, each in value.items()}
    if isinstance(value, list):
        return [near(each) for each in value]
    return value if isinstance(value, str | int | None) else pytest.approx(float(value), abs=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ignored", [["O"], []])
def test_every_strategy_finds_what_the_pipeline_finds(both, strategy, ignored):
    ours, pipe = both
    chosen = {"aggregation_strategy": strategy, "ignore_labels": ignored}
    expected = [_theirs(pipe, text, **chosen) for text in TEXTS]
    assert _ask(ours, {"inputs": TEXTS, "parameters": chosen}) == near(expected)
    assert [_ask(ours, {"inputs": text, "parameters": chosen}) for text in TEXTS] == near(expected)
    assert sum(map(len, expected)) > 10


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("stride", [0, 5, 40])
def test_a_long_text_is_read_in_pieces_when_a_stride_is_given(both, strategy, stride):
    ours, pipe = both
    chosen = {"aggregation_strategy": strategy, "stride": stride}
    for text in [LONG, TEXTS[0]]:
        expected = _theirs(pipe, text, **chosen)
        # The pipeline tells the first entity twice when it is empty, as the space of a byte-level tokenizer is.
        expected = expected[1:] if expected[:1] == expected[1:2] else expected
        assert _ask(ours, {"inputs": text, "parameters": chosen}) == near(expected)
    assert _ask(ours, {"inputs": LONG, "parameters": chosen})[-1]["end"] > len(LONG) - 60


def test_a_long_text_is_cut_without_a_stride(both):
    ours, pipe = both
    assert _ask(ours, LONG) == near(pipe(LONG))
    assert ours.items(LONG)[0].cost == pipe.tokenizer.model_max_length
    assert [item.cut for item in ours.items([TEXTS[0], LONG])] == ["", "inputs[1]"]


def test_a_long_text_may_not_be_cut_when_that_is_refused(both):
    ours, _ = both
    with pytest.raises(InvalidInput, match=r"inputs\[1\] is longer than the \d+ tokens that the model takes"):
        ours.items({"inputs": ["a", LONG], "parameters": {"truncation": False}})
    (item,) = ours.items({"inputs": LONG, "parameters": {"truncation": False, "stride": 5}})
    assert len(item.data[1]) > 1 and item.cut == ""


@pytest.mark.parametrize("chosen", [{}, {"stride": 5, "aggregation_strategy": "simple"}])
def test_a_tokenizer_that_cuts_from_the_left_does_so(tmp_path, chosen):
    tiny.build("token-classification", tmp_path)
    transformers.AutoTokenizer.from_pretrained(tmp_path, truncation_side="left").save_pretrained(tmp_path)
    ours = TokenClassification(TASKS["token-classification"], tmp_path, Options())
    pipe = transformers.pipeline("token-classification", model=str(tmp_path), device="cpu")
    assert pipe.tokenizer.truncation_side == "left"
    assert _ask(ours, {"inputs": LONG, "parameters": chosen}) == near(pipe(LONG, **chosen))


def test_defaults_and_forms_of_a_request(both):
    ours, pipe = both
    expected = near(pipe(TEXTS[0]))
    assert _ask(ours, TEXTS[0]) == _ask(ours, {"inputs": TEXTS[0]}) == expected
    assert _ask(ours, {"inputs": [TEXTS[0]]}) == [expected] and _ask(ours, []) == []
    assert _ask(ours, {"inputs": TEXTS[0], "parameters": {"aggregation_strategy": "SIMPLE"}}) == near(
        pipe(TEXTS[0], aggregation_strategy="simple")
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_text_may_come_as_words(both, strategy):
    ours, pipe = both
    texts = [["the", "food", "in", "London", "unhappy"], ["a", "Paris"]]
    chosen = {"aggregation_strategy": strategy, "is_split_into_words": True, "delimiter": "_"}
    expected = [_theirs(pipe, words, **chosen) for words in texts]
    assert _ask(ours, {"inputs": texts, "parameters": chosen}) == near([one[0] for one in expected])
    assert _ask(ours, {"inputs": texts[0], "parameters": chosen}) == near(expected[0][0])


def test_requests_of_different_parameters_share_a_pass(both):
    ours, pipe = both
    asked = [{"inputs": TEXTS[i % 9], "parameters": {"aggregation_strategy": s}} for i, s in enumerate(STRATEGIES * 2)]
    items = [ours.items(data)[0] for data in asked]
    assert len({item.batch_key for item in items}) == 1
    lengths = [len(pipe.tokenizer(data["inputs"], truncation=True)["input_ids"]) for data in asked]
    assert [item.cost for item in items] == lengths
    expected = [_theirs(pipe, data["inputs"], **data["parameters"]) for data in asked]
    assert ours.run(items) == near(expected)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (7, "inputs is a number; it has to be a string"),
        ({}, "inputs is null"),
        ({"inputs": ["a", None]}, r"inputs\[1\] is null"),
        ({"inputs": "a", "parameters": {"grouped_entities": True}}, r"parameters.grouped_entities: not known"),
        ({"inputs": "a", "parameters": {"aggregation_strategy": "most"}}, r"parameters.aggregation_strategy: "),
        ({"inputs": "a", "parameters": {"stride": 96}}, r"parameters.stride: has to be less than 9"),
        ({"inputs": "a", "parameters": {"stride": -1}}, r"parameters.stride: "),
        ({"inputs": "a", "parameters": {"ignore_labels": "O"}}, r"parameters.ignore_labels: "),
        ({"inputs": "a", "parameters": {"is_split_into_words": True}}, r"has to be a list of strings"),
    ],
)
def test_what_cannot_be_read_is_refused(both, data, words):
    with pytest.raises(InvalidInput, match=words):
        both[0].items(data)
