"""The table of tasks names what transformers serves, with examples that cost nothing to make."""

import base64
import importlib
import io
import subprocess
import sys
import wave
from dataclasses import replace

import pytest
from PIL import Image

from hfserve.errors import SettingsError
from hfserve.tasks.table import TASKS, find


def test_there_is_a_row_for_every_pipeline_of_transformers():
    from transformers.pipelines import REMOVED_TASKS, SUPPORTED_TASKS, TASK_ALIASES

    assert set(SUPPORTED_TASKS) <= set(TASKS) and len(SUPPORTED_TASKS) == 25
    assert {alias: task.name for task in TASKS.values() for alias in task.aliases} == {
        **TASK_ALIASES, "vqa": "visual-question-answering"
    }  # fmt: skip
    assert set(REMOVED_TASKS) <= {*TASKS, "vqa"}


def test_there_are_tasks_that_transformers_does_not_speak_of():
    from transformers.pipelines import REMOVED_TASKS, SUPPORTED_TASKS

    more = {"image-to-text", "multiple-choice", "sentence-similarity", "text-ranking", "text-to-image"}
    assert set(TASKS) - set(SUPPORTED_TASKS) - set(REMOVED_TASKS) == more


def test_native_code_is_where_the_table_says():
    native = {task.name: task.native.partition(":") for task in TASKS.values() if task.native}
    for place, _, name in native.values():
        assert callable(getattr(importlib.import_module(place), name))
    assert native["text-classification"][2] == "TextClassification"


@pytest.mark.parametrize(
    ("name", "task"),
    [("ner", "token-classification"), ("sentiment-analysis", "text-classification"), ("fill-mask", "fill-mask")],
)
def test_a_task_is_found_by_its_names(name, task):
    assert find(name) is TASKS[task]


@pytest.mark.parametrize("name", ["translation_en_to_fr", "translation_eng_Latn_to_fra_Latn"])
def test_a_translation_is_found_under_the_name_of_its_languages(name):
    assert find(name) == replace(TASKS["translation"], name=name)


@pytest.mark.parametrize("name", ["", "poetry", "Fill-Mask", "translation_en"])
def test_an_unknown_task_is_answered_with_those_there_are(name):
    with pytest.raises(SettingsError, match=r"no such task; choose one of any-to-any, audio-classification, .*"):
        find(name)


def test_the_examples_can_be_read():
    picture = base64.b64decode(TASKS["image-classification"].example["inputs"])
    assert Image.open(io.BytesIO(picture)).convert("RGB").getpixel((31, 1)) == (217, 7, 128)
    with wave.open(io.BytesIO(base64.b64decode(TASKS["audio-classification"].example["inputs"]))) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (16_000, 1, 4000)
    film = base64.b64decode(TASKS["video-classification"].example["inputs"])
    assert film.startswith(b"YUV4MPEG2") and film.count(b"FRAME\n") == 16


def test_importing_the_table_imports_no_models():
    script = "import sys, hfserve.tasks.table; print(*{'torch', 'transformers', 'PIL', 'numpy'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == ""
    )
