"""image-to-text: what a model writes about a picture or reads in it, as transformers 4's pipeline gave it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import Encoder
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, places, too_long
from hfserve.tasks.pictures import Pictures, Tensors, Writer, in_passes, rows
from hfserve.tasks.requests import Form, fields, object_in, parts
from hfserve.tasks.schemas.vision import ImageToTextParameters

FORM = Form(lambda value, place, pipe: value, ("image",))
HEADED = "pix2struct"
"""The family that has the prompt written above the picture."""


class ImageToText:
    """An encoder of pictures with a decoder of text."""

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForImageTextToText

        self.task = task
        self._options = options
        model = runtime.load(AutoModelForImageTextToText, model_dir, options)
        self._kind = model.config.model_type
        self._config = model.config
        self._pictures = Pictures(model_dir, options)
        self._encode = Encoder(model_dir, model.config.get_text_config(decoder=True), options)
        self._writer = Writer(model, self._encode, task.name, options)
        self.concurrent = self._writer.sharing

    def items(self, data: Any) -> list[Item]:
        """An item for each picture."""
        inputs, parameters = fields(*parts(data), FORM)
        chosen = parse(ImageToTextParameters, _flat(parameters), self._options)
        self._check(chosen)
        prompt, cut = self._prompt(chosen)
        told, key = self._writer.told(chosen)
        header = chosen.prompt if self._kind == HEADED else None
        pictures = inputs if isinstance(inputs, list) else [inputs]
        return [
            Item((self._pictures.read(picture, place), prompt, header), told, key, cut=cut)
            for picture, place in zip(pictures, places(inputs, pictures), strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """For each picture its texts, as the pipeline words them."""
        return in_passes(items, self._prepared, self._written)

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: a list for a picture, a list of lists for a list."""
        inputs, _ = fields(*parts(data), FORM)
        return list(results) if isinstance(inputs, list) else results[0]

    def _check(self, chosen: ImageToTextParameters) -> None:
        if chosen.prompt is not None and self._kind == "vision-encoder-decoder":
            raise InvalidInput("parameters.prompt: this model takes a picture alone; leave the prompt out")
        if chosen.prompt is None and getattr(self._pictures.processor, "is_vqa", False):
            raise InvalidInput("parameters.prompt is missing: this model answers a question about the picture")

    def _prompt(self, chosen: ImageToTextParameters) -> tuple[Tensors, str]:
        """The model's inputs for the prompt, and its place in the request when it was cut."""
        if chosen.prompt is None or self._kind == HEADED:
            return {}, ""
        if self._kind == "git":
            ids = [self._encode.tokenizer.cls_token_id, *self._encode.bare(chosen.prompt)]
            kept = ids[: self._encode.limit - 1]
            encoded, cut = {"input_ids": kept}, len(kept) < len(ids)
        else:
            encoded, cut = self._encode(chosen.prompt, None, longest=self._encode.limit - 1)
            encoded.pop("token_type_ids", None)
        if cut and not chosen.truncation:
            raise too_long("parameters.prompt", self._encode.limit - 1)
        return rows(after_picture(encoded, self._config)), "parameters.prompt" if cut else ""

    def _prepared(self, items: Sequence[Item]) -> list[Tensors]:
        return [self._together(*item.data) for item in items]

    def _together(self, picture: Image.Image, prompt: Tensors, header: str | None) -> Tensors:
        above = {} if header is None else {"header_text": header}
        return {**self._pictures(picture, **above), **prompt}

    def _written(self, items: Sequence[Item], inputs: Tensors) -> list[Outcome]:
        return self._writer.outcomes(inputs, items[0], lambda text: {"generated_text": text})


def after_picture(encoded: dict[str, list[int]], config: Any) -> dict[str, list[int]]:
    """A text with the places of the picture before it, in the families that want them among the tokens."""
    if config.model_type != "blip-2":
        return encoded
    places = {"input_ids": config.image_token_index, "attention_mask": 1}
    return {name: [places[name]] * config.num_query_tokens + ids for name, ids in encoded.items()}


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with those of `generate_kwargs` among them; max_new_tokens may stand in one place only."""
    nested = object_in(parameters, "generate_kwargs")
    if "max_new_tokens" in parameters and "max_new_tokens" in nested:
        raise InvalidInput("parameters.generate_kwargs.max_new_tokens: it stands in parameters too; send one of them")
    return {name: value for name, value in parameters.items() if name != "generate_kwargs"} | dict(nested)
