"""Accept: which of the forms an answer has the client likes best (RFC 9110, 12.5.1)."""

import re
from collections.abc import Sequence

from hfserve.codecs import table
from hfserve.codecs.media import essence
from hfserve.errors import NotAcceptable

_TOKEN = r"[!#$%&'+.^_`|~0-9a-z-]+"
_RANGE = re.compile(rf"\*/\*|{_TOKEN}/(?:\*|{_TOKEN})")
_QUALITY = re.compile(r"0?\.[0-9]+|0\.?|1(?:\.0*)?")


def negotiate(accept: str, offers: Sequence[str], default: str) -> str:
    """The offer that Accept ranks highest, under the name asked for; raises NotAcceptable when it wants none.

    Of equals, one that is asked for by name goes before one that only a wildcard takes; where a wildcard leaves the
    choice, `default` has it if it is an offer; then the order of the offers decides. What is malformed is not there.
    """
    ranges = _ranges(accept) or {"*/*": 1.0}
    names = [name for offer in offers for name in _names(offer) if name == offer or name in ranges]
    best = max(names, key=lambda name: _rank(name, ranges), default="")
    quality, precision = _rank(best, ranges)
    if not best or not quality:
        raise NotAcceptable(f"this answer is given as {', '.join(offers)}; Accept asks for {accept[:200]}")
    default = essence(default)
    if precision < 2 and _rank(default, ranges) == (quality, precision) and not set(offers).isdisjoint(_names(default)):
        return default
    return best


def preferred(accept: str) -> str:
    """The media type that Accept likes best, the first of equals; "" when it leaves the choice."""
    ranges = _ranges(accept)
    best = max(ranges, key=lambda name: (ranges[name], "*" not in name), default="")
    return "" if "*" in best or not ranges.get(best) else best


def _ranges(accept: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        name = "*/*" if name == "*" else name
        quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        if _RANGE.fullmatch(name) and _QUALITY.fullmatch(quality):
            found[name] = max(float(quality), found.get(name, 0))
    return found


def _rank(name: str, ranges: dict[str, float]) -> tuple[float, int]:
    """The quality that the most precise range gives to a name, and how precise that range is."""
    for precision, candidate in enumerate((name, f"{name.partition('/')[0]}/*", "*/*")):
        if candidate in ranges:
            return ranges[candidate], 2 - precision
    return 0.0, 0


def _names(media_type: str) -> tuple[str, ...]:
    codec = table.find(media_type)
    return codec.names if codec and media_type in codec.names else (media_type,)
