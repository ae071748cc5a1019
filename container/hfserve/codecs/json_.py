"""JSON: one value, as strict as RFC 8259, read and written by orjson."""

import base64
import json
from typing import Any

import numpy as np
import orjson

from hfserve.codecs.image import is_image, png
from hfserve.codecs.media import Media, text, utf8
from hfserve.codecs.sound import Sound, wav
from hfserve.errors import BadRequest, ModelError


def decode(body: bytes, media: Media) -> Any:
    """One JSON value; an integer beyond 64 bits is read as a float, one beyond floats is refused."""
    try:
        return orjson.loads(utf8(body, media.charset))
    except orjson.JSONDecodeError as error:
        text(body, media.charset)  # a body that is not even text is told so instead
        raise BadRequest(
            f"the body is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None


def encode(result: Any) -> bytes:
    """One JSON value: arrays become lists, NaN and infinity null, pictures PNG in base64 and sounds WAV in base64."""
    try:
        return orjson.dumps(result, _plain, orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return _encode_slowly(result)


def _encode_slowly(result: Any) -> bytes:
    """What orjson does not write: integers beyond 64 bits, keys that are no strings, lone surrogates, deep nesting."""
    try:
        return json.dumps(result, default=_plain, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the answer cannot be given as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, Sound):
        return base64.b64encode(wav(value)).decode()
    if is_image(value):
        return base64.b64encode(png(value)).decode()
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "tolist"):
        plain = value.tolist()
        if type(plain) is not type(value):
            return plain
    raise TypeError(f"it holds a {type(value).__name__}")
