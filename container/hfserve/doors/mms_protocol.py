"""Door 1: the wire protocol between Multi Model Server's frontend and its backend, version 1.1.11.

Lengths are big-endian int32; every connection carries one request at a time, since MMS's batch size is 1 here.
Two rules keep its response decoder from its known faults: each reply is padded in the message field, which nobody
sees, so that netty's read buffer never shrinks below the reply's metadata; and only small replies with status 200
travel this way. All others (errors, large bodies, streams) are left in the stash, and nginx fetches them from door 2.
MMS does not know which worker has how much to do: where another is idler, nginx takes the request there, by its door 2.
"""

import asyncio
import logging
import os
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hfserve.doors.stash import Stash
from hfserve.messages import Reply, Request

if TYPE_CHECKING:
    from hfserve.service import Service

log = logging.getLogger(__name__)

PADDING = b" " * 2100
MOST_METADATA = 1500
MOST_BODY = 1 << 20
END = struct.pack("!i", -1)


class MmsDoor:
    """Serves connections of MMS's frontend that were handed to this worker."""

    def __init__(
        self, service: "Service", stash: Stash, *, slot: int, timeout: float, tmp_dir: Path,
        idler: Callable[[], int | None] = lambda: None,
    ) -> None:  # fmt: skip
        self._service = service
        self._idler = idler
        self._stash = stash
        self._slot = slot
        self._timeout = timeout
        self._tmp_dir = tmp_dir

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection until MMS closes it."""
        fifos: list[Path] = []
        try:
            while command := await reader.read(1):
                if command == b"L":
                    fifos += self._make_fifos(await _load(reader))
                    writer.write(_packed_int(200) + _packed(PADDING + b"loaded [PID]:%d" % os.getpid()) + END)
                elif command == b"I":
                    writer.write(await self._answer(reader))
                else:
                    raise ValueError(f"MMS sent an unknown command {command!r}")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            log.debug("MMS closed a connection")
        finally:
            for fifo in fifos:
                fifo.unlink(missing_ok=True)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        frames = []
        while (length := await _int(reader)) != -1:
            mms_id = await reader.readexactly(length)
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in await _pairs(reader)}
            body = await _body(reader)
            if (slot := self._idler()) is None:
                reply = await self._service.answer(request(headers, body, time.monotonic(), self._timeout))
            else:
                reply = Reply(headers={"X-Accel-Redirect": f"@worker{slot}"})
            frames.append(self._reply_frame(mms_id, reply))
        return _packed_int(200) + _packed(PADDING) + b"".join(frames) + END

    def _reply_frame(self, mms_id: bytes, reply: Reply) -> bytes:
        headers = dict(reply.headers)
        metadata = sum(len(k) + len(v) for k, v in headers.items()) + len(reply.content_type)
        if reply.chunks or reply.status != 200 or len(reply.body) > MOST_BODY or metadata > MOST_METADATA:
            ticket = self._stash.put(reply)
            reply, headers = Reply(), {"X-Accel-Redirect": f"/_reply/{self._slot}/{ticket}"}
        return b"".join([
            _packed(mms_id), _packed(reply.content_type.encode()), _packed_int(200), _packed(b"OK"),
            _packed_int(len(headers)), *(_packed(text.encode("latin-1")) for pair in headers.items() for text in pair),
            _packed(reply.body),
        ])  # fmt: skip

    def _make_fifos(self, descriptor: str) -> list[Path]:
        """MMS reads what a backend prints from two FIFOs; ours prints elsewhere, yet they must be there."""
        fifos = [self._tmp_dir / f"{descriptor}-{stream}" for stream in ("stdout", "stderr")]
        for fifo in fifos:
            fifo.unlink(missing_ok=True)
            os.mkfifo(fifo)
        return fifos


def request(headers: Mapping[str, str], body: bytes, now: float, timeout: float) -> Request:
    """A request as nginx wrote it into headers for MMS, its own Content-Type among them."""
    headers = dict(headers)
    headers["content-type"] = headers.pop("x-hfserve-content-type", "")
    query = headers.pop("x-hfserve-query", "")
    path = headers.pop("x-hfserve-path", "/invocations")
    waited = _waited(headers.pop("x-hfserve-start", ""))
    return Request(body, headers, headers.pop("x-hfserve-request-id", ""), now - waited + timeout, query, path)


def _waited(start: str) -> float:
    """Seconds since nginx had the request, by its own clock, which is this machine's."""
    try:
        return max(0.0, time.time() - float(start))
    except ValueError:
        return 0.0


async def _load(reader: asyncio.StreamReader) -> str:
    """The `L` command: name, path, batch size, handler, GPU, FIFO descriptor; only the last matters here."""
    await _bytes(reader)
    await _bytes(reader)
    await _int(reader)
    await _bytes(reader)
    await _int(reader)
    return (await _bytes(reader)).decode()


async def _pairs(reader: asyncio.StreamReader) -> list[tuple[bytes, bytes]]:
    pairs = []
    while (length := await _int(reader)) != -1:
        name = await reader.readexactly(length)
        pairs.append((name, await _bytes(reader)))
    return pairs


async def _body(reader: asyncio.StreamReader) -> bytes:
    """The parameters of a request; the one called body holds it."""
    body = b""
    while (length := await _int(reader)) != -1:
        name = await reader.readexactly(length)
        await _bytes(reader)
        value = await _bytes(reader)
        if name == b"body":
            body = value
    return body


async def _int(reader: asyncio.StreamReader) -> int:
    return int.from_bytes(await reader.readexactly(4), "big", signed=True)


async def _bytes(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(await _int(reader))


def _packed_int(number: int) -> bytes:
    return struct.pack("!i", number)


def _packed(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content
