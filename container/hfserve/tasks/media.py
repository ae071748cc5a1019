"""Pictures, sounds and films of a request, read here: no string is taken for a file, and for a URL only where allowed.

What a file is, its first bytes say: FFmpeg is told the format to read, so that no playlist makes it open other things.
"""

import base64
import contextlib
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image

from hfserve.codecs import image as pictures
from hfserve.codecs.media import Media
from hfserve.errors import BadRequest, InvalidInput, PayloadTooLarge
from hfserve.settings import Options
from hfserve.tasks import fetch
from hfserve.tasks.forms import kind

Samples = np.ndarray[Any, Any]
SECONDS_TO_DECODE = 30
LEAST_RATE, MOST_RATE = 4_000, 400_000
URL_SAFE = str.maketrans("-_", "+/")
EBML = b"\x1a\x45\xdf\xa3"
SOUNDS = (
    (0, b"RIFF", "wav"), (0, b"fLaC", "flac"), (0, b"OggS", "ogg"), (0, b"ID3", "mp3"), (4, b"ftyp", "mov"),
    (0, EBML, "matroska"), (0, b"FORM", "aiff"), (0, b"#!AMR", "amr"),
)  # fmt: skip
"""Of each kind of audio: where it has which bytes, and FFmpeg's name for it."""
FILMS = (
    *((4, atom, "mov,mp4,m4a,3gp,3g2,mj2") for atom in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")),
    (0, EBML, "matroska,webm"), (8, b"AVI ", "avi"), (0, b"GIF8", "gif"), (0, b"YUV4MPEG2 ", "yuv4mpegpipe"),
    (0, b"\0\0\x01\xba", "mpeg"), (0, b"\0\0\x01\xb3", "mpegvideo"),
)  # fmt: skip
"""The same for films."""


# Pictures


def read_image(value: Any, place: str, options: Options) -> Image.Image:
    """A picture from Pillow, bytes, base64, a data URL, a URL where it is allowed, or an array of bytes."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in {2, 3}:
        value = Image.fromarray(value)
    try:
        if isinstance(value, Image.Image):
            pictures.check_size(value, options.max_pixels)
            return value
        return pictures.decode(_content(value, place, "an image", options), Media(max_pixels=options.max_pixels))
    except BadRequest as error:
        raise InvalidInput(f"{place}: {error}") from None
    except PayloadTooLarge as error:
        raise PayloadTooLarge(f"{place}: {str(error).removeprefix(f'{place}: ')}") from None


def read_two_images(value: Any, place: str, options: Options) -> tuple[Image.Image, ...]:
    """A pair of images."""
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidInput(f"{place} has to be a list of two images")
    return tuple(read_image(each, f"{place}[{i}]", options) for i, each in enumerate(value))


# Films


def read_film(value: Any, place: str, options: Options) -> bytes:
    """The bytes of a film of a usual kind, which FFmpeg will take for no other when the pipeline opens it."""
    content = _content(value, place, "a video", options)
    form = _form(content, FILMS)
    if form is None:
        raise InvalidInput(f"{place} is not a video of a kind that is read here: MP4, MOV, MKV, WebM, AVI, GIF, MPEG")
    with _opened(content, None, place) as container:
        sizes = [film.width * film.height for film in container.streams.video]
        if container.format.name != form or not sizes or not min(sizes):
            raise InvalidInput(f"{place} is not a video that can be read")
        if max(sizes) > options.max_pixels:
            most = f"this server takes {options.max_pixels} (HFSERVE_MAX_PIXELS)"
            raise PayloadTooLarge(f"{place}: the video has pictures of {max(sizes)} pixels; {most}")
    return content


# Sounds


def read_audio(value: Any, place: str, rate: int, options: Options) -> Samples:
    """Samples at the model's rate, from samples, bytes, base64, a data URL, or a URL where it is allowed."""
    if isinstance(value, np.ndarray):
        value = {"array": value, "sampling_rate": rate}
    if isinstance(value, dict):
        samples, given = _samples(value, place), value.get("sampling_rate")
    else:
        samples, given = _decoded(_content(value, place, "audio", options), place, rate, options.max_audio_s)
    if not isinstance(given, int) or not LEAST_RATE <= given <= MOST_RATE:
        raise InvalidInput(f"{place}.sampling_rate has to be a number from {LEAST_RATE} to {MOST_RATE}")
    if samples.ndim != 1 or not samples.size:
        raise InvalidInput(f"{place} has to be one channel of sound, and not empty")
    _check_length(samples.size, given, place, options.max_audio_s)
    return resampled(samples, given, rate)


def _samples(value: Mapping[str, Any], place: str) -> Samples:
    name = "raw" if "raw" in value else "array"
    try:
        with np.errstate(over="raise"):
            return np.asarray(value.get(name), np.float64).astype(np.float32)
    except (TypeError, ValueError, FloatingPointError):
        raise InvalidInput(f"{place}.{name} has to be a list of numbers, next to sampling_rate") from None


def _check_length(samples: int, rate: int, place: str, longest: float) -> None:
    if samples > longest * rate:
        raise PayloadTooLarge(
            f"{place} is longer than the {longest:g} seconds of sound that this server takes (HFSERVE_MAX_AUDIO)"
        )


def _decoded(content: bytes, place: str, wanted: int, longest: float) -> tuple[Samples, int]:
    """Samples and rate of a sound: usual WAV is read here, all else by FFmpeg's libraries."""
    form = _form(content, SOUNDS) or _framed(content)
    if form is None:
        raise InvalidInput(
            f"{place} is not audio of a kind that is read here: WAV, FLAC, MP3, Ogg, M4A, WebM, AIFF, AAC"
        )
    if form == "wav":
        try:
            return wav(content)
        except RareWav:
            pass
        except (KeyError, ValueError, ZeroDivisionError, struct.error):
            raise InvalidInput(f"{place} is a WAV file that cannot be read: broken, or of a rare kind") from None
    with _opened(content, form, place) as container:
        pieces = list(_heard(container, place, wanted, longest))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32), wanted


def _heard(container: Any, place: str, wanted: int, longest: float) -> Iterator[Samples]:
    """The sound piece by piece, the mean of its channels at the rate that is wanted, until it is too long."""
    import av

    if not container.streams.audio:
        raise InvalidInput(f"{place} holds no sound")
    resampler = av.AudioResampler(
        "fltp", rate=wanted
    )  # mixed here: FFmpeg's mono of floats is louder than its channels
    count, end = 0, time.monotonic() + SECONDS_TO_DECODE
    for frame in _frames(container):
        for each in resampler.resample(frame):
            piece = each.to_ndarray().mean(axis=0)
            count += piece.size
            _check_length(count, wanted, place, longest)
            yield piece
        if time.monotonic() > end:
            raise PayloadTooLarge(f"{place} took more than {SECONDS_TO_DECODE} seconds to decode")


def _frames(container: Any) -> Iterator[Any]:
    """Each frame of the first sound, then None; as players do, a broken packet is passed over."""
    import av

    for packet in container.demux(container.streams.audio[0]):
        with contextlib.suppress(av.InvalidDataError):
            yield from packet.decode()
    yield None


# Bytes


def _content(value: Any, place: str, what: str, options: Options) -> bytes:
    """The bytes of what was sent; a string is base64, a data URL or, where that is allowed, a URL; never a file."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise InvalidInput(f"{place} is {kind(value)}; it has to be {what} in base64")
    if fetch.is_url(value):
        return fetch.fetch(value, place, options.allow_urls)
    head, _, encoded = value.partition(",") if value[:5].lower() == "data:" else (";base64", "", value)
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(encoded)
    try:
        return _from_base64(encoded)
    except ValueError:
        raise InvalidInput(f"{place} is not {what} in base64; paths are not opened") from None


def _from_base64(encoded: str) -> bytes:
    """Either alphabet of base64, in lines or not, with its padding or without."""
    plain = "".join(encoded.split()).translate(URL_SAFE).rstrip("=")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _form(content: bytes, forms: Iterable[tuple[int, bytes, str]]) -> str | None:
    return next((form for at, magic, form in forms if content[at : at + len(magic)] == magic), None)


def _framed(content: bytes) -> str | None:
    """MP3 and AAC without a header: eleven set bits, and a layer that AAC does not have."""
    if len(content) < 2 or content[0] != 0xFF or content[1] & 0xE0 != 0xE0:
        return None
    return "mp3" if content[1] & 0x06 else "aac"


@contextlib.contextmanager
def _opened(content: bytes, form: str | None, place: str) -> Iterator[Any]:
    """A file in FFmpeg's hands, which may open no other."""
    import av

    try:
        with av.open(BytesIO(content), format=form, metadata_errors="ignore", io_open=_no_other) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InvalidInput(f"{place} cannot be read: it is broken, or of a rare kind") from error


def _no_other(url: str, flags: int, options: Mapping[str, str]) -> Any:
    raise PermissionError("the file names another, which is not opened")


class RareWav(Exception):
    """A WAV file whose samples are not plain numbers."""


def wav(content: bytes) -> tuple[Samples, int]:
    """One channel of samples from -1 to 1, and their rate; whole numbers or floating point."""
    chunks = dict(_chunks(content))
    form = chunks[b"fmt "]
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if tag == EXTENSIBLE:
        (tag,) = struct.unpack_from("<H", form, 24)
    if (tag, bits) not in SAMPLES:
        raise RareWav
    width = bits // 8
    data = chunks[b"data"][: len(chunks[b"data"]) // (width * channels) * width * channels]
    if (tag, bits) == (1, 24):
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data = wide.tobytes()
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
    (1, 24): ("<i4", 0, 1 << 31),
    (1, 32): ("<i4", 0, 1 << 31),
    (3, 32): ("<f4", 0, 1),
    (3, 64): ("<f8", 0, 1),
}
"""Of each kind of WAV: how a sample is written, which one is silence, and how loud is 1."""


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
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
