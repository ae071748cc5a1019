"""summarization, translation and text2text-generation answer as transformers 4.57.6 did, alone and in company."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from hfserve.errors import InvalidInput, LoadError
from hfserve.settings import Options
from hfserve.tasks import table
from hfserve.tasks.text2text import Text2Text

torch.set_num_threads(1)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "text2text.json").read_text())
T5, BART, MARIAN, NLLB = "text2text-generation-t5", "summarization-bart", "translation-marian", "translation-nllb"
TASKS = {T5: "text2text-generation", BART: "summarization", MARIAN: "translation"}
FOOD = "The food was good in London."
TEXTS = [FOOD, "a", "The service of the place was not bad, and the price is a matter of taste.", "", "Paris", FOOD * 3]
LANGUAGES = {"src_lang": "eng_Latn", "tgt_lang": "fra_Latn"}


@pytest.fixture(scope="module")
def runner(saved):
    """The runner of a tiny model for a task, loaded once."""
    made = {}

    def runner(name, task=None):
        task = task or TASKS[name]
        if (name, task) not in made:
            made[name, task] = Text2Text(table.find(task), saved(name), Options())
        return made[name, task]

    return runner


def _ask(runner, inputs, **parameters):
    data = {"inputs": inputs, "parameters": parameters}
    outcomes = runner.run(runner.items(data))
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return runner.result(data, outcomes)


@pytest.mark.parametrize(("name", "task", "request_", "answer"), GOLDEN)
def test_an_answer_is_the_pipeline_s(runner, name, task, request_, answer):
    assert _ask(runner(name, task), request_["inputs"], **request_["parameters"]) == answer


def test_there_are_answers_of_every_task():
    assert len(GOLDEN) >= 100
    assert {task.partition("_")[0] for _, task, _, _ in GOLDEN} == set(TASKS.values())
    assert len({str(answer) for *_, answer in GOLDEN}) > 80


# Batches


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("name", TASKS)
def test_company_changes_no_answer(runner, name, beams):
    model = runner(name)
    alone = [_ask(model, text, num_beams=beams, max_new_tokens=12) for text in TEXTS]
    parameters = {"num_beams": beams, "max_new_tokens": 12}
    items = [model.items({"inputs": text, "parameters": parameters})[0] for text in TEXTS]
    assert len({item.batch_key for item in items}) == 1
    assert model.run(items) == alone
    assert model._generated(items) == alone


def test_requests_share_a_pass_when_they_ask_for_the_same(runner):
    def key(**parameters):
        (item,) = runner(BART).items({"inputs": FOOD, "parameters": parameters})
        return item.batch_key

    assert key(num_beams=4, seed=1, truncation=True) == key(clean_up_tokenization_spaces=True) == key()
    assert len({key(), key(num_beams=2), key(max_length=9), key(max_new_tokens=9), key(early_stopping=True)}) == 5
    assert key(do_sample=True, seed=1) != key(do_sample=True, seed=1)


def test_languages_keep_apart(runner):
    model = runner(NLLB, "translation")
    keys = {model.items({"inputs": FOOD, "parameters": {**LANGUAGES, "tgt_lang": to}})[0].batch_key
            for to in ("fra_Latn", "deu_Latn")}  # fmt: skip
    assert len(keys) == 2


def test_an_item_costs_its_tokens(runner):
    short, long = runner(T5).items({"inputs": ["a", FOOD]})
    assert 2 <= short.cost < long.cost == len(long.data["input_ids"])


@pytest.mark.parametrize("name", TASKS)
def test_threads_do_not_disturb_each_other(runner, name):
    model = runner(name)
    asked = [(text, beams) for text in TEXTS for beams in (1, 2, 3)]
    alone = [_ask(model, text, num_beams=beams, max_new_tokens=8) for text, beams in asked]
    before = model._model.generation_config.to_dict()
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda each: _ask(model, each[0], num_beams=each[1], max_new_tokens=8), asked * 2))
    assert together == alone * 2 and model.concurrent
    assert model._model.generation_config.to_dict() == before


def test_languages_do_not_mix_between_threads(runner):
    model = runner(NLLB, "translation")
    asked = [{"src_lang": f, "tgt_lang": to} for f in ("eng_Latn", "fra_Latn") for to in ("fra_Latn", "deu_Latn")] * 5
    alone = [_ask(model, FOOD, max_new_tokens=8, **each) for each in asked]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda each: _ask(model, FOOD, max_new_tokens=8, **each), asked)) == alone
    assert len({str(answer) for answer in alone}) > 1


def test_families_whose_answers_depend_on_company_run_alone(runner, monkeypatch):
    model = runner(T5)
    sizes = []
    whole = model._generated
    monkeypatch.setattr(model, "_alone", True)
    monkeypatch.setattr(model, "_generated", lambda items: sizes.append(len(items)) or whole(items))
    _ask(model, TEXTS, max_new_tokens=2)
    assert sizes == [1] * len(TEXTS)


# Sampling


def test_a_seed_repeats_what_was_sampled(runner):
    model = runner(BART)
    sampling = {"do_sample": True, "num_beams": 1, "max_new_tokens": 12, "temperature": 2.0, "top_k": 0, "top_p": 1.0}
    first, same, other = (_ask(model, FOOD, seed=seed, **sampling) for seed in (7, 7, 8))
    assert first == same != other
    torch.manual_seed(1)
    number = torch.rand(1)
    torch.manual_seed(1)
    _ask(model, FOOD, seed=7, **sampling)
    assert torch.rand(1) == number
    torch.manual_seed(1)
    assert _ask(model, FOOD, **sampling) != _ask(model, FOOD, **sampling)


def test_seeds_hold_among_threads(runner):
    model = runner(T5)
    sampling = {"do_sample": True, "num_beams": 1, "max_new_tokens": 8, "top_k": 50}
    alone = [_ask(model, FOOD, seed=seed, **sampling) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda seed: _ask(model, FOOD, seed=seed, **sampling), range(6))) == alone


# Lengths


def test_what_is_too_long_is_cut_unless_told_otherwise(runner):
    model = runner(BART)
    assert _ask(model, FOOD * 20) == _ask(model, FOOD * 20, truncation=True)
    with pytest.raises(InvalidInput, match=r"inputs\[1\] is longer than the 96 tokens that the model takes"):
        _ask(model, ["a", FOOD * 20], truncation=False)


def test_an_item_tells_what_was_cut(runner):
    items = runner(BART).items({"inputs": [FOOD, FOOD * 20]})
    assert [item.cut for item in items] == ["", "inputs[1]"] and items[1].cost == 96
    (item,) = runner(NLLB, "translation").items({"inputs": FOOD * 20, "parameters": LANGUAGES})
    assert item.cut == "inputs"


def test_the_settings_bound_what_is_generated(saved):
    model = Text2Text(table.find("text2text-generation"), saved(T5), Options(max_new_tokens=8))
    (item,) = model.items({"inputs": FOOD})
    assert item.parameters["generate"]["max_new_tokens"] == 8
    assert model.items({"inputs": FOOD, "parameters": {"max_length": 8}})
    with pytest.raises(InvalidInput, match=r"parameters.max_new_tokens: .* 8 at most \(HFSERVE_MAX_NEW_TOKENS\)"):
        model.items({"inputs": FOOD, "parameters": {"max_new_tokens": 9}})


def test_generation_ends_where_the_positions_do(runner):
    (answer,) = _ask(runner(BART), FOOD, max_new_tokens=500, min_length=500, num_beams=1)
    (same,) = _ask(runner(BART), FOOD, max_length=500, min_length=500, num_beams=1)
    assert len(answer["summary_text"]) > 24 and answer == same


# What is refused


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"max_new_tokens": 0}, "parameters.max_new_tokens: .* greater than or equal to 1"),
        ({"max_new_tokens": 10**9}, "parameters.max_new_tokens: "),
        ({"num_beams": "four"}, "parameters.num_beams: "),
        ({"temperature": 0}, "parameters.temperature: "),
        ({"return_tensors": True}, "parameters.return_tensors: not known; there are max_new_tokens, "),
        ({"src_lang": "en"}, "parameters.src_lang: not known"),
        ({"custom_generate": "someone/code"}, "parameters.custom_generate: not known"),
    ],
)
def test_a_wrong_parameter_is_named(runner, parameters, told):
    with pytest.raises(InvalidInput, match=told):
        runner(T5).items({"inputs": FOOD, "parameters": parameters})


@pytest.mark.parametrize("inputs", [None, 3, {"text": "a"}, [["a"]], ["a", None]])
def test_inputs_are_strings(runner, inputs):
    with pytest.raises(InvalidInput, match=r"^inputs(\[\d\])? is .*; it has to be a string"):
        runner(T5).items({"inputs": inputs})


def test_parameters_that_do_not_go_together_are_the_client_s(runner):
    with pytest.raises(InvalidInput, match=r"do not go together: .*num_return_sequences"):
        _ask(runner(T5), FOOD, num_beams=1, num_return_sequences=3)


# Languages


def test_the_task_s_name_may_tell_the_languages(runner):
    named = runner(NLLB, "translation_eng_Latn_to_fra_Latn")
    asked = runner(NLLB, "translation")
    assert _ask(named, TEXTS, max_new_tokens=6) == _ask(asked, TEXTS, max_new_tokens=6, **LANGUAGES)
    other = {"src_lang": "eng_Latn", "tgt_lang": "deu_Latn"}
    assert _ask(named, FOOD, tgt_lang="deu_Latn") == _ask(asked, FOOD, **other)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "parameters.src_lang is missing: .* there are deu_Latn, eng_Latn, fra_Latn"),
        ({"src_lang": "eng_Latn"}, "parameters.tgt_lang is missing"),
        ({**LANGUAGES, "tgt_lang": "fr"}, "parameters.tgt_lang: 'fr' is not a language of it; there are deu_Latn"),
    ],
)
def test_a_language_has_to_be_known(runner, parameters, told):
    with pytest.raises(InvalidInput, match=told):
        _ask(runner(NLLB, "translation"), FOOD, **parameters)


def test_a_name_with_an_unknown_language_is_told_at_load(saved):
    with pytest.raises(LoadError, match="HF_TASK=translation_en_to_fra_Latn: en is not a language of this model"):
        Text2Text(table.find("translation_en_to_fra_Latn"), saved(NLLB), Options())


@pytest.mark.parametrize("task", ["translation", "translation_eng_Latn_to_fra_Latn"])
def test_the_example_names_languages_where_a_model_needs_them(runner, task):
    model = runner(NLLB, task)
    assert _ask(model, model.task.example["inputs"], **model.task.example["parameters"])
