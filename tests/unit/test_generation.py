"""Texts made side by side are what `generate()` makes of each alone."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfserve.errors import InvalidInput
from hfserve.runtimes import generation
from hfserve.runtimes.generation import BLOCK, Pool
from hfserve.settings import Options
from hfserve.tasks import generation as shared
from hfserve.tasks import table
from hfserve.tasks.text_generation import TextGeneration
from stepping import stepped

torch.set_num_threads(1)

GPT2, LLAMA = "text-generation-gpt2", "text-generation-llama"
TEXTS = ["The food was good in London.", "a", "The service of the place was not bad, and", "Paris", "Once upon a time"]
GREEDY = {"do_sample": False, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def runner(saved):
    made = {}

    def runner(name):
        if name not in made:
            made[name] = TextGeneration(table.find("text-generation"), saved(name), Options())
            assert made[name].steps, "this model's texts are made side by side"
        return made[name]

    return runner


GRID = [
    {},
    {"max_new_tokens": 1},
    {"max_new_tokens": 30},
    {"repetition_penalty": 1.8, "max_new_tokens": 20},
    {"no_repeat_ngram_size": 2, "max_new_tokens": 20},
    {"min_new_tokens": 12},
    {"min_length": 40, "max_new_tokens": 20},
    {"max_new_tokens": None, "max_length": 50},
    {"bad_words_ids": [[34], [5, 6]], "suppress_tokens": [90, 91]},
    {"eos_token_id": [0, 34, 78]},
    {"stop": ["n", "4"], "max_new_tokens": 30},
    {"return_full_text": False},
    {"return_tensors": True},
    {"renormalize_logits": True},
    {"frequency_penalty": 1.5, "max_new_tokens": 20},
    {"presence_penalty": -1.0, "max_new_tokens": 20},
    {"sequence_bias": [[[34], 5.0], [[5, 6], -3.5]]},
]


@pytest.mark.parametrize("parameters", GRID, ids=str)
@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_greedy_texts_are_those_of_generate_alone_and_in_company(runner, name, parameters):
    told = {key: value for key, value in {**GREEDY, **parameters}.items() if value is not None}
    model = runner(name)
    alone = [model.items({"inputs": [text], "parameters": told}) for text in TEXTS]
    assert all(item.stepwise for (item,) in alone)
    wanted = [model.run(items)[0] for items in alone]
    assert [stepped(model, items)[0] for items in alone] == wanted
    assert stepped(model, [item for (item,) in alone], late=(1, 3)) == wanted


def test_penalties_count_what_the_text_has_and_not_the_prompt():
    scores = shared.Penalties(2, 0.5, 1.0)(torch.tensor([[4, 4, 1, 1, 2]]), torch.zeros(1, 5))
    assert scores.tolist() == [[0.0, -2.0, -1.5, 0.0, 0.0]]


def test_items_that_ask_for_different_things_run_together(runner):
    model = runner(LLAMA)
    asked = [
        {**GREEDY, "repetition_penalty": 1.5}, GREEDY, {**GREEDY, "no_repeat_ngram_size": 3}, {**GREEDY, "stop": "4"},
    ]  # fmt: skip
    items = [model.items({"inputs": TEXTS[0], "parameters": each})[0] for each in asked]
    assert stepped(model, items) == [model.run([item])[0] for item in items]


def test_what_one_asks_for_in_vain_fails_nobody_else(runner):
    model = runner(LLAMA)
    good = model.items({"inputs": TEXTS, "parameters": GREEDY})
    (bad,) = model.items({"inputs": "a", "parameters": {**GREEDY, "bad_words_ids": [[10_000]]}})
    *answers, refused = stepped(model, [*good, bad])
    assert answers == model.run(good)
    assert isinstance(refused, InvalidInput) and "10000" in str(refused)


def test_a_seed_repeats_a_text_whoever_runs_beside_it(runner):
    model = runner(LLAMA)
    sampled = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12}
    (seeded,) = model.items({"inputs": "Paris", "parameters": {**sampled, "seed": 7}})
    others = model.items({"inputs": TEXTS, "parameters": sampled})
    (alone,) = stepped(model, [seeded])
    assert stepped(model, [*others, seeded])[-1] == stepped(model, [seeded, *others], late=(0,))[0] == alone
    (other,) = model.items({"inputs": "Paris", "parameters": {**sampled, "seed": 8}})
    assert stepped(model, [other])[0] != alone


def test_many_texts_of_one_prompt_differ_and_a_seed_repeats_them(runner):
    model = runner(GPT2)
    asked = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 16, "num_return_sequences": 3, "seed": 1}
    (item,) = model.items({"inputs": "Paris", "parameters": asked})
    (texts,) = stepped(model, [item])
    assert len({each["generated_text"] for each in texts}) == 3
    assert stepped(model, [item])[0] == texts


def test_sampling_follows_the_probabilities(runner):
    """With top_k=1, and with a hair of temperature, the likeliest token is always drawn."""
    model = runner(LLAMA)
    (greedy,) = model.items({"inputs": "Paris", "parameters": {**GREEDY, "max_new_tokens": 8}})
    for sure in ({"top_k": 1}, {"temperature": 0.001}, {"top_p": 1e-6}):
        (item,) = model.items({"inputs": "Paris", "parameters": {"do_sample": True, "max_new_tokens": 8, **sure}})
        assert stepped(model, [item]) == stepped(model, [greedy])


def test_a_prompt_longer_than_a_pass_is_read_piece_by_piece_while_others_are_written(runner):
    model = runner(LLAMA)
    long, short = model.items({"inputs": ["word " * 16, "a"], "parameters": {**GREEDY, "max_new_tokens": 10}})
    engine = model._engines[0]
    before, engine.most_tokens = engine.most_tokens, 8
    try:
        assert len(long.data.ids) > 8 * generation.ALONE // 2
        assert stepped(model, [short, long], late=(1,)) == [model.run([item])[0] for item in (short, long)]
    finally:
        engine.most_tokens = before


def test_details_say_how_it_ended_and_what_each_token_was_worth(runner):
    model = runner(LLAMA)
    asked = {**GREEDY, "max_new_tokens": 4, "details": True, "top_n_tokens": 2}
    (item,) = model.items({"inputs": "Paris", "parameters": asked})
    ((record,),) = stepped(model, [item])
    found = record["details"]
    assert found["finish_reason"] == "length" and found["generated_tokens"] == len(found["tokens"]) == 4
    assert found["input_length"] == len(item.data.ids)
    assert record["generated_text"] == "Paris" + "".join(token["text"] for token in found["tokens"])
    with torch.inference_mode():
        logits = model._model(torch.tensor([item.data.ids])).logits[0, -1].log_softmax(-1)
    assert found["tokens"][0]["logprob"] == pytest.approx(float(logits.max()), abs=1e-4)
    assert [each["id"] for each in found["top_tokens"][0]] == logits.topk(2).indices.tolist()
    ((stopped,),) = stepped(model, model.items({"inputs": "Paris", "parameters": {**asked, "eos_token_id": [
        found["tokens"][1]["id"]]}}))  # fmt: skip
    assert stopped["details"]["finish_reason"] == "eos_token" and stopped["details"]["generated_tokens"] == 2


def test_each_of_many_texts_has_its_details(runner):
    model = runner(LLAMA)
    asked = {"max_new_tokens": 6, "num_return_sequences": 2, "details": True, "return_full_text": False}
    for way in ({"do_sample": True, "seed": 2}, {"do_sample": False, "num_beams": 2}):
        (item,) = model.items({"inputs": "Paris", "parameters": {**asked, **way}})
        (records,) = stepped(model, [item]) if item.stepwise else model.run([item])
        for record in records:
            tokens = record["details"]["tokens"]
            assert record["details"]["generated_tokens"] == len(tokens) <= 6
            assert record["generated_text"] == "".join(token["text"] for token in tokens)
        with pytest.raises(InvalidInput, match="stream"):
            model.told(item)


def test_what_generate_makes_is_told_too_and_ends_when_nobody_listens(saved, monkeypatch):
    model = TextGeneration(table.find("text-generation"), saved(LLAMA), Options())
    monkeypatch.setattr(model, "_engines", [])  # as for a family that texts cannot be made side by side for
    for asked in (GREEDY, {**GREEDY, "stop": "4"}):
        data = {"inputs": "Paris", "parameters": {**asked, "return_full_text": False}}
        (item,) = model.items(data)
        assert not item.stepwise
        pieces = []
        item.feed.tell = pieces.append
        (((record),),) = model.run([item])
        events = model.events(item)
        told = [events.of(piece) for piece in pieces]
        assert "".join(each["token"]["text"] for each in told) == told[-1]["generated_text"] == record["generated_text"]
        assert told[-1]["details"]["generated_tokens"] == len(told)
    assert told[-1]["details"]["finish_reason"] == "stop_sequence"
    (item,) = model.items({"inputs": "Paris", "parameters": {**GREEDY, "max_new_tokens": 60, "min_new_tokens": 60}})
    pieces = []

    def leave(piece):
        pieces.append(piece)
        item.feed.gone = len(pieces) == 3

    item.feed.tell = leave
    model.run([item])
    assert len(pieces) < 8


def test_what_could_never_run_is_refused_at_once(saved):
    small = TextGeneration(table.find("text-generation"), saved(LLAMA), Options(max_batch=1))
    engine = small._engines[0]
    engine.pool = Pool(2)
    with pytest.raises(InvalidInput, match=r"inputs: 1 text of up to \d+ tokens, .*HFSERVE_KV_CACHE_MB"):
        small.items({"inputs": "Paris", "parameters": {"max_new_tokens": 60}})
    assert small.items({"inputs": "Paris", "parameters": {"max_new_tokens": 8}})
    with pytest.raises(InvalidInput, match="2 texts"):
        small.items({"inputs": "a", "parameters": {"do_sample": True, "num_return_sequences": 2, "max_new_tokens": 2}})


@pytest.mark.parametrize(("at_once", "lanes", "found"), [(1, None, [1]), (5, 2, [3, 3]), (8, 1, [8])])
def test_lanes_share_the_texts_that_may_run_at_once(saved, monkeypatch, at_once, lanes, found):
    monkeypatch.setattr(generation.devices, "cores", lambda: 4)
    options = Options(max_batch=at_once, lanes=lanes)
    model = TextGeneration(table.find("text-generation"), saved(LLAMA), options)
    assert [engine.most_texts for engine in model._engines] == found


def test_there_is_memory_for_as_much_as_was_set(saved):
    of_token = 2 * 2 * 32 * 4  # layers, keys and values, width, bytes
    engine = TextGeneration(table.find("text-generation"), saved(GPT2), Options(kv_cache_mb=1))._engines[0]
    assert engine.tokens <= (1 << 20) // of_token


def test_who_leaves_gives_its_room_back(runner):
    model = runner(LLAMA)
    items = model.items({"inputs": TEXTS, "parameters": {**GREEDY, "max_new_tokens": 30}})
    started = [model.steps[0].start(item) for item in items]
    model.steps[0].step(1)
    assert model.steps[0].room[0] == sum(-(-(len(item.data.ids) + 29) // BLOCK) for item in items)
    for each in started[:4]:
        model.steps[0].stop(each)
    while not (ended := model.steps[0].step(1)):
        pass
    assert ended[0] == (started[4], model.run([items[4]])[0])
    assert model.steps[0].room[0] == 0


def test_a_search_with_beams_goes_another_way(runner):
    model = runner(LLAMA)
    (item,) = model.items({"inputs": "Paris", "parameters": {**GREEDY, "num_beams": 3}})
    assert not item.stepwise
    with pytest.raises(InvalidInput, match="num_beams"):
        model.told(item)


@given(st.integers(0, 2**32))
def test_a_pool_never_gives_a_block_twice_and_forgets_none(seed):
    chance = random.Random(seed)
    pool = Pool(40)
    held = {}
    for _ in range(60):
        if held and chance.random() < 0.45:
            start = chance.choice(list(held))
            pool.give(start, held.pop(start))
        else:
            size = chance.randint(1, 12)
            start = pool.take(size)
            if start is not None:
                held[start] = size
        taken = [block for start, size in held.items() for block in range(start, start + size)]
        assert len(set(taken)) == len(taken) == pool.used and all(0 <= block < 40 for block in taken)
    for start, size in held.items():
        pool.give(start, size)
    assert pool.take(40) == 0
