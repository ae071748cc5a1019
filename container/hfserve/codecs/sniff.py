"""Bodies that do not say what they are, or say what curl puts there when nobody says."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hfserve.codecs import json_, lines, plain
from hfserve.codecs.media import Media, utf8
from hfserve.codecs.records import Sized
from hfserve.errors import BadRequest

_OPENING = re.compile(rb'\s*([{\["])')


def decode(body: bytes, media: Media) -> Any:
    """What opens with a brace is JSON; a JSON list or string is that; all else is text, `42` and `[CLS] word` too."""
    opening = _opening(body, media)
    if opening == b"{":
        return lines.json_or_lines(body, media)
    if opening in (b"[", b'"'):
        with suppress(BadRequest):
            return json_.decode(body, media)
    return plain.decode(body, media)


def each(body: bytes, media: Media) -> Iterator[Sized] | None:
    """The records of JSON lines that are objects."""
    return lines.each_within(body, media) if _opening(body, media) == b"{" else None


def _opening(body: bytes, media: Media) -> bytes:
    """The first character that is not blank, of those that JSON opens with."""
    found = _OPENING.match(utf8(body, media.charset))
    return found[1] if found else b""
