"""Bodies that do not say what they are, or say what curl puts there when nobody says."""

from contextlib import suppress
from typing import Any

from hfserve.codecs import json_, lines, plain
from hfserve.codecs.media import Media, utf8
from hfserve.errors import BadRequest


def decode(body: bytes, media: Media) -> Any:
    """What opens with a brace is JSON; a JSON list or string is that; all else is text, `42` and `[CLS] word` too."""
    opening = utf8(body, media.charset).lstrip()[:1]
    if opening == b"{":
        return lines.json_or_lines(body, media)
    if opening in (b"[", b'"'):
        with suppress(BadRequest):
            return json_.decode(body, media)
    return plain.decode(body, media)
