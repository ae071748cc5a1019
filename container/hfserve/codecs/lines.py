"""JSON Lines: one JSON value a line."""

from io import BytesIO
from typing import Any

import orjson

from hfserve.codecs import json_
from hfserve.codecs.media import Media, utf8
from hfserve.codecs.records import Records, gather
from hfserve.errors import BadRequest


def decode(body: bytes, media: Media) -> Records:
    """A record for each line that is not blank."""
    lines = enumerate(BytesIO(utf8(body, media.charset)), 1)
    return gather(_record(number, line) for number, line in lines if not line.isspace())


def json_or_lines(body: bytes, media: Media) -> Any:
    """One JSON value, or records: batch transform sends JSON lines with the label of JSON (contract row 33)."""
    try:
        return json_.decode(body, media)
    except BadRequest:
        if not _is_lines(utf8(body, media.charset).strip()):
            raise
        return decode(body, media)


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
    """Whether the first or the last of several lines is JSON by itself, as never in one broken indented value."""
    first, last = body[: body.find(b"\n") + 1], body[body.rfind(b"\n") + 1 :]
    return bool(first) and any(not isinstance(_record(0, line), BadRequest) for line in (first, last))
