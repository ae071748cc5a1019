"""What the schemas of sounds and decisions say is what the pipelines take and answer."""

import json
import os

import pytest
from pydantic import TypeAdapter, ValidationError

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import tiny
from hfserve import codecs
from hfserve.errors import InvalidInput
from hfserve.messages import JSON
from hfserve.settings import Options
from hfserve.tasks import forms
from hfserve.tasks.pipeline import PipelineRunner
from hfserve.tasks.schemas import audio
from hfserve.tasks.table import TASKS

SCHEMAS = {
    "audio-classification": audio.AUDIO_CLASSIFICATION,
    "automatic-speech-recognition": audio.AUTOMATIC_SPEECH_RECOGNITION,
    "automatic-speech-recognition-whisper": audio.AUTOMATIC_SPEECH_RECOGNITION,
    "decision": audio.DECISION,
    "text-to-audio": audio.TEXT_TO_AUDIO,
    "zero-shot-audio-classification": audio.ZERO_SHOT_AUDIO_CLASSIFICATION,
}


@pytest.fixture(scope="module", params=SCHEMAS)
def named(request, tmp_path_factory):
    name = request.param
    task = TASKS[tiny.task_of(name)]
    model = tiny.build(name, tmp_path_factory.mktemp(name))
    return PipelineRunner(task, model, Options()), SCHEMAS[name]


def test_the_example_and_its_answer_are_what_the_schema_says(named):
    runner, schema = named
    example = runner.task.example
    TypeAdapter(schema.inputs).validate_python(example["inputs"])
    forms.parse(schema.parameters, example.get("parameters", {}), Options())
    (answer,) = runner.run(runner.items(example))
    TypeAdapter(schema.answer).validate_python(json.loads(codecs.encode(answer, JSON)), strict=True)


def test_the_parameters_are_those_that_the_pipeline_takes(named):
    runner, schema = named
    from transformers import GenerationConfig

    declared = set(schema.parameters.model_fields) - {"generate_kwargs"}
    generation = set(vars(GenerationConfig())) if "generate_kwargs" in schema.parameters.model_fields else set()
    assert runner._names - {"generate_kwargs"} <= declared <= runner._names | generation


def test_timestamps_are_part_of_a_transcript(tmp_path):
    name = "automatic-speech-recognition"
    runner = PipelineRunner(TASKS[name], tiny.build(name, tmp_path), Options())
    (answer,) = runner.run(runner.items({**TASKS[name].example, "parameters": {"return_timestamps": "word"}}))
    read = TypeAdapter(audio.AUTOMATIC_SPEECH_RECOGNITION.answer).validate_python(
        json.loads(codecs.encode(answer, JSON))
    )
    assert read.chunks and read.chunks[0].timestamp[0] == 0


@pytest.mark.parametrize(
    "question",
    [
        {"type": "noul", "instructions": "Is it spam?", "criteria": {"true": "Ads", "false": None}},
        {"type": "choice", "criteria": {"calm": "A polite message", "angry": None}},
        {"type": "score", "instructions": "How urgent?", "criteria": ["Can wait", "Today"]},
    ],
)
def test_every_kind_of_decision_is_answered_as_the_schema_says(tmp_path, question):
    runner = PipelineRunner(TASKS["decision"], tiny.build("decision", tmp_path), Options())
    inputs = {"state": {"text": "Buy now!"}, "questions": {"a": question}}
    TypeAdapter(audio.DECISION.inputs).validate_python(inputs)
    (answer,) = runner.run(runner.items({"inputs": inputs}))
    assert list(TypeAdapter(audio.DECISION.answer).validate_python(answer, strict=True)) == ["a"]


@pytest.mark.parametrize(
    ("schema", "inputs"),
    [
        (audio.DECISION, {"state": "a", "questions": {}}),
        (audio.DECISION, {"state": "a", "questions": {"a": {"type": "choice"}}}),
        (audio.DECISION, {"state": "a", "questions": {"a": {"type": "other", "criteria": {"b": None}}}}),
        (audio.AUDIO_CLASSIFICATION, {"array": [], "sampling_rate": 16_000}),
        (audio.AUDIO_CLASSIFICATION, {"raw": [0.5]}),
    ],
)
def test_ill_formed_inputs_are_not(schema, inputs):
    with pytest.raises(ValidationError):
        TypeAdapter(schema.inputs).validate_python(inputs)


@pytest.mark.parametrize(
    ("schema", "given", "words"),
    [
        (audio.AUDIO_CLASSIFICATION, {"top_k": 0}, r"parameters.top_k: .*greater than or equal to 1"),
        (audio.AUDIO_CLASSIFICATION, {"function_to_apply": "max"}, r"parameters.function_to_apply: .*'softmax'"),
        (audio.AUTOMATIC_SPEECH_RECOGNITION, {"return_timestamps": "line"}, r"parameters.return_timestamps"),
        (audio.AUTOMATIC_SPEECH_RECOGNITION, {"stride_length_s": [1]}, r"parameters.stride_length_s"),
        (audio.AUTOMATIC_SPEECH_RECOGNITION, {"max_new_tokens": 99_999}, r"max_new_tokens: .*HFSERVE_MAX_NEW_TOKENS"),
        (
            audio.AUTOMATIC_SPEECH_RECOGNITION,
            {"generate_kwargs": {"custom_generate": "a"}},
            r"custom_generate: not known",
        ),
        (audio.ZERO_SHOT_AUDIO_CLASSIFICATION, {}, r"parameters.candidate_labels is missing"),
        (audio.ZERO_SHOT_AUDIO_CLASSIFICATION, {"candidate_labels": "a"}, None),
        (audio.ZERO_SHOT_AUDIO_CLASSIFICATION, {"candidate_labels": ["a"] * 1001}, r"HFSERVE_MAX_LABELS"),
        (
            audio.ZERO_SHOT_AUDIO_CLASSIFICATION,
            {"candidate_labels": "a, b", "hypothesis_template": "{:>99999999}"},
            r"parameters.hypothesis_template",
        ),
    ],
)
def test_parameters_are_checked(schema, given, words):
    if words is None:
        assert forms.parse(schema.parameters, given, Options()).candidate_labels == ["a"]
        return
    with pytest.raises(InvalidInput, match=words):
        forms.parse(schema.parameters, given, Options())
