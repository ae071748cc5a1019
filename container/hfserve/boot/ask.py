"""Asks a server on a unix socket: one GET, in plain HTTP, so that the supervisor needs no client library."""

import asyncio
import re
from pathlib import Path

MOST_HEAD = 1 << 16
"""Bytes of an answer's head that are read."""


async def get(socket: Path, address: str, patience: float) -> bytes:
    """The body of an answer 200; empty when there is none in time."""
    try:
        async with asyncio.timeout(patience):
            return await _exchange(socket, address)
    except (OSError, EOFError, asyncio.LimitOverrunError):  # a timeout is an OSError
        return b""


async def _exchange(socket: Path, address: str) -> bytes:
    """MMS keeps the connection whatever it is asked, so that the length it tells ends the body."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=MOST_HEAD)
    try:
        writer.write(f"GET {address} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
        body = await (reader.readexactly(int(length[1])) if length else reader.read())
        return body if head.split(b" ", 2)[1:2] == [b"200"] else b""
    finally:
        writer.close()
