"""Pieces of an answer that goes out while it is made, and the forms that a stream has."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hfserve.codecs import essence, json_, preferred, table
from hfserve.errors import InvalidInput, ModelError, ServeError, error_body
from hfserve.messages import JSON_LINES

log = logging.getLogger(__name__)
_END = object()

EVENTS, LINES, PLAIN = "text/event-stream", JSON_LINES, "text/plain"


@dataclass(frozen=True, slots=True)
class Form:
    """How a stream looks: each event, a failure (its JSON) after what came last, and the mark at its end."""

    content_type: str
    event: Callable[[Any], bytes]
    failure: Callable[[bytes, bytes], bytes]
    end: bytes


def frame(piece: Any) -> bytes:
    """A piece as bytes: text and bytes as they are, anything else as a line of JSON."""
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    if isinstance(piece, str):
        return piece.encode()
    return json_.encode(piece) + b"\n"


async def pieces(source: Iterator[Any] | AsyncIterator[Any], content_type: str = LINES) -> AsyncIterator[bytes]:
    """What user code yields, as bytes; a plain generator runs in a thread, one piece at a time."""
    frame = _framing(content_type)
    if isinstance(source, AsyncIterator):
        try:
            async for piece in source:
                yield frame(piece)
        finally:
            if aclose := getattr(source, "aclose", None):
                await aclose()
        return
    loop = asyncio.get_running_loop()
    close = getattr(source, "close", lambda: None)
    step = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, source, _END))
            if (piece := await asyncio.shield(step)) is _END:
                break
            yield frame(piece)
    finally:
        if step and not step.done():
            step.add_done_callback(lambda step: (step.exception(), loop.run_in_executor(None, close)))
        else:
            await asyncio.to_thread(close)


def _framing(content_type: str) -> Callable[[Any], bytes]:
    """Text and bytes of user code stay as they are; its values are events where events were asked for."""
    if essence(content_type) != EVENTS:
        return frame
    return lambda piece: frame(piece) if isinstance(piece, str | bytes | bytearray | memoryview) else _event(piece)


def form(content_type: str) -> Form | None:
    """The form of a stream under the name that was asked for; None for what is no stream's."""
    return FORMS.get(essence(content_type))


def asked(data: Any, accept: str, *, of_texts: bool) -> tuple[Any, Form | None]:
    """A body without its word on streaming, and the form of the stream that is wanted (contract row 23).

    `"stream": true` asks for one, in the form that Accept names or as events; so does an Accept of events, and one of
    lines where texts are generated, which are then events too. `"stream": false` asks for none.
    """
    word = data.get("stream") if isinstance(data, dict) else None
    if word is not None:
        if not isinstance(word, bool):
            raise InvalidInput("stream has to be true or false")
        data = {name: value for name, value in data.items() if name != "stream"}
    named = form(preferred(accept))
    if word is not None:
        return data, (named or FORMS[EVENTS]) if word else None
    wanted = named and (named.content_type == EVENTS or (of_texts and named.content_type in table.LINES))
    return data, named if wanted else None


async def begin(chunks: AsyncIterator[bytes], request_id: str, content_type: str = LINES) -> AsyncIterator[bytes]:
    """Wait for the first piece, so that a failure before it still has an honest status; then all of them."""
    first = await anext(chunks, b"")
    return _rest(first, chunks, request_id, form(content_type) or FORMS[LINES])


async def _rest(first: bytes, chunks: AsyncIterator[bytes], request_id: str, form: Form) -> AsyncIterator[bytes]:
    """Once a stream has begun, a failure is its last record, and the stream ends with a newline (contract row 25)."""
    last = first
    try:
        if first:
            yield first
        async for chunk in chunks:
            if chunk:
                last = chunk
                yield chunk
    except Exception as error:
        log.exception("the stream failed after it had begun")
        shown = error if isinstance(error, ServeError) else ModelError("the stream broke; the log has the traceback")
        yield form.failure(error_body(shown, request_id), last)
        return
    finally:
        if close := getattr(chunks, "aclose", None):
            await close()
    if not last.endswith(b"\n"):
        yield b"\n"


async def hold(chunks: AsyncIterator[bytes], most: int, request_id: str) -> tuple[bytes, AsyncIterator[bytes] | None]:
    """The whole of a stream that has no more than so many bytes; else nothing, and the stream."""
    first = bytearray()
    async for chunk in chunks:
        first += chunk
        if len(first) > most:
            return b"", _whole(bytes(first), chunks, request_id)
    return bytes(first), None


async def _whole(first: bytes, chunks: AsyncIterator[bytes], request_id: str) -> AsyncIterator[bytes]:
    """A failure is the last line, and no end of the answer follows: nobody who counts records takes it for whole."""
    try:
        yield first
        async for chunk in chunks:
            yield chunk
    except Exception as error:
        shown = error if isinstance(error, ServeError) else ModelError("the answer broke; the log has the traceback")
        yield error_body(shown, request_id) + b"\n"
        raise
    finally:
        if close := getattr(chunks, "aclose", None):
            await close()


def _event(value: Any) -> bytes:
    return b"data: " + json_.encode(value) + b"\n\n"


def _failed_event(error: bytes, last: bytes) -> bytes:
    """An event of its own kind; a client that looks at data alone finds the error there."""
    ended = b"" if last.endswith(b"\n\n") else b"\n" if last.endswith(b"\n") else b"\n\n"
    return ended + b"event: error\ndata: " + error + b"\n\n" + DONE


def _failed_line(error: bytes, last: bytes) -> bytes:
    return (b"" if last.endswith(b"\n") else b"\n") + error + b"\n"


DONE = b"data: [DONE]\n\n"

FORMS = {
    EVENTS: Form(EVENTS, _event, _failed_event, DONE),
    PLAIN: Form(PLAIN, frame, _failed_line, b"\n"),
    **{name: Form(name, frame, _failed_line, b"") for name in table.LINES},
}
