"""Uvicorn inside an event loop of ours."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

PING = 30.0
PONG = 150.0
"""Seconds between two pings of a WebSocket, and until the answer to one has to be there."""

SMALL = 1 << 16
"""Bytes of what is sent at once."""


class Joined:
    """A transport that sends at once what is written in one turn of the loop.

    A worker that is killed between an answer's head and its body would leave nginx a head that it cannot take back.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiting = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it before the loop waits for anything."""
        if len(self._waiting) + len(data) > SMALL:
            self._send()
            self._transport.write(data)
            return
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting += data

    def close(self) -> None:
        """Send what waits, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, b""
            self._transport.write(waiting)


class Protocol(HttpToolsProtocol):
    """Uvicorn's, on such a transport."""

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        super().connection_made(Joined(transport))  # type: ignore[arg-type]


class Server(uvicorn.Server):
    """A server that leaves the signals to whoever started it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def embedded(application: Any, *, message: int = 0, **options: Any) -> Server:
    """A server for an application, without a log of its own; `serve(sockets)` runs it until `should_exit`.

    It takes WebSockets when `message` says how many bytes one of their messages may have.
    """
    return Server(
        uvicorn.Config(
            application, http=Protocol, loop="none", lifespan="off", access_log=False, log_config=None,
            server_header=False, ws="websockets-sansio" if message else "none", ws_max_size=message,
            ws_ping_interval=PING, ws_ping_timeout=PONG, ws_per_message_deflate=False, **options,
        )
    )  # fmt: skip
