"""Bodies that do not say what they are, or say what curl puts there when nobody says."""

from contextlib import suppress
from typing import Any

from hfserve.codecs import json_, lines, plain
from hfserve.codecs.media import utf8
from hfserve.errors import BadRequest


def decode(body: bytes, charset: str) -> Any:
    """What opens with a brace is JSON; a JSON list or string is that; all else is text, `42` and `[CLS] word` too."""
    opening = utf8(body, charset).lstrip()[:1]
    if opening == b"{":
        return lines.json_or_lines(body, charset)
    if opening in (b"[", b'"'):
        with suppress(BadRequest):
            return json_.decode(body, charset)
    return plain.decode(body, charset)
