"""Content-Type headers, and the characters that they promise."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from hfserve.errors import BadRequest, UnsupportedMediaType

UTF8_NAMES = frozenset({"utf-8", "utf8"})
# A closed list: Python's own would take idna (quadratic) and remember every unknown name a client makes up.
CHARSETS = UTF8_NAMES.union(
    ("utf-16", "utf-16le", "utf-16be", "utf-32", "us-ascii", "ascii"),
    ("iso-8859-1", "iso-8859-2", "iso-8859-15", "latin1", "latin-1", "koi8-r", "koi8-u"),
    (f"windows-{page}" for page in range(1250, 1259)),
    ("shift_jis", "euc-jp", "iso-2022-jp", "gb2312", "gbk", "gb18030", "big5", "euc-kr"),
)
_BOM = b"\xef\xbb\xbf"
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s;"']+)""", re.IGNORECASE)
_BOUNDARY = re.compile(r""";\s*boundary\s*=\s*(?:"([^"]*)"|([^\s;"]+))""", re.IGNORECASE)
MAX_PIXELS = 50_000_000


@dataclass(frozen=True, slots=True)
class Media:
    """What a decoder is told about a body: its charset and boundary, and how many pixels a picture may have."""

    charset: str = "utf-8"
    boundary: str = ""
    max_pixels: int = MAX_PIXELS


def essence(header: str) -> str:
    """`Application/JSON; charset=utf-8` and `application/json` are one type."""
    return header.partition(";")[0].strip().lower()


def charset(header: str, default: str = "utf-8") -> str:
    """The charset parameter of a Content-Type, in lower case."""
    found = _CHARSET.search(header)
    return found[1].lower() if found else default


def boundary(header: str) -> str:
    """The boundary parameter of a Content-Type, "" when there is none."""
    found = _BOUNDARY.search(header)
    return found[1] or found[2] or "" if found else ""


def value(text: str) -> Any:
    """A text as the JSON that it is, or as it is: `2` is a number, `softmax` a string."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def text(body: bytes, charset: str) -> str:
    """The body as characters, without a byte order mark."""
    if charset not in CHARSETS:
        raise UnsupportedMediaType(f"charset {charset} is not read here; send utf-8")
    try:
        return body.decode(charset).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not valid {charset}: {error.reason} at byte {error.start}") from None


def utf8(body: bytes, charset: str) -> bytes:
    """The body as UTF-8 without a byte order mark; not checked when it says that it is UTF-8 already."""
    return body.removeprefix(_BOM) if charset in UTF8_NAMES else text(body, charset).encode()
