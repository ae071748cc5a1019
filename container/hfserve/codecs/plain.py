"""Plain text: one text is one input, and an answer that is one text is given bare."""

from typing import Any

from hfserve.codecs.media import Media, text
from hfserve.errors import NotAcceptable

TEXTS = ("generated_text", "summary_text", "translation_text", "text", "answer")
"""The fields that hold the text of an answer."""


def decode(body: bytes, media: Media) -> dict[str, str]:
    """The whole body as the one input."""
    return {"inputs": text(body, media.charset)}


def encode(result: Any) -> bytes:
    """The text of the answer."""
    only = _only_text(result)
    if only is None:
        raise NotAcceptable("this answer is not one text; ask for application/json")
    return only.encode(errors="replace")


def fits(result: Any) -> bool:
    """Whether the answer is one text, such as `"…"`, `{"summary_text": "…"}` or `[{"answer": "…", "score": 0.9}]`."""
    return _only_text(result) is not None


def _only_text(result: Any) -> str | None:
    if isinstance(result, list) and len(result) == 1:
        result = result[0]
    if isinstance(result, dict):
        result = _said(result)
    return result if isinstance(result, str) else None


def _said(answer: dict[str, Any]) -> Any:
    """The text of an object: its only field, the one with a name that tells it, or the last message of a chat."""
    told = [answer[name] for name in TEXTS if name in answer]
    text = next(iter(answer.values())) if len(answer) == 1 else told[0] if len(told) == 1 else None
    last = text[-1] if isinstance(text, list) and text else None
    return last["content"] if isinstance(last, dict) and last.keys() >= {"role", "content"} else text
