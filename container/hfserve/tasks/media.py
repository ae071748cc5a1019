"""Pictures, sounds and films of a request, read here: no string is taken for a URL or a file, as transformers would."""

import base64
import contextlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from hfserve.codecs import image as pictures
from hfserve.errors import BadRequest, InvalidInput, PayloadTooLarge, UnsupportedMediaType
from hfserve.tasks.forms import kind

SECONDS_TO_DECODE = 30
LEAST_RATE, MOST_RATE = 4_000, 400_000


def read_image(value: Any, place: str, pipe: Any) -> Image.Image:
    """An image from Pillow, bytes, base64, a data URL or an array of bytes."""
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in {2, 3}:
        return Image.fromarray(value)
    try:
        return pictures.decode(_content(value, place, "an image"), "")
    except BadRequest as error:
        raise InvalidInput(f"{place}: {error}") from None


def read_two_images(value: Any, place: str, pipe: Any) -> tuple[Image.Image, ...]:
    """A pair of images."""
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidInput(f"{place} has to be a list of two images")
    return tuple(read_image(each, f"{place}[{i}]", pipe) for i, each in enumerate(value))


def read_film(value: Any, place: str, pipe: Any) -> bytes:
    """The bytes of a film; a playlist is refused, since it names files and addresses."""
    content = _content(value, place, "a video")
    if content.lstrip()[:8].startswith((b"#EXTM3U", b"ffconcat")):
        raise InvalidInput(f"{place} is a list of other files, which are not read")
    return content


def read_audio(value: Any, place: str, pipe: Any) -> "np.ndarray[Any, Any]":
    """Samples at the model's rate, from samples, bytes, base64 or a data URL."""
    extractor = pipe.feature_extractor or pipe.processor.feature_extractor
    wanted = int(extractor.sampling_rate)
    if isinstance(value, np.ndarray):
        value = {"array": value, "sampling_rate": wanted}
    if isinstance(value, dict):
        samples, rate = _samples(value, place), value.get("sampling_rate")
    else:
        samples, rate = _decoded(_content(value, place, "audio"), place, wanted)
    if not isinstance(rate, int) or not LEAST_RATE <= rate <= MOST_RATE:
        raise InvalidInput(f"{place}.sampling_rate has to be a number from {LEAST_RATE} to {MOST_RATE}")
    if samples.ndim != 1 or not samples.size:
        raise InvalidInput(f"{place} has to be one channel of sound, and not empty")
    return resampled(samples, rate, wanted)


def _samples(value: Mapping[str, Any], place: str) -> "np.ndarray[Any, Any]":
    name = "raw" if "raw" in value else "array"
    try:
        return np.asarray(value.get(name), np.float32)
    except (TypeError, ValueError):
        raise InvalidInput(f"{place}.{name} has to be a list of numbers, next to sampling_rate") from None


def _content(value: Any, place: str, what: str) -> bytes:
    """The bytes of what was sent; a string is base64 or a data URL, never a place to fetch or open."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise InvalidInput(f"{place} is {kind(value)}; it has to be {what} in base64")
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError:
        message = f"{place} is not {what} in base64; URLs are not fetched and paths are not opened"
        raise InvalidInput(message) from None


def _decoded(content: bytes, place: str, wanted: int) -> tuple["np.ndarray[Any, Any]", int]:
    """Samples and rate of a sound: WAV is read here, other kinds by ffmpeg where there is one."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        try:
            return wav(content)
        except (KeyError, ValueError, ZeroDivisionError, struct.error):
            raise InvalidInput(f"{place} is a WAV file that cannot be read: broken, or of a rare kind") from None
    if not shutil.which("ffmpeg"):
        raise UnsupportedMediaType(f"{place} is not WAV, the only kind of audio that is read without ffmpeg installed")
    # The input may name no other: a playlist could open files and addresses.
    command = ["ffmpeg", "-nostdin", "-v", "quiet", "-protocol_whitelist", "pipe", "-i", "pipe:0"]
    command += ["-ac", "1", "-ar", str(wanted), "-f", "f32le", "pipe:1"]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=SECONDS_TO_DECODE)
    except subprocess.TimeoutExpired:
        raise PayloadTooLarge(f"{place} took more than {SECONDS_TO_DECODE} seconds to decode") from None
    if not done.stdout:
        raise InvalidInput(f"{place} is not audio that ffmpeg can read")
    return np.frombuffer(done.stdout, np.float32), wanted


def wav(content: bytes) -> tuple["np.ndarray[Any, Any]", int]:
    """One channel of samples from -1 to 1, and their rate; whole numbers or floating point."""
    chunks = dict(_chunks(content))
    form = chunks[b"fmt "]
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if tag == EXTENSIBLE:
        (tag,) = struct.unpack_from("<H", form, 24)
    width = bits // 8
    data = chunks[b"data"][: len(chunks[b"data"]) // (width * channels) * width * channels]
    if (tag, bits) == (1, 24):
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, bits = wide.tobytes(), 32
    dtype, zero, scale = SAMPLES[tag, bits]
    samples = (np.frombuffer(data, dtype).astype(np.float32) - zero) / scale
    return samples.reshape(-1, channels).mean(axis=1), rate


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        yield name, content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


EXTENSIBLE = 0xFFFE
SAMPLES = {
    (1, 8): ("u1", 128, 128),
    (1, 16): ("<i2", 0, 1 << 15),
    (1, 32): ("<i4", 0, 1 << 31),
    (3, 32): ("<f4", 0, 1),
    (3, 64): ("<f8", 0, 1),
}
"""Of each kind of WAV: how a sample is written, which one is silence, and how loud is 1."""


def resampled(samples: "np.ndarray[Any, Any]", rate: int, wanted: int) -> "np.ndarray[Any, Any]":
    """The same sound at another rate, by its spectrum: the pipelines would need torchaudio for it."""
    count = max(1, round(len(samples) * wanted / rate))
    if count == len(samples):
        return np.asarray(samples, np.float32)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return np.asarray(np.fft.irfft(spectrum, count) * (count / len(samples)), np.float32)


@contextlib.contextmanager
def openable(inputs: Any) -> Iterator[Any]:
    """What the pipeline takes; it reads films from files alone."""
    if not isinstance(inputs, bytes):
        yield inputs
        return
    with tempfile.NamedTemporaryFile(prefix="hfserve-", suffix=".video") as file:
        file.write(inputs)
        file.flush()
        yield file.name
