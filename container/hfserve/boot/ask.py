"""Asks a server on a unix socket, in plain HTTP without a body, so that the supervisor needs no client library."""

import asyncio
import re
from pathlib import Path

MOST_HEAD = 1 << 16
"""Bytes of an answer's head that are read."""


async def get(socket: Path, address: str, patience: float) -> bytes:
    """The body of an answer 200; empty when there is none in time."""
    status, body = await send("GET", socket, address, patience)
    return body if status == 200 else b""


async def send(method: str, socket: Path, address: str, patience: float) -> tuple[int, bytes]:
    """The status of an answer and its body; status 0 when there is none in time."""
    try:
        async with asyncio.timeout(patience):
            return await _exchange(method, socket, address)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):  # a timeout is an OSError
        return 0, b""


async def _exchange(method: str, socket: Path, address: str) -> tuple[int, bytes]:
    """MMS keeps the connection whatever it is asked, so that the length it tells ends the body."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=MOST_HEAD)
    try:
        length = "Content-Length: 0\r\n" if method != "GET" else ""
        writer.write(f"{method} {address} HTTP/1.0\r\nHost: localhost\r\n{length}Connection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        told = re.search(rb"(?i)\r\ncontent-length: *(\d+)\r\n", head)
        body = await (reader.readexactly(int(told[1])) if told else reader.read())
        return int(head.split(b" ", 2)[1]), body
    finally:
        writer.close()
