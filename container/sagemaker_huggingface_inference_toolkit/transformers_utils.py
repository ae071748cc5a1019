"""Finds the task of a model and loads it, under the toolkit's names."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hfserve.errors import LoadError
from hfserve.settings import Settings
from hfserve.tasks import detect, table

ARCHITECTURES_2_TASK = detect.ENDINGS | {
    "TapasForQuestionAnswering": "table-question-answering",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
    "EncoderDecoderModel": "text2text-generation",
    "T5WithLMHeadModel": "text2text-generation",
    "GPT2LMHeadModel": "text-generation",
}
"""What a whole name says, and what the longest end of one says of a class that transformers does not know."""


def get_pipeline(task: str | None, device: int | str | None, model_dir: str | Path, **kwargs: Any) -> Any:
    """The model of a directory, called as `pipe(inputs, **parameters)`: transformers' pipeline where it has the task.

    `device` is -1 for the CPU, the number of a GPU, a device of torch's, or None to let HFSERVE_DEVICE choose.
    """
    from hfserve.tasks import callables

    if not task:
        raise LoadError("the task is not named; set HF_TASK, such as HF_TASK=text-classification")
    if kwargs:
        raise TypeError(f"get_pipeline does not take {', '.join(sorted(kwargs))}; give them to transformers.pipeline")
    return callables.load(table.find(task), Path(model_dir), Settings.read().options(_device(device)))


def infer_task_from_model_architecture(model_config_path: str | Path, architecture_index: int = 0) -> str:
    """The task of the model beside a config.json, left in HF_TASK as the toolkit does; raises ValueError.

    What summarizes or translates is text2text-generation here, as in the toolkit.
    """
    path = Path(model_config_path)
    names = json.loads(path.read_bytes()).get("architectures") or []
    if architecture_index >= len(names):
        raise ValueError(f"{path} names {len(names)} architectures; set HF_TASK to say what the model is for")
    task = _task(path, names, architecture_index)
    if task is None:
        raise ValueError(f"{names[architecture_index]} tells no task; set HF_TASK, such as HF_TASK=text-classification")
    os.environ["HF_TASK"] = task
    return task


def infer_task_from_hub(model_id: str, revision: str | None = None, use_auth_token: str | None = None) -> str:
    """The task that the Hub shows for a model, left in HF_TASK as the toolkit does; raises ValueError."""
    from huggingface_hub import HfApi

    task = HfApi().model_info(model_id, revision=revision, token=use_auth_token).pipeline_tag
    if task is None:
        raise ValueError(f"the Hub shows no task for {model_id}; set HF_TASK, such as HF_TASK=text-classification")
    os.environ["HF_TASK"] = task
    return task


def _task(path: Path, names: list[str], index: int) -> str | None:
    found = ARCHITECTURES_2_TASK.get(names[index])
    if not found and path.name == "config.json" and index == 0:
        with suppress(LoadError):
            found = detect.detect(path.parent)
    found = found or next(iter(detect.possible(names[index])), None)
    if found in {"summarization", "translation"}:
        return "text2text-generation"
    ends = [end for end in ARCHITECTURES_2_TASK if names[index].endswith(end)]
    return found or (ARCHITECTURES_2_TASK[max(ends, key=len)] if ends else None)


def _device(device: int | str | None) -> str:
    from hfserve.runtimes import device as devices

    if device is None:
        return devices.choose(Settings.read().device, 0)
    if isinstance(device, int):
        return "cpu" if device < 0 else f"cuda:{device}"
    return device


def _is_gpu_available() -> bool:
    """Whether torch can use a GPU."""
    import torch

    return torch.cuda.is_available()
