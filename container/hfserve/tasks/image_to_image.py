"""image-to-image: a picture made from a picture, such as the same one larger, as transformers 4's pipeline made it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hfserve.messages import Item, Outcome
from hfserve.runtimes import torch as runtime
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, places
from hfserve.tasks.pictures import Pictures, Tensors, in_passes, on_device
from hfserve.tasks.requests import Form, fields, parts
from hfserve.tasks.schemas.vision import ImageToImageParameters

FORM = Form(lambda value, place, pipe: value, ("image",))
MOST_PIXELS = 1 << 18
"""Pixels of a pass at most; one picture always runs."""


class ImageToImage:
    """A model that makes a picture from a picture."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForImageToImage

        self.task = task
        self._options = options
        self._model = runtime.load(AutoModelForImageToImage, model_dir, options)
        self._pictures = Pictures(model_dir, options)

    def items(self, data: Any) -> list[Item]:
        """An item for each picture."""
        inputs, parameters = fields(*parts(data), FORM)
        parse(ImageToImageParameters, parameters, self._options)
        pictures = inputs if isinstance(inputs, list) else [inputs]
        return [
            Item(self._pictures.read(picture, place), batch_key="picture")
            for picture, place in zip(pictures, places(inputs, pictures), strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The picture made from each."""
        return in_passes(items, self._prepared, lambda _, inputs: list(self._made(inputs)))

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: a list has a list for its answer."""
        inputs, _ = fields(*parts(data), FORM)
        return list(results) if isinstance(inputs, list) else results[0]

    def _prepared(self, items: Sequence[Item]) -> list[Tensors]:
        return [self._pictures(item.data) for item in items]

    def _made(self, inputs: Tensors) -> Iterator[Image.Image]:
        height, width = inputs["pixel_values"].shape[-2:]
        for part in torch.split(inputs["pixel_values"], max(1, MOST_PIXELS // (height * width))):
            with torch.inference_mode(), runtime.memory_guard():
                made = self._model(**on_device({"pixel_values": part}, self._model)).reconstruction
            yield from map(_picture, made.float().clamp(0, 1).cpu().numpy())


def _picture(pixels: "np.ndarray[Any, Any]") -> Image.Image:
    """From numbers between 0 and 1, colours first; a model of one colour makes a gray picture."""
    whole = (np.moveaxis(pixels, 0, -1) * 255.0).round().astype(np.uint8)
    return Image.fromarray(whole.squeeze(-1) if whole.shape[-1] == 1 else whole)
