"""The tasks about pictures that transformers 5 dropped answer as 4.57.6 did; all picture tasks have true schemas."""

import base64
import importlib
import inspect
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError

import tiny_vision
from hfserve import codecs
from hfserve.errors import InvalidInput, LoadError
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.image_to_image import ImageToImage
from hfserve.tasks.image_to_text import ImageToText
from hfserve.tasks.kinds import VIDEO
from hfserve.tasks.pipeline import PipelineRunner, _names
from hfserve.tasks.requests import FORMS
from hfserve.tasks.schemas import vision
from hfserve.tasks.table import TASKS
from hfserve.tasks.visual_question_answering import VisualQuestionAnswering

torch.set_num_threads(1)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "vision.json").read_text())
PICTURES = GOLDEN["pictures"]
RUNNERS = {
    "visual-question-answering": VisualQuestionAnswering,
    "image-to-text": ImageToText,
    "image-to-image": ImageToImage,
}
VILT, BLIP = "visual-question-answering-vilt", "visual-question-answering-blip"
WRITERS = [name for name in tiny_vision.NAMES if name.startswith("image-to-text")]
GPT2, CAPTIONS, GIT = "image-to-text-gpt2", "image-to-text-blip", "image-to-text-git"
SWIN = "image-to-image-swin2sr"
WRAPPED = [
    "image-classification", "image-feature-extraction", "image-segmentation", "object-detection", "depth-estimation",
    "mask-generation", "keypoint-matching", "zero-shot-image-classification", "zero-shot-object-detection",
    "document-question-answering", "video-classification",
]  # fmt: skip
SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def runner(saved):
    """The runner of a tiny model, loaded once."""
    made = {}

    def runner(name):
        if name not in made:
            task = tiny_vision.task_of(name)
            made[name] = RUNNERS[task](Task(task, "", "", None), saved(name), Options(max_new_tokens=400))
        return made[name]

    return runner


def _filled(value):
    """A request with its pictures in the places of their names."""
    if isinstance(value, str) and value.startswith("@"):
        return PICTURES[value[1:]]
    if isinstance(value, list):
        return [_filled(each) for each in value]
    return {name: _filled(each) for name, each in value.items()} if isinstance(value, dict) else value


def _ask(runner, inputs, **parameters):
    data = _filled({"inputs": inputs, "parameters": parameters})
    outcomes = runner.run(runner.items(data))
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return runner.result(data, outcomes)


def _equal(answer, golden):
    """Scores to 1e-4, pixels to 1, the rest exactly."""
    if isinstance(answer, Image.Image):
        near = all(
            abs(one - other) <= 1
            for x, y, *colours in golden["pixels"]
            for one, other in zip(answer.getpixel((x, y)), colours, strict=True)
        )
        return list(answer.size) == golden["size"] and near
    if isinstance(answer, list):
        return len(answer) == len(golden) and all(map(_equal, answer, golden))
    if isinstance(answer, dict):
        return answer.keys() == golden.keys() and all(_equal(answer[name], golden[name]) for name in answer)
    return answer == (pytest.approx(golden, abs=1e-4) if isinstance(answer, float) else golden)


def _picture(width=8, height=8, mode="RGB", **settings):
    file = io.BytesIO()
    Image.new(mode, (width, height), **settings).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(("name", "task", "request_", "answer"), GOLDEN["answers"])
def test_an_answer_is_the_pipeline_s(runner, name, task, request_, answer):
    assert _equal(_ask(runner(name), request_["inputs"], **request_["parameters"]), answer)


def test_there_are_answers_of_every_model():
    assert {name for name, *_ in GOLDEN["answers"]} == set(tiny_vision.NAMES)
    assert len(GOLDEN["answers"]) >= 150
    assert len({str(answer) for *_, answer in GOLDEN["answers"]}) > 100
    swin = [answer["pixels"] for name, *_, answer in GOLDEN["answers"] if name == SWIN and isinstance(answer, dict)]
    assert all(len({tuple(pixel[2:]) for pixel in pixels}) > 5 for pixels in swin)


# Company


def _asked(name, picture):
    return {"image": picture, "question": "is it good ?"} if tiny_vision.task_of(name) in VILT else picture


@pytest.mark.parametrize("name", tiny_vision.NAMES)
def test_company_changes_no_answer(runner, name):
    model = runner(name)
    parameters = {} if name in {VILT, SWIN} else SHORT
    pictures = [f"@{each}" for each in PICTURES]
    alone = [_ask(model, _asked(name, each), **parameters) for each in pictures]
    together = _ask(model, [_asked(name, each) for each in pictures], **parameters)
    assert len(together) == len(alone)
    for one, other in zip(together, alone, strict=True):
        if isinstance(one, Image.Image):
            other = {"size": list(other.size), "pixels": [[0, 0, *other.getpixel((0, 0))]]}
        assert _equal(one, other)


@pytest.mark.parametrize("name", tiny_vision.NAMES)
def test_pictures_of_equal_shape_share_a_pass(runner, name, monkeypatch):
    model = runner(name)
    sizes = []
    whole = model._model if hasattr(model, "_model") else model._writer.model
    generating = getattr(model, "_writer", None) is not None
    method = "generate" if generating else "forward"
    run = getattr(whole, method)
    monkeypatch.setattr(whole, method, lambda **inputs: sizes.append(len(next(iter(inputs.values())))) or run(**inputs))
    items = model.items(_filled({"inputs": [_asked(name, "@colours")] * 3, "parameters": SHORT if generating else {}}))
    assert len({item.batch_key for item in items}) == 1
    model.run(items)
    assert sizes == [3]


def test_many_pictures_are_prepared_a_few_at_a_time(runner, monkeypatch):
    model = runner(SWIN)
    sizes = []
    whole = model._prepared
    monkeypatch.setattr(model, "_prepared", lambda items: sizes.append(len(items)) or whole(items))
    assert len(_ask(model, ["@small"] * 70)) == 70
    assert sizes == [32, 32, 6]


def test_threads_do_not_disturb_each_other(runner):
    model = runner(CAPTIONS)
    asked = [(f"@{name}", beams) for name in PICTURES for beams in (1, 2)]
    alone = [_ask(model, picture, num_beams=beams, **SHORT) for picture, beams in asked]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda each: _ask(model, each[0], num_beams=each[1], **SHORT), asked)) == alone


def test_those_who_ask_for_the_same_share_a_pass(runner):
    def key(name, inputs, **parameters):
        (item,) = runner(name).items(_filled({"inputs": inputs, "parameters": parameters}))
        return item.batch_key

    question = {"image": "@gray", "question": "why"}
    assert key(VILT, question, top_k=1) == key(VILT, question)
    assert key(BLIP, question, top_k=1) == key(BLIP, question) != key(BLIP, question, num_beams=2)
    assert key(GPT2, "@gray", max_new_tokens=5) == key(GPT2, "@wide", generate_kwargs={"max_new_tokens": 5})
    assert key(GPT2, "@gray", do_sample=True) != key(GPT2, "@gray", do_sample=True)


def test_questions_about_one_picture_prepare_it_once(runner, monkeypatch):
    model = runner(VILT)
    seen = []
    whole = type(model._pictures).__call__
    monkeypatch.setattr(type(model._pictures), "__call__", lambda self, picture: seen.append(1) or whole(self, picture))
    assert len(_ask(model, {"image": "@gray", "question": ["why", "is it", "the food"]})) == 3
    assert len(seen) == 1


def test_a_seed_repeats_what_was_sampled(runner):
    sampling = {"do_sample": True, "temperature": 3.0, "max_new_tokens": 10}
    first, same, other = (_ask(runner(CAPTIONS), "@gray", seed=seed, **sampling) for seed in (7, 7, 8))
    assert first == same != other


# Forms


def test_a_picture_may_stand_under_its_name(runner):
    for name in (GPT2, SWIN):
        assert _equal(_ask(runner(name), {"image": "@gray"}), _told(_ask(runner(name), "@gray")))
    bare = runner(GPT2).items(_filled({"image": "@gray", "max_new_tokens": 3}))
    assert bare[0].parameters["asked"] == {"max_new_tokens": 3}
    lone = runner(VILT).items(_filled({"image": "@gray", "question": "why", "parameters": {"top_k": 2}}))
    assert lone[0].parameters == {"top_k": 2}


def _told(answer):
    return {"size": list(answer.size), "pixels": []} if isinstance(answer, Image.Image) else answer


@pytest.mark.parametrize("name", tiny_vision.NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (200, 1)])
def test_odd_pictures_are_answered_or_refused(runner, name, size):
    try:
        assert _ask(runner(name), _asked(name, _picture(*size)), **({} if name in {VILT, SWIN} else SHORT))
    except InvalidInput as error:
        assert f"a picture of {size[0]} × {size[1]} pixels is not for this model" in str(error)


@pytest.mark.parametrize("mode", ["I;16", "LA", "F", "CMYK"])
def test_pictures_of_every_mode_are_taken(runner, mode):
    image = Image.new(mode, (12, 9))
    assert _ask(runner(SWIN), image).size == (32, 24)
    assert _ask(runner(VILT), {"image": image, "question": "why"})


def test_generation_ends_where_the_positions_do(runner):
    (answer,) = _ask(runner(CAPTIONS), "@gray", max_new_tokens=400, min_new_tokens=400, num_beams=1)
    (same,) = _ask(runner(CAPTIONS), "@gray", max_new_tokens=299, min_length=400, num_beams=1)
    assert len(answer["generated_text"]) > 100 and answer == same


def test_a_long_question_or_prompt_is_cut_unless_told_otherwise(runner):
    long = "is it good ? " * 80
    for name, inputs, parameters, place in (
        (VILT, {"image": "@gray", "question": long}, {}, "inputs.question"),
        (BLIP, [{"image": "@gray", "question": long}], SHORT, r"inputs\[0\].question"),
        (CAPTIONS, "@gray", {"prompt": long, **SHORT}, "parameters.prompt"),
        (CAPTIONS, "@gray", {"prompt": long, **SHORT}, "parameters.prompt"),
    ):
        (item,) = runner(name).items(_filled({"inputs": inputs, "parameters": parameters}))
        assert item.cut == place.replace("\\", "")
        assert _ask(runner(name), inputs, **parameters)
        with pytest.raises(InvalidInput, match=f"^{place} is longer than the "):
            _ask(runner(name), inputs, truncation=False, **parameters)


# What is refused


@pytest.mark.parametrize(
    ("name", "inputs", "parameters", "told"),
    [
        (VILT, "@gray", {}, 'inputs is a string; visual-question-answering takes {"image", "question"}'),
        (VILT, None, {}, "inputs is null"),
        (VILT, {"image": "@gray"}, {}, "inputs.question is missing"),
        (VILT, {"question": "why"}, {}, "inputs.image is missing"),
        (VILT, [{"image": "@gray", "question": "why", "top": 1}], {}, r"inputs\[0\].top: not known"),
        (VILT, {"image": "@gray", "question": 3}, {}, "inputs.question is a number"),
        (VILT, {"image": "@gray", "question": ["a", None]}, {}, r"inputs.question\[1\] is null"),
        (VILT, [{"image": "@gray", "question": ["a"]}], {}, r"inputs\[0\].question is a list"),
        (VILT, {"image": ["@gray", 5], "question": "a"}, {}, r"inputs.image\[1\]"),
        (VILT, {"image": "cat.png", "question": "a"}, {}, "inputs.image"),
        (VILT, {"image": "@gray", "question": ["a"] * 20_000}, {}, "inputs.question: 20000 questions about 1 pic"),
        (VILT, {"image": "@gray", "question": "a"}, {"top_k": 0}, "parameters.top_k: .* greater than or equal to 1"),
        (VILT, {"image": "@gray", "question": "a"}, {"max_new_tokens": 5}, "parameters.max_new_tokens: this model cho"),
        (VILT, {"image": "@gray", "question": "a"}, {"timeout": 5}, "parameters.timeout: not known; there are"),
        (BLIP, {"image": "@gray", "question": "a"}, {"max_new_tokens": 999}, "parameters.max_new_tokens: .* 400 at mo"),
        (GPT2, 7, {}, "inputs "),
        (GPT2, ["@gray", "?"], {}, r"inputs\[1\]"),
        (GPT2, "@gray", {"prompt": "a"}, "parameters.prompt: this model takes a picture alone"),
        (CAPTIONS, "@gray", {"prompt": 5}, "parameters.prompt: .*string"),
        (CAPTIONS, "@gray", {"generate_kwargs": 5}, "parameters.generate_kwargs is a number"),
        (CAPTIONS, "@gray", {"generate_kwargs": {"max_new_tokens": 999}}, "parameters.max_new_tokens: .* 400 at most"),
        (CAPTIONS, "@gray", {"generate_kwargs": {"assistant_model": "a"}}, "parameters.assistant_model: not known"),
        (CAPTIONS, "@gray", {"generate_kwargs": SHORT, **SHORT}, "parameters.generate_kwargs.max_new_tokens: it sta"),
        (CAPTIONS, "@gray", {"num_return_sequences": 3}, "do not go together: .*num_return_sequences"),
        (SWIN, "@gray", {"head_mask": 1}, "parameters.head_mask: not known"),
        (SWIN, {"a": 1}, {}, "inputs"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(runner, name, inputs, parameters, told):
    with pytest.raises(InvalidInput, match=told):
        _ask(runner(name), inputs, **parameters)


def test_a_folder_without_image_processor_is_told(saved, tmp_path):
    for file in saved(GPT2).iterdir():
        if "preprocessor" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(LoadError, match="the image processor did not load"):
        ImageToText(Task("image-to-text", "", "", None), tmp_path, Options())


# Schemas


def _schema(task):
    return getattr(vision, task.replace("-", "_").upper())


@pytest.mark.parametrize("name", tiny_vision.NAMES)
def test_answers_are_as_their_schemas_say(name):
    schema = _schema(tiny_vision.task_of(name))
    answers = [(request, answer) for each, _, request, answer in GOLDEN["answers"] if each == name]
    for request, answer in answers:
        inputs = _filled(request["inputs"])
        TypeAdapter(schema.inputs | list[schema.inputs]).validate_python(inputs)
        schema.parameters.model_validate(request["parameters"])
        if name != SWIN:
            several = isinstance(inputs, list)
            TypeAdapter(list[schema.answer] if several else schema.answer).validate_python(answer, strict=True)


def test_a_picture_is_answered_as_png_in_base64(runner):
    encoded = codecs.encode(_ask(runner(SWIN), "@small"), "application/json")
    answer = TypeAdapter(vision.IMAGE_TO_IMAGE.answer).validate_json(encoded)
    assert Image.open(io.BytesIO(base64.b64decode(answer))).format == "PNG"


def _pipeline(task):
    """transformers' class for a task."""
    from transformers.pipelines import SUPPORTED_TASKS

    module, _, name = SUPPORTED_TASKS[task]["impl"].removeprefix("transformers.").rpartition(".")
    return getattr(importlib.import_module(f"transformers.{module}"), name)


@pytest.mark.parametrize("task", WRAPPED)
def test_parameters_are_those_of_the_pipeline(task):
    kind = _pipeline(task)
    odd = {"parameters", "word_boxes"}  # names in signatures that no pipeline reads from a client
    assert set(_schema(task).parameters.model_fields) == (_names(kind.__new__(kind)) | FORMS[task].more) - odd


@pytest.mark.parametrize("task", WRAPPED)
def test_defaults_are_those_of_the_pipeline(task):
    kind = _pipeline(task)
    own = {}
    for step in (kind.preprocess, kind._forward, kind.postprocess):
        own |= {n: p.default for n, p in inspect.signature(step).parameters.items() if p.default is not p.empty}
    for field, about in _schema(task).parameters.model_fields.items():
        if about.default is not None and not about.is_required():
            assert about.default == own[field], field


@pytest.mark.parametrize("task", WRAPPED)
def test_the_wrapped_example_is_as_its_schema_says(task, saved):
    if TASKS[task].takes == VIDEO:
        pytest.importorskip("av")
    runner = PipelineRunner(TASKS[task], saved(task), Options())
    schema, example = _schema(task), TASKS[task].example
    TypeAdapter(schema.inputs).validate_python(example["inputs"])
    schema.parameters.model_validate(example.get("parameters", {}))
    (answer,) = runner.run(runner.items(example))
    assert not isinstance(answer, Exception), answer
    TypeAdapter(schema.answer).validate_json(codecs.encode(answer, "application/json"))


@pytest.mark.parametrize("task", [*WRAPPED, *RUNNERS])
def test_a_schema_names_what_is_ill_formed(task):
    schema = _schema(task)
    with pytest.raises(ValidationError):
        TypeAdapter(schema.inputs).validate_python(5)
    with pytest.raises(ValidationError, match="no_such"):
        schema.parameters.model_validate({"no_such": 1})
    described = schema.parameters.model_json_schema()["properties"]
    assert all("description" in about for about in described.values())


@pytest.mark.parametrize("name", [VILT, CAPTIONS, GPT2, SWIN])
def test_in_bfloat16_answers_are_near_those_of_float32(name, saved, runner):
    task = tiny_vision.task_of(name)
    half = RUNNERS[task](Task(task, "", "", None), saved(name), Options(dtype="bfloat16"))
    parameters = {} if name in {VILT, SWIN} else {"max_new_tokens": 1}
    asked = _asked(name, PICTURES["gray"])
    one, other = (_ask(each, asked, **parameters) for each in (half, runner(name)))
    if name == SWIN:
        assert 0 < np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean() < 2
    elif name == VILT:
        assert [each["score"] for each in one] == pytest.approx([each["score"] for each in other], abs=0.02)
        assert [each["score"] for each in one] != [each["score"] for each in other]
    else:
        assert one == other


@pytest.mark.parametrize("name", ["image-to-text-gpt2", "visual-question-answering-blip"])
def test_the_settings_bound_what_is_written_without_being_asked(saved, name):
    task = TASKS[tiny_vision.task_of(name)]
    inputs = task.example["inputs"]

    def tokens(most):
        runner = RUNNERS[task.name](task, saved(name), Options(max_new_tokens=most))
        (answer,) = runner.run(runner.items({"inputs": inputs}))
        text = answer[0].get("generated_text", answer[0].get("answer"))
        return len(runner._encode.tokenizer(text, add_special_tokens=False)["input_ids"])

    assert tokens(2) <= 2 < tokens(12)
