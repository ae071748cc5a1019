"""What pipelines answer, in what JSON knows."""

import base64
import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image


def jsonable(value: Any) -> Any:
    """An answer in what JSON knows: numbers and lists for tensors, base64 for pictures and sounds.

    A chat comes back with its answer, yet without the pictures and sounds that the client sent.
    """
    if isinstance(value, Mapping):
        if value.get("type") in {"image", "audio"}:
            return {"type": value["type"]}
        if {"audio", "sampling_rate"} <= value.keys() and isinstance(value["audio"], np.ndarray):
            return {**value, "audio": _wav_of(value["audio"], value["sampling_rate"])}
        return {name: jsonable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu()
        return jsonable((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())
    if isinstance(value, np.ndarray) and value.dtype == np.bool_ and value.ndim == 2:
        return _png_of(Image.fromarray(value))
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return _png_of(value) if isinstance(value, Image.Image) else value


def _png_of(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _wav_of(sound: "np.ndarray[Any, Any]", rate: int) -> str:
    """16-bit WAV in base64; `sound` is (samples,) or (channels, samples)."""
    frames = np.atleast_2d(np.squeeze(sound)).T
    data = (np.clip(np.nan_to_num(frames), -1, 1) * 32767).astype("<i2").tobytes()
    channels = frames.shape[1]
    form = struct.pack("<8sIHHIIHH", b"WAVEfmt ", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    head = struct.pack("<4sI", b"RIFF", 36 + len(data)) + form + struct.pack("<4sI", b"data", len(data))
    return base64.b64encode(head + data).decode()
