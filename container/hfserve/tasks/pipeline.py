"""Serves every task that has no code of its own through transformers' pipelines, one request at a time.

What a client sends is read here, before a pipeline sees it: transformers takes any string in the place of an image, a
sound or a film for a URL to fetch or a file to open, and we do neither. Media come as bytes, as base64 or as a data
URL. In answers, pictures (masks, depth) are PNG in base64 and sounds are WAV in base64, as the Hub's API gives them.
"""

import contextlib
import copy
import importlib.util
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import InvalidInput, LoadError, ServeError, first_line
from hfserve.messages import Item, Outcome
from hfserve.runtimes import device
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import refuse_made_up
from hfserve.settings import Options
from hfserve.tasks import generation as shared
from hfserve.tasks import masks
from hfserve.tasks.answers import jsonable
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse
from hfserve.tasks.media import openable
from hfserve.tasks.processors import without_films
from hfserve.tasks.requests import FORMS, Loaded, fields, object_in, parts

LONGEST_MESSAGE = 300
MISFIT = re.compile("size of (the )?tensor|out of bounds|must be non-negative|shape|Kernel size|index out of range")
"""What torch and numpy say of tensors that do not fit together."""
NEEDS = {"table-question-answering": "pandas", "video-classification": "av"}
"""Packages that a task's pipeline imports, some of them only when a request is there."""


def build(task_name: str, model_dir: Path, options: Options) -> Any:
    """transformers' pipeline of a directory on a device; raises LoadError with the reason."""
    from transformers import pipeline

    pickled = runtime.only_pickles(model_dir, options)
    dtype = device.precision(options)
    package = NEEDS.get(task_name)
    if package and not importlib.util.find_spec(package):
        raise LoadError(f"{task_name} needs the package {package}, which is not installed")
    make: Any = pipeline
    try:
        with without_films():
            pipe = make(
                task_name, model=str(model_dir), device=options.device,
                trust_remote_code=options.trust_remote_code,
                dtype=dtype,
                model_kwargs={"use_safetensors": not pickled, "weights_only": True},
            )  # fmt: skip
    except Exception as error:
        raise LoadError(f"the {task_name} model did not load: {_reason(error)}") from error
    if pipe.tokenizer is not None:
        refuse_made_up(pipe.tokenizer, model_dir)
    if task_name == "mask-generation":
        masks.without_torchvision(pipe)
    if pipe.model.dtype == torch.bfloat16:
        pipe.model.register_forward_hook(_widened)
    return pipe


def _widened(model: Any, given: Any, answer: Any) -> None:
    """Make the numbers of an answer float32: the pipelines may read them with numpy, which knows no bfloat16."""
    for name, value in answer.items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
            answer[name] = value.float()


class PipelineRunner:
    """A task run by transformers' pipeline; each request is one item, and no two share a pass."""

    concurrent = False
    ours = frozenset({"seed"})
    """Parameters that are not for the pipeline."""

    def __init__(self, task: Task, model_dir: Path, options: Options, *, pipe: Any = None) -> None:
        self.task = task
        self.pipe = pipe or build(task.name, model_dir, options)
        self._loaded = Loaded(self.pipe, options)
        self._form = FORMS[task.name]
        self._names = _names(self.pipe) | self._form.more
        self._generation = _generation(self.pipe)
        usual = getattr(self.pipe, "_generation_defaults", {})
        if "max_new_tokens" in usual:
            usual["max_new_tokens"] = min(usual["max_new_tokens"], options.max_new_tokens)

    def items(self, data: Any) -> list[Item]:
        """The whole request as one item."""
        inputs, parameters = fields(*parts(data), self._form)
        if inputs is None:
            raise InvalidInput(f"inputs is missing; {self.task.name} takes {self.task.takes}")
        if isinstance(inputs, list) and not self._form.one(inputs):
            read = [self._form.read(each, f"inputs[{i}]", self._loaded) for i, each in enumerate(inputs)]
        else:
            read = self._form.read(inputs, "inputs", self._loaded)
        return [Item((read, self._parameters(parameters)), batch_key=object())]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The pipeline's answer to each item as JSON takes it, or what is wrong with the item."""
        return [self._outcome(item) for item in items]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """The answer to the request, which was one item."""
        return results[0]

    def _told(self, item: Item) -> Mapping[str, Any]:
        """What `generate()` is given beside the parameters of an item."""
        return {}

    def _outcome(self, item: Item) -> Outcome:
        inputs, parameters = item.data
        try:
            with self._refusing(inputs, parameters), runtime.memory_guard():
                return jsonable(self._answer(inputs, parameters, self._told(item)))
        except ServeError as error:
            return error

    @contextlib.contextmanager
    def _refusing(self, inputs: Any, parameters: Mapping[str, Any]) -> Iterator[None]:
        """Say of what a pipeline raises whether the request is to blame; raises InvalidInput where it is."""
        from transformers.pipelines.base import PipelineException

        try:
            yield
        except ServeError:
            raise
        except (ValueError, TypeError, PipelineException) as error:
            raise InvalidInput(_first_line(error)) from error
        except (StopIteration, ArithmeticError) as error:
            if not parameters:
                raise
            told = f"the parameters do not go together: they end in a {type(error).__name__}"
            raise InvalidInput(told) from error
        except (IndexError, RuntimeError) as error:
            if self._form.misfit and MISFIT.search(str(error)):
                raise InvalidInput(self._form.misfit) from error
            if not _too_long(inputs, self.pipe):
                raise
            longest = _limit(self.pipe)
            raise InvalidInput(f"the input is longer than the {longest} tokens that the model takes") from error

    def _answer(self, inputs: Any, parameters: Mapping[str, Any], told: Mapping[str, Any]) -> Any:
        chosen = {name: value for name, value in parameters.items() if name not in self.ours}
        with shared.seeded(self.pipe.device, parameters.get("seed")):
            return self._answers(inputs, chosen, told)

    def _answers(self, inputs: Any, parameters: Mapping[str, Any], told: Mapping[str, Any]) -> Any:
        if isinstance(inputs, list) and (not inputs or not self._form.whole):
            return [self._answers(each, parameters, told) for each in inputs]
        own = dict(copy.deepcopy(parameters))  # pipelines write into the objects among them
        if told:
            own["generate_kwargs"] = {**own.get("generate_kwargs", {}), **told}
        if self._form.spread:
            return self.pipe(**{**inputs, **own})
        with openable(inputs) as opened:
            return self.pipe(opened, **own)

    def _parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The pipeline's keyword arguments; raises InvalidInput for one that it does not take, or misses."""
        flat = {**given, **object_in(given, "generate_kwargs")}
        flat.pop("generate_kwargs", None)
        parameters = parse(self.task.schema.parameters, flat, self._loaded.options).model_dump(exclude_unset=True)
        if refused := parameters.keys() - self._names - self._generation - self.ours:
            raise InvalidInput(f"parameters.{min(refused)}: this model has no use for it; leave it out")
        if self._form.cut and "truncation" not in parameters:
            parameters[self._form.cut] = {"truncation": True, **parameters.get(self._form.cut, {})}
        return self._placed(parameters)

    def _placed(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Some pipelines take what is for `generate()` in an argument of its own."""
        takes = inspect.signature(self.pipe._sanitize_parameters).parameters
        if "forward_params" in takes:
            parameters["forward_params"] = {n: _tensor(parameters.pop(n)) for n in self._form.more & parameters.keys()}
        if "generate_kwargs" in takes and takes["generate_kwargs"].kind is not inspect.Parameter.VAR_KEYWORD:
            others = sorted(parameters.keys() - self._names - self.ours - {"forward_params"})
            parameters["generate_kwargs"] = {name: parameters.pop(name) for name in others}
        return parameters


# Parameters

CLOSED = frozenset({
    "timeout", "tesseract_config", "processor_kwargs", "image_processor_kwargs", "preprocess_params", "forward_params",
    "return_type", "offset_mapping", "generation_mode", "cache_config", "cache_implementation", "compile_config",
    "continuous_batching_config", "watermarking_config", "transformers_version", "return_dict_in_generate",
    "output_attentions", "output_hidden_states", "output_logits", "output_scores", "stop_strings",
})  # fmt: skip
"""What the pipelines take and a client may not say: files, addresses and commands, or forms that break the answer."""


def _names(pipe: Any) -> frozenset[str]:
    """The parameters that a pipeline tells by its signatures."""
    takes = inspect.signature(pipe._sanitize_parameters).parameters.values()
    names = {each.name for each in takes if each.kind is not each.VAR_KEYWORD}
    if any(each.kind is each.VAR_KEYWORD for each in takes):
        for step in (pipe.preprocess, pipe._forward, pipe.postprocess):
            _, *others = inspect.signature(step).parameters.values()
            names |= {each.name for each in others if each.kind is not each.VAR_KEYWORD}
    return frozenset(names | {"batch_size"}) - CLOSED


def _generation(pipe: Any) -> frozenset[str]:
    """The parameters of `generate()`: those of its configuration, and none that could make it load or run code."""
    takes = inspect.signature(pipe._sanitize_parameters).parameters
    if not pipe.model.can_generate() or "generate_kwargs" not in takes:
        return frozenset()
    from transformers import GenerationConfig

    make: Any = GenerationConfig
    return frozenset(name for name in vars(make()) if not name.startswith("_")) - CLOSED


def _tensor(value: Any) -> Any:
    try:
        return torch.tensor(value) if isinstance(value, list) else value
    except (TypeError, ValueError):
        raise InvalidInput("parameters.speaker_embeddings has to be a list of lists of numbers") from None


# Errors


def _reason(error: Exception) -> str:
    """Why a model did not load; transformers hides it among the tracebacks of all classes that it tried."""
    found = re.search(r"^[\w.]*(?:Error|Exception): .+", str(error), re.MULTILINE)
    return found[0][:LONGEST_MESSAGE] if found else first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:LONGEST_MESSAGE] or type(error).__name__


def _too_long(inputs: Any, pipe: Any) -> bool:
    """Whether a text is beyond the model: it fails then with an error of tensors that says nothing of the text."""
    texts = [text for text in (inputs if isinstance(inputs, list) else [inputs]) if isinstance(text, str)]
    if not texts or not pipe.tokenizer or not _limit(pipe):
        return False
    return any(len(pipe.tokenizer(text)["input_ids"]) > _limit(pipe) for text in texts)


def _limit(pipe: Any) -> Any:
    return getattr(pipe.model.config, "max_position_embeddings", None)
