"""Uvicorn inside an event loop of ours."""

import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn


class Server(uvicorn.Server):
    """A server that leaves the signals to whoever started it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def embedded(application: Any, **options: Any) -> Server:
    """A server for an application, without a log of its own; `serve(sockets)` runs it until `should_exit`."""
    return Server(
        uvicorn.Config(
            application, http="httptools", loop="none", lifespan="off", access_log=False, log_config=None,
            server_header=False, **options,
        )
    )  # fmt: skip
