"""Plain text: one text is one input, and an answer that is one text is given bare."""

from typing import Any

from hfserve.codecs.media import text
from hfserve.errors import NotAcceptable


def decode(body: bytes, charset: str) -> dict[str, str]:
    """The whole body as the one input."""
    return {"inputs": text(body, charset)}


def encode(result: Any) -> bytes:
    """The text of the answer."""
    only = _only_text(result)
    if only is None:
        raise NotAcceptable("this answer is not one text; ask for application/json")
    return only.encode(errors="replace")


def fits(result: Any) -> bool:
    """Whether the answer is one text, such as `"…"`, `{"summary_text": "…"}` or `[{"generated_text": "…"}]`."""
    return _only_text(result) is not None


def _only_text(result: Any) -> str | None:
    if isinstance(result, list) and len(result) == 1:
        result = result[0]
    if isinstance(result, dict) and len(result) == 1:
        (result,) = result.values()
    return result if isinstance(result, str) else None
