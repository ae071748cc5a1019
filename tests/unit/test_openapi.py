"""The document of a task is OpenAPI, and says what the task's types and the settings say."""

import json
import subprocess
import sys
from typing import Annotated

import jsonschema
import pytest
from pydantic import Field

from hfserve import openapi
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.schemas.base import Answer, AtMost, Parameters, Schema
from hfserve.tasks.table import TASKS
from server import HFSERVE


class Label(Answer):
    label: str


class Chosen(Parameters):
    count: Annotated[int | None, AtMost("max_new_tokens")] = Field(None, ge=1, description="How many.")
    names: Annotated[list[str] | None, AtMost("max_labels")] = None


TASK = Task("naming", "text", "labels", {"inputs": "x"}, schema=Schema(str, list[Label], Chosen))


def _post(document):
    return document["paths"]["/invocations"]["post"]


@pytest.mark.parametrize("name", TASKS)
def test_every_tasks_document_refers_only_to_what_it_holds(name):
    document = openapi.document(TASKS[name], Options())
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    referred = {part.partition('"')[0] for part in json.dumps(document).split('"#/components/schemas/')[1:]}
    assert referred <= set(schemas)


def test_bounds_that_the_settings_choose_are_written_down():
    schemas = openapi.document(TASK, Options(max_new_tokens=7, max_labels=3))["components"]["schemas"]
    properties = schemas["Parameters"]["properties"]
    assert [choice.get("maximum") for choice in properties["count"]["anyOf"]] == [7, None]
    assert [choice.get("maxItems") for choice in properties["names"]["anyOf"]] == [3, None]
    assert properties["count"]["description"] == "How many."


def test_the_example_comes_with_its_answer_when_there_is_one():
    content = _post(openapi.document(TASK, Options(), answer=[{"label": "A"}]))["responses"]["200"]["content"]
    assert content["application/json"]["examples"]["example"]["value"] == [{"label": "A"}]
    unanswered = _post(openapi.document(TASK, Options()))["responses"]["200"]["content"]
    assert "examples" not in unanswered["application/json"]


def test_a_request_may_be_bare_or_a_list_and_nothing_else():
    document = openapi.document(TASK, Options())
    schema = _post(document)["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator({**schema, "components": document["components"]})
    for good in ("a", ["a", "b"], {"inputs": "a"}, {"inputs": ["a"], "parameters": {"count": 1}, "options": {}}):
        assert validator.is_valid(good), good
    for bad in (1, [1], {"inputs": 1}, {"inputs": "a", "parameters": {"other": 1}}, {}):
        assert not validator.is_valid(bad), bad


def test_schema_prints_a_task_without_loading_torch():
    command = [HFSERVE, "schema", "--task", "ner"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["x-hfserve"]["task"] == "token-classification"
    looked = f"import sys; from hfserve import cli; cli.main({command[1:]!r})"
    hooked = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); {looked}"
    done = subprocess.run([sys.executable, "-c", hooked], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_schema_without_a_task_names_them_all_and_refuses_others():
    done = subprocess.run([HFSERVE, "schema"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(TASKS)
    failed = subprocess.run([HFSERVE, "schema", "--task", "naming"], capture_output=True, text=True, check=False)
    assert failed.returncode == 3 and "there is no such task" in failed.stderr
