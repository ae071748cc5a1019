"""What is written of pictures and sounds side by side is what the pipeline writes of each alone."""

import base64
import io
import threading

import pytest
import torch
from PIL import Image
from transformers import LogitsProcessorList

from hfserve.errors import InvalidInput
from hfserve.openai import Chatting
from hfserve.settings import Options
from hfserve.tasks import examples, table
from hfserve.tasks.telling import TellingPipelineRunner
from stepping import stepped

torch.set_num_threads(1)

LLAVA, QWEN2, QWEN3 = "image-text-to-text-llava", "image-text-to-text-qwen2-vl", "image-text-to-text-qwen3-vl"
HEARS, BARE = "any-to-any-audio", "image-text-to-text-git"
GREEDY = {"do_sample": False, "max_new_tokens": 10}


def picture(width, height, seed=0):
    content = io.BytesIO()
    pixels = torch.randint(0, 255, (height, width, 3), dtype=torch.uint8, generator=torch.manual_seed(seed))
    Image.fromarray(pixels.numpy()).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


SHOWN = [
    {"image": picture(32, 32), "text": "What is it?"},
    {"image": picture(52, 30, 1), "text": "And this, with more words to read?"},
    "Once upon a time",
    [{"role": "user", "content": [{"type": "image", "image": picture(16, 40, 2)}, {"type": "text", "text": "a"}]}],
    {"images": [picture(20, 20, 3), picture(24, 16, 4)], "text": "Which?"},
]


@pytest.fixture(scope="module")
def runner(saved):
    made = {}

    def runner(name):
        if name not in made:
            task = table.find("any-to-any" if name.startswith("any") else "image-text-to-text")
            made[name] = TellingPipelineRunner(task, saved(name), Options())
        return made[name]

    return runner


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_new_tokens": 1},
        {"repetition_penalty": 1.8},
        {"sequence_bias": [[[34], 5.0]]},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 10},
        {"eos_token_id": [0, 34, 78, 120, 200]},
        {"stop_sequence": ["n", "4"]},
        {"return_full_text": False},
        {"skip_special_tokens": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [LLAVA, QWEN2, QWEN3])
def test_texts_of_pictures_are_those_of_the_pipeline_alone_and_in_company(runner, name, parameters):
    model = runner(name)
    items = [model.items({"inputs": each, "parameters": {**GREEDY, **parameters}})[0] for each in SHOWN]
    assert all(item.stepwise for item in items)
    wanted = model.run(items)
    assert [stepped(model, [item])[0] for item in items] == wanted
    assert stepped(model, items, late=(0, 3)) == wanted
    assert len({str(each) for each in wanted}) == len(wanted), "the pictures are seen"


@pytest.mark.parametrize("name", [LLAVA, QWEN2, QWEN3])
def test_a_picture_is_read_piece_by_piece_while_others_are_written(runner, name):
    model = runner(name)
    items = [model.items({"inputs": each, "parameters": GREEDY})[0] for each in SHOWN]
    engine = model._engines[0]
    before, engine.most_tokens = engine.most_tokens, 8
    try:
        assert stepped(model, items, late=(1, 4)) == model.run(items)
    finally:
        engine.most_tokens = before


def test_sounds_are_heard_in_company(runner):
    model = runner(HEARS)
    marked = "<|audio_bos|><|AUDIO|><|audio_eos|>good?"
    sounds = [{"text": marked, "audio": examples.wav(count)} for count in (4000, 9000)]
    items = [model.items({"inputs": each, "parameters": GREEDY})[0] for each in [*sounds, {"text": "Paris"}]]
    assert all(item.stepwise for item in items)
    wanted = model.run(items)
    assert stepped(model, items, late=(1,)) == wanted and wanted[0] != wanted[1]


def test_a_list_has_an_answer_for_each(runner):
    model = runner(LLAVA)
    data = {"inputs": SHOWN[:3], "parameters": GREEDY}
    items = model.items(data)
    assert len(items) == 3
    answers = model.result(data, stepped(model, items))
    assert answers == [model.run(model.items({"inputs": each, "parameters": GREEDY}))[0] for each in SHOWN[:3]]


def test_several_texts_of_a_picture_differ_and_a_seed_repeats_them(runner):
    model = runner(QWEN2)
    asked = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 12, "num_return_sequences": 3, "seed": 1}
    (item,) = model.items({"inputs": SHOWN[0], "parameters": asked})
    (texts,) = stepped(model, [item])
    assert len({each["generated_text"] for each in texts}) == 3
    assert stepped(model, [item])[0] == texts


def test_details_are_of_each_token(runner):
    model = runner(QWEN2)
    asked = {**GREEDY, "details": True, "top_n_tokens": 2, "return_full_text": False}
    (item,) = model.items({"inputs": SHOWN[0], "parameters": asked})
    ((record,),) = stepped(model, [item])
    found = record["details"]
    assert found["generated_tokens"] == len(found["tokens"]) == 10 and found["input_length"] == item.cost
    assert record["generated_text"] == "".join(token["text"] for token in found["tokens"])
    for token, top in zip(found["tokens"], found["top_tokens"], strict=True):
        assert token["logprob"] == top[0]["logprob"]
    (brief,) = model.items({"inputs": SHOWN[0], "parameters": {**asked, "details": "brief", "top_n_tokens": None}})
    assert "tokens" not in stepped(model, [brief])[0][0]["details"]


def test_a_search_goes_through_the_pipeline(runner):
    (item,) = runner(LLAVA).items({"inputs": SHOWN[0], "parameters": {**GREEDY, "num_beams": 2}})
    assert not item.stepwise and runner(LLAVA).run([item])[0][0]["generated_text"]
    with pytest.raises(InvalidInput, match="details: not with this model, or not with a search"):
        runner(LLAVA).items({"inputs": SHOWN[0], "parameters": {**GREEDY, "num_beams": 2, "details": True}})


@pytest.mark.parametrize("name", [QWEN2, QWEN3])
def test_a_search_is_not_disturbed_by_what_runs_beside_it(runner, name):
    """These models remember the last picture that they were shown."""
    model = runner(name)
    (searched,) = model.items({"inputs": SHOWN[0], "parameters": {**GREEDY, "num_beams": 2}})
    (other,) = model.items({"inputs": SHOWN[4], "parameters": GREEDY})
    (wanted,), written = model.run([searched]), []

    def beside(ids, scores):
        thread = threading.Thread(target=lambda: written.extend(stepped(model, [other])))
        thread.start()
        thread.join()
        return scores

    told = model._told(searched)
    model._told = lambda item: {**told, "logits_processor": LogitsProcessorList([beside])}
    try:
        assert model.run([searched]) == [wanted]
    finally:
        del model._told
    assert len(written) == 10 and all(each == written[0] for each in written)


def test_a_model_that_looks_ahead_goes_through_the_pipeline(runner):
    model = runner(BARE)
    assert not model.steps and not isinstance(model, Chatting)
    (item,) = model.items({"inputs": SHOWN[0], "parameters": GREEDY})
    assert not item.stepwise and model.run([item])[0][0]["generated_text"]


def test_a_picture_that_the_model_cannot_read_fails_nobody_else(runner):
    model = runner(LLAVA)
    items = [model.items({"inputs": each, "parameters": GREEDY})[0] for each in SHOWN[:3]]
    wanted = items[1].parameters["wanted"][0]
    wanted.given["pixel_values"] = wanted.given["pixel_values"][:, :2]
    one, broken, other = stepped(model, items)
    assert [one, other] == model.run([items[0], items[2]]) and isinstance(broken, Exception)


def test_a_prompt_beyond_the_model_is_refused_and_a_text_ends_with_its_positions(runner, saved):
    model = runner(LLAVA)
    with pytest.raises(InvalidInput, match=r"inputs has \d+ tokens, .* takes 96"):
        model.items({"inputs": {"image": SHOWN[0]["image"], "text": "word " * 40}, "parameters": GREEDY})
    (item,) = model.items({"inputs": SHOWN[0], "parameters": {**GREEDY, "max_new_tokens": 200}})
    (wanted,) = item.parameters["wanted"]
    assert len(wanted.prompt) + wanted.most == 96
    small = TellingPipelineRunner(model.task, saved(LLAVA), Options())
    small._engines[0].pool.blocks = 2
    with pytest.raises(InvalidInput, match="HFSERVE_KV_CACHE_MB"):
        small.items({"inputs": SHOWN[0], "parameters": GREEDY})
