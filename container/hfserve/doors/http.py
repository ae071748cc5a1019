"""Uvicorn inside an event loop of ours."""

import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn

PING = 30.0
PONG = 150.0
"""Seconds between two pings of a WebSocket, and until the answer to one has to be there."""


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
            application, http="httptools", loop="none", lifespan="off", access_log=False, log_config=None,
            server_header=False, ws="websockets-sansio" if message else "none", ws_max_size=message,
            ws_ping_interval=PING, ws_ping_timeout=PONG, ws_per_message_deflate=False, **options,
        )
    )  # fmt: skip
