"""Sounds: an answer that is one, or holds one, can be given as WAV."""

import struct
from typing import Any

import numpy as np

from hfserve.errors import NotAcceptable


class Sound:
    """Samples from -1 to 1, as (samples,) or (channels, samples), and how many of them are a second."""

    __slots__ = ("samples", "sampling_rate")  # no dataclass: orjson would write its fields

    def __init__(self, samples: "np.ndarray[Any, Any]", sampling_rate: int) -> None:
        self.samples = samples
        self.sampling_rate = sampling_rate


def wav(sound: Sound) -> bytes:
    """16-bit WAV."""
    frames = np.atleast_2d(np.squeeze(sound.samples)).T
    data: bytes = (np.clip(np.nan_to_num(frames), -1, 1) * 32767).astype("<i2").tobytes()
    channels, rate = frames.shape[1], sound.sampling_rate
    form = struct.pack("<8sIHHIIHH", b"WAVEfmt ", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return struct.pack("<4sI", b"RIFF", 36 + len(data)) + form + struct.pack("<4sI", b"data", len(data)) + data


def encode(result: Any) -> bytes:
    """The sound of the answer."""
    only = _only_sound(result)
    if only is None:
        raise NotAcceptable("this answer is not one sound; ask for application/json")
    return wav(only)


def fits(result: Any) -> bool:
    """Whether the answer is one sound, or an object with exactly one, such as `{"audio", "sampling_rate"}`."""
    return _only_sound(result) is not None


def _only_sound(result: Any) -> Sound | None:
    if isinstance(result, list | tuple) and len(result) == 1:
        result = result[0]
    if isinstance(result, dict):
        sounds = [value for value in result.values() if isinstance(value, Sound)]
        result = sounds[0] if len(sounds) == 1 else None
    return result if isinstance(result, Sound) else None
