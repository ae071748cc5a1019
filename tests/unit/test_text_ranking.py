"""text-ranking scores pairs as the model called directly does, and answers queries in the order of the scores."""

import json
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from pydantic import TypeAdapter

import tiny
import tiny_pairs
from hfserve.errors import InvalidInput, LoadError
from hfserve.runtimes.packing import is_packed
from hfserve.runtimes.tokenizing import NoFastTokenizer
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.schemas.pairs import TEXT_RANKING
from hfserve.tasks.text_ranking import TextRanking

torch.set_num_threads(1)

TASK = Task("text-ranking", "query and texts", "scores", {})
QUERY = "is the food good?"
TEXTS = ["the food was not bad", "London!", "naïve Ünïcode 日本語 🍕", "", "the price in paris is good " * 3, "London!"]
ASKED = {"query": QUERY, "texts": TEXTS}
PAIRS = [[QUERY, text] for text in TEXTS]
LONG = "the food was good " * 40


@pytest.fixture(scope="module", params=["text-ranking", "text-ranking-roberta"])
def folder(request, tmp_path_factory):
    return tiny_pairs.build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def runner(folder):
    return TextRanking(TASK, folder, Options())


@pytest.fixture(scope="module")
def logits(folder):
    """What the model says of each pair, one at a time."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        encoded = [words([query], [text], return_tensors="pt", truncation=True) for query, text in PAIRS]
        return torch.cat([model(**each).logits[:, 0] for each in encoded])


def _ask(runner, inputs, **parameters):
    data = {"inputs": inputs, "parameters": parameters}
    answer = runner.result(data, runner.run(runner.items(data)))
    several = isinstance(inputs, list) and not isinstance(inputs[0] if inputs else None, str)
    for one in answer if several else [answer]:
        TypeAdapter(TEXT_RANKING.answer).validate_python(one)
    return answer


def near(value):
    if isinstance(value, list):
        return [near(each) for each in value]
    return {**value, "score": near(value["score"])} if isinstance(value, dict) else pytest.approx(value, abs=1e-5)


def _ranked(scores, **more):
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [{"index": i, "score": scores[i], **{name: values[i] for name, values in more.items()}} for i in order]


def test_a_query_is_answered_with_its_texts_in_order(runner, logits):
    scores = logits.sigmoid().tolist()
    assert _ask(runner, ASKED) == near(_ranked(scores))
    assert len(set(scores)) == 5 and [each["index"] for each in _ask(runner, ASKED)] != list(range(6))


def test_scores_come_raw_when_that_is_asked(runner, logits):
    assert _ask(runner, ASKED, raw_scores=True) == near(_ranked(logits.tolist()))


def test_pairs_are_answered_with_scores(runner, logits):
    scores = logits.sigmoid().tolist()
    assert _ask(runner, PAIRS) == near(scores)
    assert _ask(runner, [{"text": query, "text_pair": text} for query, text in PAIRS]) == near(scores)
    assert _ask(runner, PAIRS[0]) == near(scores[0])
    assert _ask(runner, {"text": QUERY, "text_pair": TEXTS[1]}) == near(scores[1])
    assert _ask(runner, PAIRS[:2], raw_scores=True) == near(logits.tolist()[:2])
    assert _ask(runner, [ASKED, PAIRS[0]]) == near([_ranked(scores), scores[0]])
    assert _ask(runner, []) == []


@pytest.mark.parametrize(
    "body",
    [
        {"query": QUERY, "texts": TEXTS, "raw_scores": False, "return_text": True, "truncate": True},
        {"query": QUERY, "documents": TEXTS, "return_documents": True},
        {"inputs": ASKED, "parameters": {"return_documents": True}},
        {"inputs": {**ASKED, "return_text": True}},
    ],
)
def test_every_form_of_the_request(runner, logits, body):
    answer = runner.result(body, runner.run(runner.items(body)))
    assert answer == near(_ranked(logits.sigmoid().tolist(), text=TEXTS))


@pytest.mark.parametrize("name", ["top_k", "top_n"])
def test_the_best_few(runner, logits, name):
    assert _ask(runner, ASKED, **{name: 2}) == near(_ranked(logits.sigmoid().tolist())[:2])
    assert _ask(runner, ASKED, **{name: 50}) == near(_ranked(logits.sigmoid().tolist()))


def test_all_pairs_of_several_requests_share_a_pass(runner):
    assert is_packed(runner._model.model)
    asked = [ASKED, {"inputs": ASKED, "parameters": {"raw_scores": True}}, {"inputs": PAIRS}]
    apart = [runner.items(data) for data in asked]
    items = [item for items in apart for item in items]
    assert len(items) == 18 and len({item.batch_key for item in items}) == 1
    assert [item.cost for item in items] == [len(item.data["input_ids"]) for item in items]
    outcomes = iter(runner.run(items))
    for data, own in zip(asked, apart, strict=True):
        alone = [outcome for item in own for outcome in runner.run([item])]
        assert runner.result(data, [next(outcomes) for _ in own]) == near(runner.result(data, alone))


@pytest.mark.parametrize(
    ("config", "function"),
    [
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, lambda logit: logit),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, lambda logit: logit),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, torch.sigmoid),
        ({"sentence_transformers": {"version": "5.0"}}, torch.sigmoid),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, torch.tanh),
    ],
)
def test_the_folder_names_what_makes_scores(folder, logits, tmp_path, config, function):
    changed = _with(folder, tmp_path, **config)
    assert _ask(TextRanking(TASK, changed, Options()), PAIRS) == near(function(logits).tolist())


def _with(folder, path, **config):
    for file in folder.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    known = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**known, **config}))
    return path


def test_a_folder_of_another_kind_is_told_at_load(folder, tmp_path):
    strange = _with(folder, tmp_path, sentence_transformers={"activation_fn": "os.system"})
    with pytest.raises(LoadError, match=r"config.json has the activation system; there are Sigmoid, Identity"):
        TextRanking(TASK, strange, Options())
    two = tiny.build("text-classification-bert", tmp_path / "two")
    with pytest.raises(LoadError, match="the model has 2 labels, and text-ranking takes one that has a single label"):
        TextRanking(TASK, two, Options())


def test_a_long_text_is_cut_unless_that_is_refused(runner):
    data = {"inputs": {"query": QUERY, "texts": ["a", LONG]}}
    assert [item.cut for item in runner.items(data)] == ["", "inputs.texts[1]"]
    assert [item.cut for item in runner.items([[QUERY, "a"], [QUERY, LONG]])] == ["", "inputs[1]"]
    assert [item.cut for item in runner.items({**data, "parameters": {"max_length": 5}})] == [
        "inputs.texts[0]", "inputs.texts[1]"
    ]  # fmt: skip
    for name in ("truncation", "truncate"):
        with pytest.raises(InvalidInput, match=r"inputs.texts\[1\] is longer than the \d+ tokens"):
            runner.items({**data, "parameters": {name: False}})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a", r"inputs is a string; text-ranking takes \{\"query\""),
        ({"inputs": ["a", "b", "c"]}, r"inputs\[0\] is a string; text-ranking takes"),
        ({"inputs": [["a", "b", "c"]]}, r"inputs\[0\] is a list; text-ranking takes"),
        ({"inputs": [["a", 7]]}, r"inputs\[0\]\[1\] is a number; it has to be a string"),
        ({"inputs": {"query": "a"}}, r"inputs.texts is missing"),
        ({"inputs": {"texts": ["a"]}}, r"inputs.query is missing"),
        ({"inputs": {"text": "a"}}, r"inputs.text_pair is missing"),
        ({"inputs": {**ASKED, "texts": []}}, r"inputs.texts has to be a list of strings, at least one"),
        ({"inputs": {**ASKED, "texts": ["a", None]}}, r"inputs.texts\[1\] is null; it has to be a string"),
        ({"inputs": {**ASKED, "query": 7}}, r"inputs.query is a number; it has to be a string"),
        ({"inputs": {**ASKED, "documents": ["a"]}}, r"inputs.documents: not known; there are query, texts"),
        ({"inputs": ASKED, "parameters": {"top_k": 0}}, r"parameters.top_k: .*greater than or equal to 1"),
        ({**ASKED, "verbose": True}, r"parameters.verbose: not known; there are top_k, .*raw_scores"),
    ],
)
def test_what_cannot_be_read_is_refused(runner, data, words):
    with pytest.raises(InvalidInput, match=words):
        runner.items(data)


@pytest.mark.parametrize("inputs", [ASKED, PAIRS[0], {"text": "a", "text_pair": "b"}])
def test_the_schema_knows_every_form(inputs):
    assert TypeAdapter(TEXT_RANKING.inputs).validate_python(inputs) is not None


def test_a_tokenizer_without_a_fast_form_is_refused(folder, monkeypatch):
    def refuse(*arguments, **options):
        raise NoFastTokenizer("SlowTokenizer has no fast form; save the model with a tokenizer.json")

    monkeypatch.setattr("hfserve.runtimes.encoder.Encoder", refuse)
    with pytest.raises(LoadError, match="has no fast form") as caught:
        TextRanking(TASK, folder, Options())
    assert not isinstance(caught.value, NoFastTokenizer)
