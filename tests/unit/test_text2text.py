"""summarization, translation and text2text-generation answer as transformers 4.57.6 did, alone and in company."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from hfserve.errors import InvalidInput, LoadError
from hfserve.runtimes import seq2seq
from hfserve.runtimes.generation import BLOCK, Pool
from hfserve.settings import Options
from hfserve.tasks import table
from hfserve.tasks.text2text import Text2Text
from stepping import stepped

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


# Side by side

GREEDY = {"num_beams": 1, "max_new_tokens": 12}
GRID = [
    {},
    {"max_new_tokens": 1},
    {"max_new_tokens": 30},
    {"repetition_penalty": 1.8, "max_new_tokens": 20},
    {"no_repeat_ngram_size": 2, "max_new_tokens": 20},
    {"min_new_tokens": 12},
    {"min_length": 12, "max_new_tokens": 20},
    {"max_new_tokens": None, "max_length": 18},
    {"bad_words_ids": [[34], [5, 6]], "suppress_tokens": [40, 41]},
    {"eos_token_id": [0, 34, 78]},
    {"renormalize_logits": True},
    {"early_stopping": True, "length_penalty": 2.0},
]


def _items(model, inputs, **parameters):
    told = {name: value for name, value in parameters.items() if value is not None}
    if model._many_languages:
        told |= LANGUAGES
    return model.items({"inputs": inputs, "parameters": told})


def _tokens(model, item):
    """What `generate()` makes of an item alone, without what it fills rows up with."""
    (row,) = model._model.generate(torch.tensor([item.data["input_ids"]]), **item.parameters["generate"]).tolist()
    return row[1:]


def _heard(item):
    pieces = []
    item.feed.tell = lambda piece: pieces.append(piece.token.id)
    return pieces


@pytest.mark.parametrize("parameters", GRID, ids=str)
@pytest.mark.parametrize("name", [T5, BART, MARIAN, NLLB])
def test_greedy_texts_are_those_of_generate_alone_and_in_company(runner, name, parameters):
    model = runner(name, TASKS.get(name, "translation"))
    items = _items(model, TEXTS, **GREEDY | parameters)
    assert all(item.stepwise for item in items)
    wanted = [model.run([item])[0] for item in items]
    tokens = [_tokens(model, item) for item in items]
    assert [stepped(model, [item])[0] for item in items] == wanted
    heard = [_heard(item) for item in items]
    assert stepped(model, items, late=(1, 3)) == wanted
    assert heard == tokens


@pytest.mark.parametrize("name", TASKS)
def test_a_string_ends_a_text(runner, name):
    model = runner(name)
    ((whole,),) = stepped(model, _items(model, FOOD, **GREEDY))
    end = next(iter(whole.values()))[3]
    (item,), (other,) = (_items(model, FOOD, **GREEDY, stop=stop) for stop in (end, ["never", "ever"]))
    assert stepped(model, [item, other]) == [*model.run([item]), [whole]]
    assert item.batch_key != other.batch_key
    told, pieces = model.events(item), []
    item.feed.tell = pieces.append
    ((record,),) = stepped(model, [item])
    assert end in next(iter(record.values())) and record != whole
    assert [told.of(piece) for piece in pieces][-1]["details"]["finish_reason"] == "stop_sequence"


def test_texts_that_ask_for_different_things_are_made_together(runner):
    model = runner(BART)
    asked = [{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}, {"max_new_tokens": 5}, {"min_length": 9}]
    items = [_items(model, FOOD, **GREEDY | each)[0] for each in asked]
    assert stepped(model, items, late=(2,)) == [model.run([item])[0] for item in items]


@pytest.mark.parametrize("told", [{"encoder_no_repeat_ngram_size": 1}, {"encoder_repetition_penalty": 9.0}], ids=str)
def test_settings_that_look_at_what_was_read_count_too(saved, runner, told):
    model = Text2Text(table.find("summarization"), saved(BART), Options())
    model._model.generation_config.update(**told)
    items = _items(model, TEXTS, **GREEDY)
    heard = [_heard(item) for item in items]
    assert stepped(model, items) != stepped(runner(BART), _items(runner(BART), TEXTS, **GREEDY))
    assert heard == [_tokens(model, item) for item in items]


def test_a_text_begins_as_the_settings_of_its_task_say(runner, monkeypatch):
    model = runner(T5)
    monkeypatch.setitem(model._defaults, "decoder_start_token_id", 7)
    items = _items(model, TEXTS, **GREEDY)
    heard = [_heard(item) for item in items]
    stepped(model, items)
    assert heard == [_tokens(model, item) for item in items]


def test_a_text_may_be_as_long_as_there_are_positions(runner):
    model = runner(BART)
    (item,) = _items(model, FOOD, num_beams=1, max_new_tokens=500, min_new_tokens=500)
    heard = _heard(item)
    stepped(model, [item])
    assert heard == _tokens(model, item) and len(heard) == 96


def test_newcomers_are_read_a_few_at_a_time_while_others_are_written(runner, monkeypatch):
    model = runner(T5)
    monkeypatch.setattr(model._engines[0], "most_tokens", 8)
    first, *others = items = _items(model, TEXTS, **GREEDY, min_new_tokens=12)
    heard = [_heard(item) for item in items]
    started = [model.steps[0].start(first)]
    model.steps[0].step(1)
    started += [model.steps[0].start(item) for item in others]
    model.steps[0].step(1)
    assert len(heard[0]) == 2 and 1 <= sum(map(len, heard[1:])) < len(others)
    while not all(len(each) == 12 for each in heard):
        model.steps[0].step(1)
    assert heard == [_tokens(model, item) for item in items]
    assert model.steps[0].room[0] == 0


def test_who_leaves_gives_its_room_back(runner):
    model = runner(T5)
    items = _items(model, TEXTS, **GREEDY, min_new_tokens=12)
    started = [model.steps[0].start(item) for item in items]
    model.steps[0].step(1)
    assert model.steps[0].room[0] == sum(-(-(item.cost + 12) // BLOCK) for item in items)
    for each in started[:5]:
        model.steps[0].stop(each)
    while not (ended := model.steps[0].step(1)):
        pass
    assert ended == [(started[5], model.run([items[5]])[0])]
    assert model.steps[0].room[0] == 0


def test_what_could_never_run_is_refused_at_once(saved):
    model = Text2Text(table.find("text2text-generation"), saved(T5), Options(max_batch=1))
    model._engines[0].pool = Pool(2)
    for told in ({"num_beams": 1}, {}):
        with pytest.raises(InvalidInput, match=r"inputs: 1 text of up to \d+ tokens, .*HFSERVE_KV_CACHE_MB"):
            for item in _items(model, FOOD, max_new_tokens=60, **told):
                model.told(item)
    assert _items(model, "a", max_new_tokens=8, num_beams=1)


def test_a_search_with_beams_is_generate_s_unless_it_streams_and_nobody_asked_for_it(runner):
    model = runner(T5)
    (usual,), (asked,) = _items(model, FOOD, max_new_tokens=8), _items(model, FOOD, max_new_tokens=8, num_beams=3)
    assert not usual.stepwise and not asked.stepwise
    with pytest.raises(InvalidInput, match="num_beams"):
        model.told(asked)
    item = model.told(usual)
    told, pieces = model.events(item), []
    item.feed.tell = pieces.append
    ((record,),) = stepped(model, [item])
    assert item.stepwise and [record] == _ask(model, FOOD, max_new_tokens=8, num_beams=1)
    events = [told.of(piece) for piece in pieces]
    assert "".join(each["token"]["text"] for each in events) == record["generated_text"]
    assert events[-1]["details"]["generated_tokens"] == len(events)
    assert events[-1]["details"]["input_length"] == usual.cost


def test_a_model_that_would_say_something_else_side_by_side_is_left_to_generate(saved, monkeypatch, caplog):
    caplog.set_level("INFO")
    part = seq2seq._part

    def near_sighted(text, number):
        return replace(part(text, number), source=slice(text.start, text.start + 1))

    monkeypatch.setattr(seq2seq, "_part", near_sighted)
    model = Text2Text(table.find("text2text-generation"), saved(T5), Options())
    assert not model.steps and "would say something else" in caplog.text
    (item,) = _items(model, FOOD, **GREEDY)
    assert not item.stepwise


# Sampling


@pytest.mark.parametrize("name", [T5, NLLB])
def test_a_seed_makes_the_same_text_in_any_company(runner, name):
    """With a temperature at which everything is drawn, what fills rows up too."""
    model = runner(name, TASKS.get(name, "translation"))
    sampled = {**GREEDY, "max_new_tokens": 30, "do_sample": True, "temperature": 99.0, "top_k": 0, "eos_token_id": 9}
    items = [item for seed in range(4) for item in _items(model, TEXTS[:3], seed=seed, **sampled)]
    heard = [_heard(item) for item in items]
    texts = stepped(model, items, late=(1, 6))
    assert len({str(text) for text in texts}) > 4
    assert texts == [model.run([item])[0] for item in items]
    assert any(model._words.pad in tokens for tokens in heard)


def test_several_texts_of_one_differ_and_a_seed_repeats_them(runner):
    model = runner(BART)
    sampled = {**GREEDY, "do_sample": True, "temperature": 3.0, "num_return_sequences": 3}
    (item,), (other,) = (_items(model, FOOD, seed=seed, **sampled) for seed in (1, 9))
    (texts,), (others,) = stepped(model, [item]), stepped(model, [other])
    assert len({each["summary_text"] for each in texts}) == 3
    assert stepped(model, [other, item], late=(1,)) == [others, texts]
    with pytest.raises(InvalidInput, match="num_return_sequences"):
        model.told(item)


@pytest.mark.parametrize("name", [T5, BART, MARIAN])
@pytest.mark.parametrize(
    "way", [{"num_beams": 1, "top_n_tokens": 2}, {"num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2}]
)
def test_details_say_how_each_text_ended_and_of_which_tokens(runner, name, way):
    model = runner(name)
    asked = {**GREEDY, **way}
    (item,) = _items(model, FOOD, details=True, **asked)
    (records,) = stepped(model, [item]) if item.stepwise else model.run([item])
    (plain,) = model.run(_items(model, FOOD, **{key: value for key, value in asked.items() if key != "top_n_tokens"}))
    for record, wanted in zip(records, plain, strict=True):
        found = record.pop("details")
        assert record == wanted
        assert found["generated_tokens"] == len(found["tokens"]) and found["finish_reason"] in {"length", "eos_token"}
        assert "".join(token["text"] for token in found["tokens"]).strip() == next(iter(record.values())).strip()
        if item.stepwise:
            assert all(len(top) == 2 for top in found["top_tokens"])
    (brief,) = _items(model, FOOD, details="brief", **GREEDY)
    assert "tokens" not in stepped(model, [brief])[0][0]["details"]


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
