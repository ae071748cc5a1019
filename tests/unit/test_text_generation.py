"""text-generation answers as the pipeline of transformers 5.23 does, alone and in company."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import TypeAdapter

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers as hf

import tiny
from hfserve.errors import InvalidInput, LoadError
from hfserve.messages import Request
from hfserve.model import TaskModel
from hfserve.settings import Options, Settings
from hfserve.tasks import table
from hfserve.tasks.schemas import generation as schemas
from hfserve.tasks.telling import TellingPipelineRunner
from hfserve.tasks.text_generation import TextGeneration

torch.set_num_threads(1)

GPT2, LLAMA = "text-generation-gpt2", "text-generation-llama"
FOOD = "The food was good in London."
TEXTS = [FOOD, "a", "The service of the place was not bad, and", "Paris", "Once upon a time"]
ASKED = {"role": "user", "content": "Is it good?"}
CHAT = [{"role": "system", "content": "Be brief."}, ASKED]
STARTED = [ASKED, {"role": "assistant", "content": "It is"}]
GREEDY = {"do_sample": False, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def runner(saved):
    made = {}

    def runner(name):
        if name not in made:
            made[name] = TextGeneration(table.find("text-generation"), saved(name), Options())
        return made[name]

    return runner


@pytest.fixture(scope="module")
def pipe(saved):
    made = {}

    def pipe(name):
        if name not in made:
            made[name] = hf.pipeline("text-generation", str(saved(name)), device="cpu")
        return made[name]

    return pipe


def _changed(folder, tmp_path, **changes):
    """A copy of a model whose files say something else: `_changed(folder, tmp, config={"prefix": "x"})`."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name, values in changes.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return tmp_path


def _load(folder, **options):
    return TextGeneration(table.find("text-generation"), folder, Options(**options))


def _ask(runner, inputs, **parameters):
    data = {"inputs": inputs, "parameters": parameters}
    outcomes = runner.run(runner.items(data))
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return runner.result(data, outcomes)


# As the pipeline

GRID = [
    {},
    {"num_beams": 3, "num_return_sequences": 2},
    {"num_beams": 4, "length_penalty": -2.0, "early_stopping": True},
    {"num_beams": 2, "early_stopping": "never"},
    {"max_new_tokens": 20, "repetition_penalty": 1.8},
    {"max_new_tokens": 20, "no_repeat_ngram_size": 2},
    {"min_new_tokens": 8},
    {"min_length": 20, "max_new_tokens": 20},
    {"max_new_tokens": None, "max_length": 50},
    {"max_length": 5},
    {"return_full_text": False},
    {"return_full_text": True, "skip_special_tokens": False},
    {"return_tensors": True},
    {"prefix": "Well: "},
    {"prefix": "Well: ", "max_new_tokens": None, "max_length": 60},
    {"add_special_tokens": False, "clean_up_tokenization_spaces": True},
    {"bad_words_ids": [[34], [5, 6]], "suppress_tokens": [90, 91]},
    {"eos_token_id": [0, 34], "pad_token_id": 0},
    {"handle_long_generation": "hole", "max_new_tokens": 80},
    {"tokenizer_encode_kwargs": {"truncation": True, "max_length": 3}},
    {"renormalize_logits": True, "truncation": True, "padding": True},
]


def _of_pipeline(pipe, inputs, parameters):
    told = {name: value for name, value in {**GREEDY, **parameters}.items() if value is not None}
    return pipe(inputs, **told)


@pytest.mark.parametrize("parameters", GRID, ids=str)
@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_a_text_is_the_pipeline_s(runner, pipe, name, parameters):
    ours = _ask(runner(name), TEXTS, **{**GREEDY, **parameters})
    assert ours == _of_pipeline(pipe(name), list(TEXTS), parameters)
    assert _ask(runner(name), FOOD, **{**GREEDY, **parameters}) == ours[0]
    TypeAdapter(list[schemas.TEXT_GENERATION.answer]).validate_python(ours)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"return_full_text": False},
        {"continue_final_message": True},
        {"continue_final_message": False, "num_beams": 2, "num_return_sequences": 2},
        {"max_new_tokens": None, "max_length": 70},
        {"truncation": True, "max_length": 6},
        {"tools": [{"type": "function", "function": {"name": "look_up"}}], "documents": [{"text": "a"}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("chat", [CHAT, STARTED], ids=["asked", "started"])
def test_a_chat_is_the_pipeline_s(runner, pipe, chat, parameters):
    ours = _ask(runner(LLAMA), chat, **{**GREEDY, **parameters})
    assert ours == _of_pipeline(pipe(LLAMA), chat, parameters)
    assert _ask(runner(LLAMA), [chat, CHAT], **{**GREEDY, **parameters})[0] == ours
    TypeAdapter(schemas.TEXT_GENERATION.answer).validate_python(ours)


def test_the_grid_has_answers_of_many_kinds(runner):
    answers = {str(_ask(runner(GPT2), FOOD, **{**GREEDY, **parameters})) for parameters in GRID}
    assert len(answers) > 12


@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_what_is_sampled_is_the_pipeline_s(runner, pipe, name):
    for parameters in ({}, {"top_k": 5, "temperature": 1.5}, {"top_p": 0.8}, {"min_p": 0.1, "num_return_sequences": 3}):
        torch.manual_seed(7)
        theirs = pipe(name)(FOOD, max_new_tokens=12, **parameters)
        assert _ask(runner(name), FOOD, max_new_tokens=12, seed=7, **parameters) == theirs


@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_a_text_ends_with_a_stop_string_as_in_the_pipeline(runner, pipe, name):
    (whole,) = _ask(runner(name), FOOD, **GREEDY, return_full_text=False)
    stop = whole["generated_text"].replace("�", "")[:1] or whole["generated_text"][:1]
    theirs = pipe(name)(FOOD, stop_sequence=[stop, "never"], **GREEDY)
    asked = [{"stop": [stop, "never"]}, {"stop_sequence": stop}, {"stop_sequences": [stop]}, {"stop_strings": stop}]
    assert [_ask(runner(name), FOOD, **GREEDY, **each) for each in asked] == [theirs] * 4
    if "�" not in stop:
        assert theirs[0]["generated_text"].endswith(stop) and len(theirs[0]["generated_text"]) < len(FOOD) + 8


def test_what_the_model_s_files_say_counts_as_in_the_pipeline(saved, tmp_path):
    said = {"max_new_tokens": 5, "do_sample": False, "repetition_penalty": 1.5, "eos_token_id": [0, 40]}
    folder = _changed(saved(GPT2), tmp_path, generation_config=said, config={"prefix": "Oh. "})
    model, pipe = _load(folder), hf.pipeline("text-generation", str(folder))
    assert [_ask(model, text) for text in TEXTS] == [pipe(text) for text in TEXTS] == _ask(model, TEXTS)
    assert _ask(model, FOOD, prefix="") == pipe(FOOD, prefix="") != _ask(model, FOOD)


@pytest.mark.parametrize("text", ["", "ñ漢字 \u0007", " "])
def test_odd_texts_are_the_pipeline_s(runner, pipe, text):
    for parameters in ({}, {"return_tensors": True}, {"skip_special_tokens": False}):
        assert _ask(runner(GPT2), text, **GREEDY, **parameters) == _of_pipeline(pipe(GPT2), text, parameters)
    assert runner(GPT2).run([runner(GPT2).items({"inputs": each, "parameters": GREEDY})[0] for each in (text, FOOD)])[
        0
    ] == _ask(runner(GPT2), text, **GREEDY)


@pytest.mark.parametrize("more", [{}, {"num_beams": 3, "num_return_sequences": 3}], ids=str)
@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_stop_strings_of_any_kind_are_the_pipeline_s(runner, pipe, name, more):
    """Within a text, over its edge with the prompt, over several tokens, and where special tokens are written."""
    asked = {**GREEDY, "max_new_tokens": 24, **more}
    ended = 0
    for text in TEXTS:
        whole = _ask(runner(name), text, **asked)[0]["generated_text"]
        edge, plain = len(text), whole.replace("�", "")
        for stop in (
            whole[edge : edge + 1],
            whole[edge - 1 : edge + 1],
            plain[-4:],
            plain[-9:-6],
            "<|endoftext|>",
            text,
        ):
            if "�" in stop or not stop:
                continue
            ours = _ask(runner(name), text, **asked, stop=[stop, "never"])
            assert ours == pipe(name)(text, stop_sequence=[stop, "never"], **asked)
            ended += ours[0]["generated_text"] != whole
    assert ended > 3


def test_a_long_stop_string_of_letters_the_model_lacks_ends_nothing(runner):
    assert _ask(runner(GPT2), FOOD, **GREEDY, stop=["漢" * 200]) == _ask(runner(GPT2), FOOD, **GREEDY)


# Company


@pytest.mark.parametrize("parameters", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}], ids=str)
@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_company_changes_no_token(runner, saved, name, parameters):
    model = runner(name)
    items = [model.items({"inputs": text, "parameters": {**GREEDY, **parameters}})[0] for text in TEXTS]
    assert len({item.batch_key for item in items}) == 1 and not model._alone
    whole = model._generated(items)
    assert whole == [_ask(model, text, **GREEDY, **parameters) for text in TEXTS] == model.run(items)
    bare = hf.AutoModelForCausalLM.from_pretrained(saved(name))
    words = hf.AutoTokenizer.from_pretrained(saved(name))
    for text, answer in zip(TEXTS, whole, strict=True):
        tokens = bare.generate(**words(text, return_tensors="pt"), **GREEDY, **parameters)
        start = len(words(text)["input_ids"])
        assert [text + words.decode(row[start:], skip_special_tokens=True) for row in tokens] == [
            each["generated_text"] for each in answer
        ]


def test_stop_strings_end_each_text_in_company(runner):
    model = runner(GPT2)
    alone = [_ask(model, text, **{**GREEDY, "max_new_tokens": 30}, stop=['"', "e", "a"]) for text in TEXTS]
    parameters = {**GREEDY, "max_new_tokens": 30, "stop": ['"', "e", "a"]}
    items = [model.items({"inputs": text, "parameters": parameters})[0] for text in TEXTS]
    assert len({item.batch_key for item in items}) == 1
    assert model._generated(items) == alone
    assert len({len(answer[0]["generated_text"]) - len(text) for text, answer in zip(TEXTS, alone, strict=True)}) > 1


def test_prompts_of_a_text_and_a_chat_share_a_pass(runner):
    model = runner(LLAMA)
    (text,) = model.items({"inputs": FOOD, "parameters": {**GREEDY, "return_full_text": False}})
    (chat,) = model.items({"inputs": CHAT, "parameters": GREEDY})
    assert text.batch_key == chat.batch_key and text.cost == len(text.data.ids) < chat.cost
    alone = [_ask(model, FOOD, **GREEDY, return_full_text=False), _ask(model, CHAT, **GREEDY)]
    assert model._generated([text, chat]) == alone


def _key(model, inputs=FOOD, **parameters):
    return model.items({"inputs": inputs, "parameters": {**GREEDY, **parameters}})[0].batch_key


def test_requests_share_a_pass_when_they_ask_for_the_same(runner):
    model = runner(GPT2)
    assert _key(model) == _key(model, seed=3) == _key(model, "a", return_full_text=False, truncation=True)
    assert _key(model, stop="x") == _key(model, stop_sequences=["x"]) != _key(model, stop=["x", "y"])
    assert len({_key(model), _key(model, num_beams=2), _key(model, max_new_tokens=9), _key(model, stop="x")}) == 4
    assert _key(model, do_sample=True, seed=1) != _key(model, do_sample=True, seed=1)


@pytest.mark.parametrize("parameters", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}], ids=str)
def test_who_looks_back_is_never_padded(runner, parameters):
    model = runner(GPT2)
    assert _key(model, "abc", **parameters) == _key(model, "xyz", **parameters) != _key(model, "abcd", **parameters)


def test_a_model_that_padding_disturbs_runs_alone(tmp_path):
    """RWKV reads the padding as it reads the text."""
    words = tiny._gpt2()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "context_length": 96}
    for part in (hf.RwkvForCausalLM(hf.RwkvConfig(vocab_size=len(words), **sizes)), words):
        part.save_pretrained(tmp_path)
    model = _load(tmp_path)
    assert model._alone and _key(model) != _key(model)
    theirs = hf.pipeline("text-generation", str(tmp_path))(list(TEXTS), **GREEDY)
    items = model.items({"inputs": TEXTS, "parameters": GREEDY})
    assert model.run(items) == theirs != model._generated(items)


def test_embeddings_that_grow_with_the_batch_keep_it_apart(saved, tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    model = _load(_changed(saved(LLAMA), tmp_path, config={"rope_parameters": rope}))
    assert model._alone and not model.concurrent and model._limit == 192


def test_a_model_without_a_padding_token_is_served(saved, tmp_path):
    folder = _changed(saved(GPT2), tmp_path, tokenizer_config={"pad_token": None}, config={"pad_token_id": None},
                      generation_config={"pad_token_id": None})  # fmt: skip
    model, pipe = _load(folder), hf.pipeline("text-generation", str(folder))
    assert model._words.pad is None and not model._alone
    items = [model.items({"inputs": text, "parameters": GREEDY})[0] for text in TEXTS]
    assert model._generated(items) == [pipe(text, **GREEDY) for text in TEXTS]


@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_threads_do_not_disturb_each_other(runner, name):
    model = runner(name)
    asked = [
        (text, each) for text in TEXTS for each in ({}, {"num_beams": 2}, {"stop": "e"}, {"do_sample": True, "seed": 4})
    ]
    alone = [_ask(model, text, **{**GREEDY, **each}) for text, each in asked]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda each: _ask(model, each[0], **{**GREEDY, **each[1]}), asked * 2))
    assert together == alone * 2 and model.concurrent


# Sampling


def test_requests_sample_unless_they_say_otherwise(runner):
    torch.manual_seed(1)
    model = runner(GPT2)
    assert len({str(_ask(model, FOOD, max_new_tokens=12)) for _ in range(5)}) > 1


def test_a_seed_repeats_what_was_sampled_and_leaves_the_rest_alone(runner):
    model = runner(GPT2)
    first, same, other = (_ask(model, FOOD, seed=seed, max_new_tokens=12, temperature=2.0) for seed in (7, 7, 8))
    assert first == same != other
    torch.manual_seed(1)
    number = torch.rand(1)
    torch.manual_seed(1)
    _ask(model, FOOD, seed=7, max_new_tokens=4)
    assert torch.rand(1) == number


# Lengths


@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_generation_ends_where_the_positions_do(runner, name):
    model = runner(name)
    (tokens,) = _ask(model, "a" * 80, do_sample=False, max_new_tokens=500, min_new_tokens=500, return_tensors=True)
    assert len(tokens["generated_token_ids"]) == 96
    assert not model.items({"inputs": "a" * 80})[0].cut


def test_a_prompt_without_room_loses_its_beginning(runner, pipe):
    model, long = runner(GPT2), "Oh. " * 40 + FOOD
    items = model.items({"inputs": [FOOD, long], "parameters": GREEDY})
    assert [item.cut for item in items] == ["", "inputs[1]"] and items[1].cost == 88
    (answer,) = _ask(model, long, **GREEDY)
    assert answer == pipe(GPT2)(long, **GREEDY, handle_long_generation="hole")[0]
    assert model.items({"inputs": long})[0].cost == 48
    with pytest.raises(InvalidInput, match=r"^inputs\[1\] is longer than the 96 tokens that the model takes; .*trunc"):
        model.items({"inputs": ["a", long], "parameters": {"truncation": False}})
    assert model.items({"inputs": FOOD, "parameters": {"truncation": False}})


def test_a_hole_makes_room_for_all_tokens(runner):
    model = runner(GPT2)
    asked = {"do_sample": False, "max_new_tokens": 90, "handle_long_generation": "hole"}
    (item,) = model.items({"inputs": FOOD, "parameters": asked})
    assert item.cost == 6 and item.cut == "inputs" and item.parameters["generate"]["max_new_tokens"] == 90
    with pytest.raises(InvalidInput, match=r"parameters.max_new_tokens: leaves nothing of the 96 tokens"):
        model.items({"inputs": FOOD, "parameters": {**asked, "max_new_tokens": 96}})


def test_a_prompt_is_cut_when_asked(runner, pipe):
    model = runner(GPT2)
    (item,) = model.items({"inputs": FOOD, "parameters": {"truncate": 7}})
    assert item.data.ids == model.items({"inputs": FOOD[-7:]})[0].data.ids and item.cut == "inputs"
    (item,) = model.items({"inputs": FOOD, "parameters": {"max_length": 5, "max_new_tokens": 3}})
    assert item.cost == 5 and item.cut == "inputs"


def test_the_settings_bound_what_is_generated(saved):
    model = _load(saved(GPT2), max_new_tokens=8)
    (tokens,) = _ask(model, FOOD, do_sample=False, return_tensors=True)
    assert len(tokens["generated_token_ids"]) <= len(FOOD) + 8
    assert model.items({"inputs": FOOD})[0].parameters["generate"]["max_new_tokens"] == 8
    assert model.items({"inputs": FOOD, "parameters": {"max_length": len(FOOD) + 8}})
    for name, value in (("max_new_tokens", 9), ("min_new_tokens", 9), ("max_length", len(FOOD) + 9)):
        with pytest.raises(InvalidInput, match=rf"parameters.{name}: .*8 at most \(HFSERVE_MAX_NEW_TOKENS\)"):
            model.items({"inputs": FOOD, "parameters": {name: value}})


# Forms


def test_a_request_is_read_in_every_form(runner):
    model = runner(LLAMA)
    text, chat = _ask(model, FOOD, **GREEDY), _ask(model, CHAT, **GREEDY)
    assert text[0]["generated_text"].startswith(FOOD) and chat[0]["generated_text"][:-1] == CHAT
    assert chat[0]["generated_text"][-1]["role"] == "assistant"
    assert _ask(model, [FOOD, CHAT], **GREEDY) == [text, chat]
    assert _ask(model, {"messages": CHAT, **GREEDY}) == _ask(model, {"messages": CHAT}, **GREEDY) == chat
    assert _ask(model, {"text": FOOD}, **GREEDY) == text and _ask(model, [[ASKED]], **GREEDY)[0] == _ask(
        model, ASKED, **GREEDY
    )
    assert _ask(model, []) == []
    for data in ({"messages": CHAT, "parameters": GREEDY}, {"text": FOOD, "parameters": GREEDY}):
        assert model.result(data, model.run(model.items(data))) == (chat if "messages" in data else text)


def test_parts_of_a_message_are_read(runner, pipe):
    chat = [{"role": "user", "content": [{"type": "text", "text": FOOD}]}]
    assert _ask(runner(LLAMA), chat, **GREEDY) == pipe(LLAMA)(chat, **GREEDY)


def test_a_message_that_ends_with_parts_goes_on(runner):
    chat = [ASKED, {"role": "assistant", "content": [{"type": "text", "text": "It"}]}]
    (answer,) = _ask(runner(LLAMA), chat, **GREEDY, continue_final_message=False)
    assert answer["generated_text"][:-1] == chat


def test_an_answer_goes_out_by_the_model(runner):
    model = TaskModel(runner(GPT2), Settings(model_dir=Path(), _env_file=None))
    model.warm_up()
    body = json.dumps({"inputs": "Oh. " * 40, "parameters": GREEDY}).encode()
    job = model.prepare(Request(body, {"content-type": "application/json"}, "1", float("inf")))
    reply = job.finish(model.run(job.items, 1))
    assert json.loads(reply.body)[0]["generated_text"].startswith("Oh. Oh.")
    assert reply.headers == {"X-HFServe-Truncated": "inputs"}


def test_what_is_accepted_is_in_the_schema():
    takes = TypeAdapter(schemas.TEXT_GENERATION.inputs)
    for good in (FOOD, CHAT, STARTED):
        assert takes.validate_python(good)
    for bad in (None, 3, [], [{"content": "a"}], {"role": "user"}):
        with pytest.raises(ValueError):
            takes.validate_python(bad)


PICTURE = table.TASKS["image-text-to-text"].example["inputs"]["image"]
SHOWN = [{"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is it?"}]}]


@pytest.mark.parametrize("inputs", ["A picture of", {"image": PICTURE, "text": "A picture of"}, SHOWN], ids=type)
@pytest.mark.parametrize("name", ["image-text-to-text-llava", "any-to-any"])
def test_the_pipelines_of_pictures_and_text_answer_by_their_schemas(saved, name, inputs):
    task = tiny.task_of(name)
    schema = {"image-text-to-text": schemas.IMAGE_TEXT_TO_TEXT, "any-to-any": schemas.ANY_TO_ANY}[task]
    model = TellingPipelineRunner(table.find(task), saved(name), Options())
    assert schema.parameters.model_fields.keys() - model.ours <= model._names | model._generation
    TypeAdapter(schema.inputs).validate_python(inputs)
    (answer,) = model.run(model.items({"inputs": inputs, "parameters": GREEDY}))
    assert TypeAdapter(schema.answer).validate_python(answer)[0].generated_text


# What is refused


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (None, "^inputs is null; it has to be a string"),
        (3, "^inputs is a number; it has to be a string"),
        (["a", None], r"^inputs\[1\] is null; it has to be a string"),
        ({"role": "user"}, r"^inputs\[0\].content is null; it has to be a string or a list of parts"),
        ([ASKED, "a"], r"^inputs\[1\] is not a message"),
        ([CHAT, [{"role": 3, "content": "a"}]], r"^inputs\[1\]\[0\] is not a message"),
        ([{"role": "user", "content": 3}], r"^inputs\[0\].content is a number"),
        ([{"role": "user", "content": [{"type": "image"}]}], r"^inputs\[0\].content\[0\] is not text"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"^inputs\[0\].content\[0\].text is null"),
        ([CHAT, []], r"^inputs\[1\] is a chat without messages"),
    ],
)
def test_wrong_inputs_are_named(runner, inputs, told):
    with pytest.raises(InvalidInput, match=told):
        runner(LLAMA).items({"inputs": inputs})


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"max_new_tokens": 0}, "parameters.max_new_tokens: .* greater than or equal to 1"),
        ({"max_new_tokens": 10**9}, r"parameters.max_new_tokens: .*16384 at most"),
        ({"temperature": 0}, "parameters.temperature: "),
        ({"top_p": 2}, "parameters.top_p: "),
        ({"num_beams": 65}, "parameters.num_beams: "),
        ({"stop": [""]}, "parameters.stop: "),
        ({"stop": ["a"] * 17}, "parameters.stop: "),
        ({"seed": -1}, "parameters.seed: "),
        ({"watermark": True}, "parameters.watermark: Input should be False"),
        ({"handle_long_generation": "fill"}, "parameters.handle_long_generation: Input should be 'hole'"),
        ({"tokenizer_encode_kwargs": {"chat_template": "x"}}, "parameters.tokenizer_encode_kwargs.chat_template: not"),
        ({"tools": "x"}, "parameters.tools: "),
        ({"custom_generate": "someone/code"}, "parameters.custom_generate: not known; there are max_new_tokens, "),
        ({"max_length": 10, "truncation": False}, "parameters.max_length: inputs has 28 tokens already"),
        ({"max_length": 10}, "parameters.max_length: inputs has 10 tokens already"),
        ({"return_tensors": True, "return_full_text": True}, "parameters.return_tensors: .*leave out return_full_text"),
    ],
)
def test_a_wrong_parameter_is_named(runner, parameters, told):
    with pytest.raises(InvalidInput, match=told):
        runner(GPT2).items({"inputs": FOOD, "parameters": parameters})


@pytest.mark.parametrize(
    "parameters",
    [{"num_return_sequences": 3}, {"num_beams": 2, "num_return_sequences": 3}, {"bad_words_ids": [[99_999]]}],
)
def test_parameters_that_do_not_go_together_are_the_client_s(runner, parameters):
    with pytest.raises(InvalidInput, match="do not go together: "):
        _ask(runner(GPT2), FOOD, **GREEDY, **parameters)


def test_one_bad_item_fails_alone(runner):
    model = runner(GPT2)
    data = {"inputs": FOOD, "parameters": {**GREEDY, "num_return_sequences": 3}}
    bad, good = model.items(data)[0], model.items({"inputs": FOOD, "parameters": GREEDY})[0]
    assert isinstance(model.run([bad])[0], InvalidInput) and model.run([good])[0][0]["generated_text"]
    assert bad.batch_key != good.batch_key


def test_a_chat_wants_a_template_that_takes_it(runner, saved, tmp_path):
    with pytest.raises(InvalidInput, match=r"^inputs is a chat, and this model has no chat template; send a string"):
        runner(GPT2).items({"inputs": CHAT})
    folder = _changed(saved(LLAMA), tmp_path)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidInput, match=r"^inputs\[1\]: the model's chat template refuses it: .*must alternate"):
        _load(folder).items({"inputs": [FOOD, CHAT]})


def test_an_empty_prompt_wants_a_beginning(saved, tmp_path):
    folder = _changed(saved(GPT2), tmp_path, generation_config={"bos_token_id": None}, config={"bos_token_id": None})
    with pytest.raises(InvalidInput, match=r"^inputs is empty, and this model has no token to begin a text with"):
        _load(folder).items({"inputs": ""})


def test_a_model_that_reads_one_text_and_writes_another_is_refused(saved):
    with pytest.raises(LoadError, match="served with HF_TASK=text2text-generation"):
        _load(saved("text2text-generation-t5"))


def test_the_decoder_of_a_model_with_two_halves_goes_on_as_in_the_pipeline(tmp_path):
    words = tiny._byte_pairs()
    torch.manual_seed(0)
    config = hf.BartConfig(**tiny._HALVES, **tiny._BART, vocab_size=len(words), is_decoder=True)
    for part in (hf.BartForCausalLM(config), words):
        part.save_pretrained(tmp_path)
    pipe = hf.pipeline("text-generation", str(tmp_path))
    assert _ask(_load(tmp_path), TEXTS, **GREEDY) == pipe(list(TEXTS), **GREEDY)


@pytest.mark.parametrize("name", [GPT2, LLAMA])
def test_the_settings_choose_the_precision(name, saved, runner):
    half = TextGeneration(table.find("text-generation"), saved(name), Options(dtype="bfloat16"))
    assert half._model.dtype == torch.bfloat16
    data = {"inputs": TEXTS, "parameters": GREEDY}
    for text, (answer,) in zip(TEXTS, half.result(data, half.run(half.items(data))), strict=True):
        assert answer["generated_text"].startswith(text) and answer["generated_text"] != text
    ids = torch.tensor([half.items(FOOD)[0].data.ids])
    with torch.inference_mode():
        one, other = (each._model(ids).logits.float().softmax(-1) for each in (half, runner(name)))
    assert 0 < (one - other).abs().max() < 0.1
