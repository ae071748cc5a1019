"""What pipelines answer, in what the codecs know."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from hfserve.codecs import Sound


def jsonable(value: Any) -> Any:
    """An answer in what the codecs know: numbers and lists for tensors, pictures as they are, and sounds.

    A chat comes back with its answer, yet without the pictures and sounds that the client sent.
    """
    if isinstance(value, Mapping):
        if value.get("type") in {"image", "audio"}:
            return {"type": value["type"]}
        if {"audio", "sampling_rate"} <= value.keys() and isinstance(value["audio"], np.ndarray):
            return {**value, "audio": Sound(value["audio"], value["sampling_rate"])}
        return {name: jsonable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu()
        return jsonable((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())
    if isinstance(value, np.ndarray) and value.dtype == np.bool_ and value.ndim == 2:
        return Image.fromarray(value)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
