"""fill-mask proposes what transformers' pipeline proposes, for one mask or several, one text at a time or many."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

import tiny
from hfserve.errors import InvalidInput, LoadError
from hfserve.runtimes.packing import is_packed
from hfserve.settings import Options
from hfserve.tasks.fill_mask import FillMask
from hfserve.tasks.table import TASKS

torch.set_num_threads(1)

NAMES = ["fill-mask", "fill-mask-roberta", "fill-mask-albert"]
TEXTS = [
    "the food was {}", "{}", "{} in london is {}, not {}.", "naïve 日本語 🍕 {} café", "  {}\tand\n",
    "the service was {} " * 3,
]  # fmt: skip


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    """Our runner and transformers' pipeline of one directory."""
    folder = tiny.build(request.param, tmp_path_factory.mktemp(request.param))
    ours = FillMask(TASKS["fill-mask"], folder, Options())
    return ours, transformers.pipeline("fill-mask", model=str(folder), device="cpu")


def _ask(runner, data):
    return runner.result(data, runner.run(runner.items(data)))


def _texts(pipe):
    return [text.replace("{}", pipe.tokenizer.mask_token) for text in TEXTS]


def near(value):
    """Equal to the same structure whose scores differ by 1e-4 at most."""
    if isinstance(value, dict):
        return {name: near(each) for name, each in value.items()}
    if isinstance(value, list):
        return [near(each) for each in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


@pytest.mark.parametrize("chosen", [{}, {"top_k": 1}, {"top_k": 12}, {"targets": ["good", "bad", "a"], "top_k": 2}])
def test_the_propositions_are_those_of_the_pipeline(both, chosen):
    ours, pipe = both
    texts = _texts(pipe)
    expected = [pipe(text, **chosen) for text in texts]
    assert _ask(ours, {"inputs": texts, "parameters": chosen}) == near(expected)
    assert [_ask(ours, {"inputs": text, "parameters": chosen}) for text in texts] == near(expected)
    assert _ask(ours, {"inputs": texts[:1], "parameters": chosen}) == near(pipe(texts[:1], **chosen))


@pytest.mark.parametrize("targets", ["good", ["good", "good"], ["unseen", "日本", "the food"], ["", "a"]])
def test_targets_are_tokens_or_begin_with_one(both, targets):
    ours, pipe = both
    data = {"inputs": _texts(pipe)[0], "parameters": {"targets": targets, "top_k": 9}}
    assert _ask(ours, data) == near(pipe(_texts(pipe)[0], targets=targets, top_k=9))


def test_every_model_knows_both_masks(both):
    ours, pipe = both
    expected = near(pipe(f"the food {pipe.tokenizer.mask_token}"))
    assert _ask(ours, "the food [MASK]") == _ask(ours, {"text": "the food <mask>"}) == expected
    assert _ask(ours, TASKS["fill-mask"].example) and _ask(ours, []) == []


def test_a_long_text_is_cut_unless_that_is_refused(both):
    ours, pipe = both
    text = pipe.tokenizer.mask_token + " the food was good" * 60
    assert _ask(ours, text) == near(pipe(text, tokenizer_kwargs={"truncation": True}))
    shorter = {"tokenizer_kwargs": {"truncation": True, "max_length": 12}}
    assert _ask(ours, {"inputs": text, "parameters": shorter}) == near(pipe(text, **shorter))
    assert [item.cut for item in ours.items(["a [MASK]", text])] == ["", "inputs[1]"]
    for chosen in ({"truncation": False}, {"tokenizer_kwargs": {"truncation": False}}):
        with pytest.raises(InvalidInput, match=r"inputs is longer than the \d+ tokens that the model takes"):
            ours.items({"inputs": text, "parameters": chosen})
        assert ours.items({"inputs": "a [MASK]", "parameters": chosen})[0].cut == ""


def test_requests_of_different_parameters_share_a_pass(both):
    ours, pipe = both
    asked = [(text, {"top_k": 1 + i, "targets": [None, ["good", "a"]][i % 2]}) for i, text in enumerate(_texts(pipe))]
    items = [ours.items({"inputs": text, "parameters": chosen})[0] for text, chosen in asked]
    assert len({item.batch_key for item in items}) == 1
    assert [item.cost for item in items] == [len(pipe.tokenizer(text)["input_ids"]) for text, _ in asked]
    assert ours.run(items) == near([pipe(text, **chosen) for text, chosen in asked])


def test_texts_lie_in_one_row_and_scores_are_made_at_masks_alone(both):
    ours, pipe = both
    assert is_packed(ours._model.model)
    items = ours.items(_texts(pipe))
    together = ours._model([item.data for item in items])
    assert [len(row) for row in together] == [text.count("{}") for text in TEXTS]
    for row, item in zip(together, items, strict=True):
        torch.testing.assert_close(row.softmax(-1), ours._model([item.data])[0].softmax(-1), atol=1e-5, rtol=0)


def test_a_model_that_cannot_be_packed_fills_masks_too(monkeypatch, tmp_path):
    def refuse(*_):
        raise NotImplementedError

    monkeypatch.setattr("hfserve.runtimes.packing.WAYS", {"attention": refuse})
    padded = FillMask(TASKS["fill-mask"], tiny.build("fill-mask", tmp_path), Options())
    assert not is_packed(padded._model.model)
    pipe = transformers.pipeline("fill-mask", model=str(tmp_path), device="cpu")
    assert _ask(padded, _texts(pipe)) == near([pipe(text) for text in _texts(pipe)])


def test_more_than_the_vocabulary_is_the_vocabulary(both):
    ours, pipe = both
    assert len(_ask(ours, {"inputs": "a [MASK]", "parameters": {"top_k": 10**6}})) == len(pipe.tokenizer)


def test_the_mask_that_is_missing_is_named(both):
    ours, pipe = both
    mask = pipe.tokenizer.mask_token
    for data, words in [
        ("no mask", f"inputs has no mask; write {mask} where a word is missing"),
        ("", "inputs has no mask;"),
        ([f"a {mask}", "a"], r"inputs[1] has no mask;"),
        ("the food was good" * 60 + mask, f"inputs has no mask among the first {pipe.tokenizer.model_max_length} "),
    ]:
        with pytest.raises(InvalidInput) as refusal:
            ours.items(data)
        assert str(refusal.value).startswith(words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (7, "inputs is a number; it has to be a string"),
        ({"inputs": ["a [MASK]", None]}, r"inputs\[1\] is null"),
        ({"inputs": "a [MASK]", "parameters": {"k": 1}}, r"parameters.k: not known; there are top_k, targets"),
        ({"inputs": "a [MASK]", "parameters": {"top_k": 0}}, r"parameters.top_k: "),
        ({"inputs": "a [MASK]", "parameters": {"targets": [1]}}, r"parameters.targets: "),
        ({"inputs": "a [MASK]", "parameters": {"targets": []}}, r"parameters.targets: none of them is a token"),
        ({"inputs": "a [MASK]", "parameters": {"tokenizer_kwargs": {"x": 1}}}, r"parameters.tokenizer_kwargs.x: not"),
    ],
)
def test_what_cannot_be_read_is_refused(both, data, words):
    with pytest.raises(InvalidInput, match=words):
        both[0].items(data)


def test_a_tokenizer_without_a_mask_is_told_at_load(tmp_path):
    tiny.build("fill-mask", tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(LoadError, match="the tokenizer has no mask token"):
        FillMask(TASKS["fill-mask"], tmp_path, Options())
