"""Pieces of an answer that goes out while it is made."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson

from hfserve.errors import ModelError, ServeError, error_body

log = logging.getLogger(__name__)
_END = object()


def frame(piece: Any) -> bytes:
    """A piece as bytes: text and bytes as they are, anything else as a line of JSON."""
    if isinstance(piece, bytes | bytearray | memoryview):
        return bytes(piece)
    if isinstance(piece, str):
        return piece.encode()
    return orjson.dumps(piece, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


async def pieces(source: Iterator[Any] | AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """What user code yields, as bytes; a plain generator runs in a thread, one piece at a time."""
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


async def begin(chunks: AsyncIterator[bytes], request_id: str) -> AsyncIterator[bytes]:
    """Wait for the first piece, so that a failure before it still has an honest status; then all of them."""
    first = await anext(chunks, b"")
    return _rest(first, chunks, request_id)


async def _rest(first: bytes, chunks: AsyncIterator[bytes], request_id: str) -> AsyncIterator[bytes]:
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
        yield (b"" if last.endswith(b"\n") else b"\n") + error_body(shown, request_id) + b"\n"
        return
    finally:
        if close := getattr(chunks, "aclose", None):
            await close()
    if not last.endswith(b"\n"):
        yield b"\n"
