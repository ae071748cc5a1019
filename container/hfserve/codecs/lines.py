"""JSON Lines: one JSON value a line."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import orjson

from hfserve.codecs import json_
from hfserve.codecs.media import Media, utf8
from hfserve.codecs.records import Records, Sized, gather
from hfserve.errors import BadRequest


def decode(body: bytes, media: Media) -> Records:
    """A record for each line that is not blank."""
    return gather(record for record, _ in each(body, media))


def each(body: bytes, media: Media) -> Iterator[Sized]:
    """The same, each record read when its turn comes."""
    for number, line in enumerate(BytesIO(utf8(body, media.charset)), 1):
        if not line.isspace():
            yield _record(number, line), len(line)


def json_or_lines(body: bytes, media: Media) -> Any:
    """One JSON value, or records: batch transform sends JSON lines with the label of JSON (contract row 33)."""
    whole = utf8(body, media.charset)
    return decode(body, media) if b"\n" in whole and _is_lines(whole) else json_.decode(body, media)


def each_within(body: bytes, media: Media) -> Iterator[Sized] | None:
    """The records of JSON lines, None of one JSON value."""
    return each(body, media) if _is_lines(utf8(body, media.charset)) else None


def encode(result: Any) -> bytes:
    """A line for each element of a list, else one line; every line ends with a newline."""
    elements = result if isinstance(result, list | tuple) else [result]
    return b"".join(json_.encode(element) + b"\n" for element in elements)


def _record(number: int, line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return BadRequest(f"line {number} is not valid JSON: {error.msg} at column {error.colno}")


def _is_lines(body: bytes) -> bool:
    """Whether the first or the last of several lines is JSON by itself, as never in one indented value."""
    lines = (line for line in BytesIO(body) if not line.isspace())
    first, second = next(lines, b""), next(lines, b"")
    return bool(second) and any(not isinstance(_record(0, line), BadRequest) for line in (first, _last(body)))


def _last(body: bytes) -> bytes:
    """The last line that is not blank."""
    end = len(body)
    while True:
        start = body.rfind(b"\n", 0, end) + 1
        line = body[start:end]
        if start == 0 or (line and not line.isspace()):
            return line
        end = start - 1
