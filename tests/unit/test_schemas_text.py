"""What the schemas of text tasks say of requests and answers is true of the tasks."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from pydantic import TypeAdapter, ValidationError

import tiny
from hfserve import openapi
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.feature_extraction import FeatureExtraction
from hfserve.tasks.fill_mask import FillMask
from hfserve.tasks.question_answering import QuestionAnswering
from hfserve.tasks.schemas import pairs, text
from hfserve.tasks.table import TASKS
from hfserve.tasks.text_classification import TextClassification
from hfserve.tasks.token_classification import TokenClassification
from hfserve.tasks.zero_shot_classification import ZeroShotClassification

torch.set_num_threads(1)

RUNNERS = {
    "text-classification-bert": (TextClassification, text.TEXT_CLASSIFICATION),
    "token-classification": (TokenClassification, text.TOKEN_CLASSIFICATION),
    "fill-mask": (FillMask, text.FILL_MASK),
    "feature-extraction": (FeatureExtraction, text.FEATURE_EXTRACTION),
    "feature-extraction-sentences": (FeatureExtraction, text.FEATURE_EXTRACTION),
    "question-answering": (QuestionAnswering, text.QUESTION_ANSWERING),
    "zero-shot-classification": (ZeroShotClassification, text.ZERO_SHOT_CLASSIFICATION),
}
SENTENCE, MASKED = "in london the food was good", "the [MASK] was [MASK]"
ALL = ["none", "simple", "first", "average", "max"]
QUESTION = {"question": "Where?", "context": "In London, the food was good."}
ONE = {
    "text-classification-bert": [
        (SENTENCE, {}), (SENTENCE, {"top_k": None}), ({"text": "a", "text_pair": "b"}, {}),
        ({"text": "a"}, {"top_k": 1, "function_to_apply": "none"}), ([["a", "b"]], {}),
    ],
    "token-classification": [
        *((SENTENCE, {"aggregation_strategy": name, "ignore_labels": []}) for name in ALL),
        (SENTENCE.split(), {"is_split_into_words": True}), ("", {}),
    ],
    "fill-mask": [("the [MASK]", {}), (MASKED, {"top_k": 2, "targets": "food"})],
    "feature-extraction": [(SENTENCE, {}), (SENTENCE, {"pooling": "cls", "normalize": True})],
    "feature-extraction-sentences": [(SENTENCE, {}), (SENTENCE, {"pooling": "none"})],
    "question-answering": [
        (QUESTION, {}), (QUESTION, {"top_k": 3, "handle_impossible_answer": True}),
        ({**QUESTION, "question": ["Where?", "When?"]}, {}),
    ],
    "zero-shot-classification": [
        (SENTENCE, {"candidate_labels": "food, price"}), (SENTENCE, {"candidate_labels": ["a"], "multi_label": True}),
    ],
}  # fmt: skip
SCHEMAS = [
    value for module in (text, pairs) for name, value in vars(module).items() if name.isupper() and name != "UNSET"
]


@pytest.fixture(scope="module", params=list(RUNNERS))
def served(request, tmp_path_factory):
    """A runner, its schema, and requests of one input."""
    made, schema = RUNNERS[request.param]
    folder = tiny.build(request.param, tmp_path_factory.mktemp(request.param))
    return made(TASKS[tiny.task_of(request.param)], folder, Options()), schema, ONE[request.param]


def _ask(runner, inputs, parameters):
    data = {"inputs": inputs, "parameters": parameters}
    return runner.result(data, runner.run(runner.items(data)))


def test_requests_and_answers_are_as_the_schema_says(served):
    runner, schema, requests = served
    for inputs, parameters in requests:
        TypeAdapter(schema.inputs).validate_python(inputs)
        schema.parameters.model_validate(parameters)
        TypeAdapter(schema.answer).validate_python(_ask(runner, inputs, parameters))


def test_a_list_is_answered_as_the_schema_says(served):
    runner, schema, requests = served
    answers = TypeAdapter(list[schema.answer] if schema.answers is None else schema.answers)
    for inputs, parameters in requests:
        if inputs != [["a", "b"]] and not (isinstance(inputs, dict) and isinstance(inputs.get("question"), list)):
            for several in ([inputs], [inputs, inputs]):
                answers.validate_python(_ask(runner, several, parameters))


def test_a_wrong_answer_is_told_from_a_right_one():
    assert len(SCHEMAS) == 10
    for schema in SCHEMAS:
        with pytest.raises(ValidationError):
            TypeAdapter(schema.answer).validate_python({"something": "else"})


def test_every_field_is_described():
    for schema in SCHEMAS:
        for name, field in schema.parameters.model_fields.items():
            assert field.description, (schema.parameters, name)


def test_the_document_of_a_task_has_its_bounds():
    task = Task("zero-shot-classification", "text", "labels", {}, schema=text.ZERO_SHOT_CLASSIFICATION)
    found = openapi.document(task, Options(max_labels=7))["components"]["schemas"]["Parameters"]
    labels = found["properties"]["candidate_labels"]["anyOf"]
    assert {"type": "array", "items": {"type": "string"}, "maxItems": 7} in labels and {"type": "string"} in labels
