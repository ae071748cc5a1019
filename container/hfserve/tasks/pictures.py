"""What the tasks about pictures share: pictures read and prepared for a model, and models that write about them."""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from hfserve.errors import InvalidInput, LoadError, first_line
from hfserve.messages import Item, Outcome
from hfserve.runtimes.tokenizing import Encoder
from hfserve.settings import Options
from hfserve.tasks.generation import OURS, batch_key, generate
from hfserve.tasks.media import read_image
from hfserve.tasks.schemas.generation import Generation

USUAL_TOKENS = 256
"""The pipelines' default of max_new_tokens, which wins over the model's own."""
UNSET_LENGTH = 20
"""The max_length that a configuration has when nobody chose one."""
MOST_TOKENS = 16_384
MOST_PICTURES = 32
"""Pictures prepared together: their numbers take far more memory than the request did."""
SHARING = frozenset({"blip", "blip-2", "git", "pix2struct", "vision-encoder-decoder"})
"""Families whose answers are known not to change in company."""

Tensors = dict[str, torch.Tensor]


class Pictures:
    """A model's image processor, in the form that resizes with Pillow, as transformers 4 did by default."""

    def __init__(self, model_dir: Path, options: Options) -> None:
        from transformers import AutoImageProcessor

        self._options = options
        auto: Any = AutoImageProcessor
        try:
            self.processor: Any = auto.from_pretrained(
                str(model_dir), backend="pil", trust_remote_code=options.trust_remote_code, local_files_only=True
            )
        except Exception as error:
            raise LoadError(f"the image processor did not load: {first_line(error)}") from error
        if hasattr(self.processor, "thumbnail"):  # Donut's: transformers 4 made it bicubic, whatever came before
            make = self.processor.thumbnail
            self.processor.thumbnail = lambda image, size, _: make(image, size, Image.Resampling.BICUBIC)

    def read(self, value: Any, place: str) -> Image.Image:
        """A picture of a request as the pipelines take it: upright, and in colours."""
        return ImageOps.exif_transpose(read_image(value, place, self._options)).convert("RGB")

    def __call__(self, picture: Image.Image, **more: Any) -> Tensors:
        """The model's inputs for one picture, each a batch of one."""
        try:
            features = self.processor(images=picture, return_tensors="pt", input_data_format="channels_last", **more)
        except ValueError as error:
            size = f"{picture.width} × {picture.height} pixels"
            raise InvalidInput(f"a picture of {size} is not for this model: {first_line(error)}") from error
        return {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}


def in_passes(
    items: Sequence[Item],
    prepare: Callable[[Sequence[Item]], list[Tensors]],
    run: Callable[[Sequence[Item], Tensors], Sequence[Outcome]],
) -> list[Outcome]:
    """An outcome for each item, a number of pictures at a time."""
    parts = [items[i : i + MOST_PICTURES] for i in range(0, len(items), MOST_PICTURES)]
    return [outcome for part in parts for outcome in _in_passes(part, prepare(part), run)]


def _in_passes(
    items: Sequence[Item], prepared: list[Tensors], run: Callable[[Sequence[Item], Tensors], Sequence[Outcome]]
) -> list[Outcome]:
    """An outcome for each item; those whose tensors have equal shapes share a pass."""
    alike: dict[Hashable, list[int]] = {}
    for i, tensors in enumerate(prepared):
        alike.setdefault(tuple((name, *value.shape) for name, value in tensors.items()), []).append(i)
    outcomes: list[Outcome] = [None] * len(prepared)
    for places in alike.values():
        inputs = {name: torch.cat([prepared[i][name] for i in places]) for name in prepared[places[0]]}
        for i, outcome in zip(places, run([items[i] for i in places], inputs), strict=True):
            outcomes[i] = outcome
    return outcomes


class Writer:
    """A model that writes texts about pictures, with the defaults that transformers 4's pipelines gave it."""

    def __init__(self, model: Any, encode: Encoder, task: str, options: Options) -> None:
        self.model = model
        self.sharing = model.config.model_type in SHARING
        self._tokenizer = encode.tokenizer
        self._usual = _usual(model, task, encode.tokenizer.pad_token_id)
        self._positions = positions(model.config) or MOST_TOKENS
        self._most_tokens = options.max_new_tokens

    def told(self, chosen: Generation, *, but: frozenset[str] = frozenset()) -> tuple[dict[str, Any], Hashable]:
        """What items carry of a request's parameters, and who may share a pass: those who ask for the same."""
        asked = chosen.model_dump(include=set(FOR_GENERATE - but), exclude_none=True)
        clean_up = chosen.clean_up_tokenization_spaces
        told = {"asked": asked, "seed": chosen.seed, "clean_up": clean_up}
        key = batch_key(self.model, {"do_sample": self._usual.do_sample, **asked})
        return told, (clean_up, key) if self.sharing else object()

    def write(self, inputs: Tensors, item: Item) -> list[list[str]]:
        """The texts for each row of inputs, by the parameters of one of them."""
        begun = inputs["input_ids"].shape[1] if "input_ids" in inputs else 1
        config = self._bounded(item.parameters["asked"], begun)
        sampling = {"do_sample": True} if config.do_sample else {}
        inputs = on_device(inputs, self.model)
        tokens = generate(self.model, inputs, sampling, item.parameters["seed"], generation_config=config)
        return [[self._text(row, item.parameters["clean_up"]) for row in rows] for rows in tokens]

    def outcomes(self, inputs: Tensors, item: Item, answer: Callable[[str], Any]) -> list[Outcome]:
        """The answers made from the texts for each row, or what is wrong with the parameters."""
        try:
            return [[answer(text) for text in texts] for texts in self.write(inputs, item)]
        except ValueError as error:
            reason = first_line(error).partition(": ")[2]
            return [InvalidInput(f"the parameters do not go together: {reason}")] * len(next(iter(inputs.values())))

    def _text(self, row: Any, clean_up: bool | None) -> str:
        decode: Any = self._tokenizer.decode
        return str(decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=clean_up))

    def _bounded(self, asked: Mapping[str, Any], begun: int) -> Any:
        """The configuration of `generate()`, with a length within the model's positions, and no least length beyond."""
        generation = copy.deepcopy(self._usual)
        generation.update(**asked)
        if generation.max_new_tokens is None:
            most = min(generation.max_length, self._positions) - begun
        else:
            most = min(generation.max_new_tokens, self._positions - begun)
        if most < 1:
            raise InvalidInput(f"the prompt takes all of the {begun + most} tokens that a text may have")
        most = min(most, self._most_tokens)
        generation.max_new_tokens, generation.max_length = most, None
        for name, longest in (("min_length", most + begun), ("min_new_tokens", most)):
            if (getattr(generation, name) or 0) > longest:
                setattr(generation, name, longest)
        return generation


FOR_GENERATE = frozenset(Generation.model_fields) - OURS
"""Parameters that `generate()` takes."""


def _usual(model: Any, task: str, pad: int | None) -> Any:
    """The configuration of `generate()` when the request is silent, by the pipelines' rules.

    Their own default of max_new_tokens wins over the model's, except that a length in the model's files takes its
    place; settings by task win over both. The model's own lengths are cleared, having been counted here.
    """
    usual = copy.deepcopy(model.generation_config)
    if usual.max_length in {None, UNSET_LENGTH}:
        usual.max_length, usual.max_new_tokens = None, USUAL_TOKENS
    model.generation_config.max_length = model.generation_config.max_new_tokens = None
    specific = (getattr(model.config, "task_specific_params", None) or {}).get(task, {})
    usual.update(**{name: value for name, value in specific.items() if name in vars(usual)})
    if usual.pad_token_id is None:
        usual.pad_token_id = pad
    return usual


def positions(config: Any) -> int | None:
    """The most tokens that the part of a model that reads or writes text has positions for; None: they have no end."""
    count = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return int(count) if count else None


def on_device(inputs: Tensors, model: Any) -> Tensors:
    """The inputs where the model is, numbers of pictures in its precision."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def rows(encoded: Mapping[str, list[int]]) -> Tensors:
    """The model's inputs for one text, each a batch of one."""
    return {name: torch.tensor([ids]) for name, ids in encoded.items()}
