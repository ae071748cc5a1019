"""Bodies into values by Content-Type, values into bodies by Accept; one small file per format."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hfserve.codecs import csv_, json_, table
from hfserve.codecs.accept import negotiate, preferred
from hfserve.codecs.media import MAX_PIXELS, Media, boundary, charset, essence, value
from hfserve.codecs.records import Records, Sized
from hfserve.codecs.sound import Sound
from hfserve.errors import BadRequest, NotAcceptable, UnsupportedMediaType

__all__ = [
    "Records", "Sized", "Sound", "charset", "decode", "encode", "essence", "form", "line", "negotiate", "offers",
    "preferred", "records", "value",
]  # fmt: skip


def decode(body: bytes, content_type: str, *, max_pixels: int = MAX_PIXELS) -> Any:
    """What the body says; raises BadRequest, UnsupportedMediaType or PayloadTooLarge."""
    codec = table.find(essence(content_type))
    if codec is None:
        raise UnsupportedMediaType(f"{essence(content_type)[:100]} is not read here; send {', '.join(table.READ)}")
    if not body or body.isspace():
        raise BadRequest('the body is empty; send JSON such as {"inputs": "…"}')
    return codec.decode(body, Media(charset(content_type), boundary(content_type), max_pixels))


def records(body: bytes, content_type: str, *, tables: bool) -> Iterator[Sized] | None:
    """The records of a body of lines, each read when its turn comes; None of a body that is one value.

    A table is one value, the list of its lines, unless `tables` says that its lines are records too.
    """
    codec = table.find(essence(content_type))
    if codec is None or not body or body.isspace():
        return None
    media = Media(charset(content_type))
    return csv_.each(body, media) if tables and codec.names == table.TABLES else codec.each(body, media)


def line(answer: Any, content_type: str) -> bytes:
    """The answer to one record as a line: of CSV, or of JSON."""
    return csv_.row(answer) if content_type in table.TABLES else json_.encode(answer) + b"\n"


def offers(result: Any) -> list[str]:
    """The media types in which this result can be given, preferred first."""
    return [codec.names[0] for codec in table.CODECS if codec.encode and codec.fits(result)]


def form(result: Any, accept: str, default: str) -> str:
    """The media type that Accept gets of this result: `negotiate` over its `offers`, without trying each of them.

    What would win among all the forms there are also wins among those that fit, when it fits.
    """
    with suppress(NotAcceptable):
        winner = negotiate(accept, table.GIVEN, default)
        codec = table.find(winner)
        if codec and codec.fits(result):
            return winner
    return negotiate(accept, offers(result), default)


def encode(result: Any, content_type: str) -> bytes:
    """The result in one of its forms."""
    codec = table.find(essence(content_type))
    if codec is None or codec.encode is None:
        raise NotAcceptable(f"answers are not given as {content_type}; ask for {', '.join(offers(result))}")
    return codec.encode(result)
