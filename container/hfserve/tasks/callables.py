"""What user code gets as its model: transformers' pipeline, or for a task that it dropped, ours called alike."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from hfserve.messages import Outcome
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.encoder import EncoderModel
from hfserve.runtimes.tokenizing import load_tokenizer
from hfserve.settings import Options
from hfserve.tasks.base import Task, TaskRunner, native
from hfserve.tasks.pipeline import PipelineRunner, build
from hfserve.tasks.requests import FORMS
from hfserve.tasks.table import TASKS

INPUTS = frozenset({"question", "context"})
"""What the pipeline of question-answering takes by name in the place of its inputs."""
BATCHING = frozenset({"batch_size", "num_workers"})
"""What every pipeline takes and no answer depends on."""


def load(task: Task, model_dir: Path, options: Options) -> Any:
    """The model of a directory, to be called as `model(inputs, **parameters)`; raises LoadError."""
    if task.name in FORMS:
        return build(task.name, model_dir, options)
    return NativePipeline(native(task, model_dir, options), model_dir, options)


class NativePipeline:
    """A task of ours under the manners of a pipeline: it is called, and has `task`, `model`, `tokenizer` and `device`.

    It takes the parameters that a client may send; the tokenizer is a copy, free to be changed.
    """

    def __init__(self, runner: TaskRunner, model_dir: Path, options: Options) -> None:
        self.runner = runner
        self.task = runner.task.name
        self._model_dir = model_dir
        self._options = options

    def __call__(self, inputs: Any = None, **parameters: Any) -> Any:
        """The answer to one input, or a list of answers to a list; raises InvalidInput."""
        if inputs is None and INPUTS & parameters.keys():
            inputs = {name: parameters.pop(name) for name in INPUTS & parameters.keys()}
        chosen = {name: value for name, value in parameters.items() if name not in BATCHING}
        return _answer(self.runner, {"inputs": inputs, "parameters": chosen})

    @cached_property
    def model(self) -> Any:
        """The transformers model; read once more when the one that runs was tuned to take packed sequences."""
        ours: Any = self.runner._model  # type: ignore[attr-defined]
        if not isinstance(ours, EncoderModel):
            return ours
        return runtime.load(type(ours.model), self._model_dir, self._options)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self._model_dir, self._options)

    @property
    def device(self) -> Any:
        """Where the model computes."""
        return torch.device(self._options.device)


def ask(model: Any, data: Any, model_dir: Path, options: Options) -> Any:
    """A decoded request put to a model of any kind; no client can make a pipeline fetch or open things."""
    if isinstance(model, NativePipeline):
        return _answer(model.runner, data)
    if type(model).__module__.startswith("transformers.pipelines.") and model.task in FORMS:
        return _answer(_asked(model, model_dir, options), data)
    inputs = data.pop("inputs", data) if isinstance(data, dict) else data
    parameters = data.pop("parameters", None) or {} if isinstance(data, dict) else {}
    return model(inputs, **parameters)


@lru_cache(maxsize=4)
def _asked(pipe: Any, model_dir: Path, options: Options) -> PipelineRunner:
    return PipelineRunner(TASKS[pipe.task], model_dir, options, pipe=pipe)


def _answer(runner: TaskRunner, data: Any) -> Any:
    outcomes: Sequence[Outcome] = runner.run(runner.items(data))
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return runner.result(data, outcomes)
