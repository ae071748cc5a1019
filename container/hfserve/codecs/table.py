"""The table of the forms that bodies and answers take."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hfserve.codecs import csv_, image, json_, lines, multipart, npy, plain, sniff, sound
from hfserve.codecs.media import Media
from hfserve.codecs.records import Sized
from hfserve.messages import JSON


def _always(result: Any) -> bool:
    return True


def _no_records(body: bytes, media: Media) -> None:
    return None


def _raw(body: bytes, media: Media) -> bytes:
    return body


@dataclass(frozen=True, slots=True)
class Codec:
    """One form: how a body in it is read, and how an answer that fits is given; the first name is the one offered.

    `each` reads the records of a body one by one; None where it holds one value.
    """

    names: tuple[str, ...]
    decode: Callable[[bytes, Media], Any]
    encode: Callable[[Any], bytes] | None = None
    fits: Callable[[Any], bool] = _always
    each: Callable[[bytes, Media], Iterator[Sized] | None] = _no_records


LINES = (
    "application/jsonlines",
    "application/x-ndjson",
    "application/jsonl",
    "application/json-lines",
    "application/x-jsonlines",
)
TABLES = ("text/csv", "application/csv")
CODECS = (
    Codec((JSON,), lines.json_or_lines, json_.encode, each=lines.each_within),
    Codec(LINES, lines.decode, lines.encode, each=lines.each),
    Codec(("text/plain",), plain.decode, plain.encode, plain.fits),
    Codec(TABLES, csv_.decode, csv_.encode, csv_.fits),
    Codec(("application/x-npy", "application/npy"), npy.decode, npy.encode, npy.fits),
    Codec(("image/*",), image.decode),
    Codec(("image/png",), image.decode, image.encode_png, image.fits),
    Codec(("image/jpeg", "image/jpg"), image.decode, image.encode_jpeg, image.fits),
    Codec(("audio/*",), _raw),
    Codec(("audio/wav", "audio/wave", "audio/x-wav"), _raw, sound.encode, sound.fits),
    Codec(("video/*",), _raw),
    Codec(("application/octet-stream",), _raw),
    Codec(("multipart/form-data",), multipart.decode),
    Codec(("", "application/x-www-form-urlencoded"), sniff.decode, each=sniff.each),
)


def _family(media_type: str) -> str:
    """`image/png` is one of `image/*`."""
    return f"{media_type.partition('/')[0]}/*"


_BY_NAME = {name: codec for codec in CODECS for name in codec.names}
READ = [
    name
    for name, *_ in (codec.names for codec in CODECS)
    if name and (name.endswith("*") or _family(name) not in _BY_NAME)
]
GIVEN = [codec.names[0] for codec in CODECS if codec.encode]


def find(media_type: str) -> Codec | None:
    """The codec of a media type without parameters."""
    if media_type.endswith("+json"):
        media_type = JSON
    return _BY_NAME.get(media_type) or _BY_NAME.get(_family(media_type))
