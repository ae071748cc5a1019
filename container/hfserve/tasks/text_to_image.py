"""text-to-image: pictures painted from words, by the diffusion pipelines of diffusers, an extra of this package.

A request is painted alone: the pipelines keep their state in themselves, and a picture keeps a device busy anyway.
"""

import importlib.util
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hfserve.errors import InvalidInput, LoadError, first_line
from hfserve.messages import Item, Outcome
from hfserve.runtimes import device
from hfserve.runtimes import torch as runtime
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, places, split, string, too_long
from hfserve.tasks.schemas.diffusion import TextToImage as Parameters

OURS = frozenset({"seed", "truncation"})
"""Parameters that are not the pipeline's."""


class TextToImage:
    """A pipeline of diffusers that takes a prompt."""

    concurrent = False

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        self.task = task
        self._options = options
        self._pipe = load(model_dir, options)
        self._takes = Parameters.model_fields.keys() & {*inspect.signature(self._pipe.__call__).parameters, *OURS}
        self._tokenizers = [part for name, part in self._pipe.components.items() if part and "tokenizer" in name]

    def items(self, data: Any) -> list[Item]:
        """An item for each prompt."""
        inputs, parameters = split(data)
        chosen = parse(Parameters, parameters, self._options)
        self._check(chosen)
        prompts = inputs if isinstance(inputs, list) else [inputs]
        return [
            self._item(string(prompt, place), place, chosen)
            for prompt, place in zip(prompts, places(inputs, prompts), strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The pictures of each prompt, in a list."""
        return [self._outcome(item.data, item.parameters["seed"], item.parameters["asked"]) for item in items]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """For each prompt its picture, or a list where several were asked for."""
        inputs, _ = split(data)
        answers = [pictures if len(pictures) > 1 else pictures[0] for pictures in results]
        return answers if isinstance(inputs, list) else answers[0]

    def _check(self, chosen: Parameters) -> None:
        """Raise InvalidInput for what this pipeline does not take, and for more pixels than the settings allow."""
        if unknown := chosen.model_dump(exclude_defaults=True).keys() - self._takes:
            known = ", ".join(sorted(self._takes))
            raise InvalidInput(f"parameters.{min(unknown)}: this model does not take it; it takes {known}")
        if (chosen.height is None) != (chosen.width is None):
            missing = "height" if chosen.height is None else "width"
            raise InvalidInput(f"parameters.{missing} is missing: give both height and width, or none")
        pixels = (chosen.height or 0) * (chosen.width or 0)
        if pixels > self._options.max_pixels:
            raise InvalidInput(
                f"parameters.height: {chosen.height} × {chosen.width} are {pixels} pixels; "
                f"this server takes {self._options.max_pixels} (HFSERVE_MAX_PIXELS)"
            )

    def _item(self, prompt: str, place: str, chosen: Parameters) -> Item:
        limit = self._cut_at(prompt)
        if limit and not chosen.truncation:
            raise too_long(place, limit)
        asked = chosen.model_dump(exclude=set(OURS), exclude_none=True, include=set(self._takes))
        return Item(prompt, {"asked": asked, "seed": chosen.seed}, object(), cut=place if limit else "")

    def _cut_at(self, prompt: str) -> int:
        """How many tokens of a prompt the model reads where it does not read all, else 0.

        Of several tokenizers, one that reads all is enough.
        """
        limits = [int(each.model_max_length) for each in self._tokenizers if _longer(prompt, each)]
        return max(limits) if limits and len(limits) == len(self._tokenizers) else 0

    def _outcome(self, prompt: str, seed: int | None, asked: dict[str, Any]) -> Outcome:
        try:
            return self._painted(prompt, seed, asked)
        except ValueError as error:
            reason = first_line(error).partition(": ")[2]
            return InvalidInput(f"the parameters do not go together: {reason}")

    def _painted(self, prompt: str, seed: int | None, asked: dict[str, Any]) -> list[Image.Image]:
        # Random numbers of the CPU are the same on every device
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        with torch.inference_mode(), runtime.memory_guard():
            pictures = self._pipe(prompt, generator=generator, **asked).images
        return list(pictures)


def load(model_dir: Path, options: Options) -> Any:
    """The pipeline of a directory on a device; raises LoadError with the reason."""
    try:
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise
        raise LoadError("text-to-image needs the package diffusers: pip install 'hfserve[diffusers]'") from None
    pickled = [runtime.only_pickles(folder, options) for folder in sorted(model_dir.iterdir()) if folder.is_dir()]
    dtype = device.precision(options)
    logging.disable_progress_bar()
    make: Any = DiffusionPipeline
    try:
        pipe = make.from_pretrained(
            str(model_dir), local_files_only=True, trust_remote_code=options.trust_remote_code,
            use_safetensors=None if any(pickled) else True, dtype=dtype,
            low_cpu_mem_usage=importlib.util.find_spec("accelerate") is not None,
        )  # fmt: skip
    except Exception as error:
        raise LoadError(f"the text-to-image model did not load: {first_line(error)}") from error
    if "prompt" not in inspect.signature(pipe.__call__).parameters:
        raise LoadError(f"{type(pipe).__name__} is not for text-to-image: it takes no prompt")
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(options.device)


def _longer(prompt: str, tokenizer: Any) -> bool:
    return bool(len(tokenizer(prompt, verbose=False)["input_ids"]) > tokenizer.model_max_length)
