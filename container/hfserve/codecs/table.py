"""The table of the forms that bodies and answers take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hfserve.codecs import csv_, image, json_, lines, npy, plain, sniff
from hfserve.messages import JSON


def _always(result: Any) -> bool:
    return True


def _raw(body: bytes, charset: str) -> bytes:
    return body


@dataclass(frozen=True, slots=True)
class Codec:
    """One form: how a body in it is read, and how an answer that fits is given; the first name is the one offered."""

    names: tuple[str, ...]
    decode: Callable[[bytes, str], Any]
    encode: Callable[[Any], bytes] | None = None
    fits: Callable[[Any], bool] = _always


LINES = (
    "application/jsonlines",
    "application/x-ndjson",
    "application/jsonl",
    "application/json-lines",
    "application/x-jsonlines",
)
CODECS = (
    Codec((JSON,), lines.json_or_lines, json_.encode),
    Codec(LINES, lines.decode, lines.encode),
    Codec(("text/plain",), plain.decode, plain.encode, plain.fits),
    Codec(("text/csv", "application/csv"), csv_.decode, csv_.encode, csv_.fits),
    Codec(("application/x-npy", "application/npy"), npy.decode, npy.encode, npy.fits),
    Codec(("image/*",), image.decode),
    Codec(("audio/*", "application/octet-stream"), _raw),
    Codec(("", "application/x-www-form-urlencoded"), sniff.decode),
)
_BY_NAME = {name: codec for codec in CODECS for name in codec.names}
READ = [name for codec in CODECS for name in codec.names[:1] if name]
GIVEN = [codec.names[0] for codec in CODECS if codec.encode]


def find(media_type: str) -> Codec | None:
    """The codec of a media type without parameters."""
    if media_type.endswith("+json"):
        media_type = JSON
    return _BY_NAME.get(media_type) or _BY_NAME.get(f"{media_type.partition('/')[0]}/*")
