"""Replies that MMS cannot carry, kept for the moment it takes nginx to fetch them."""

import asyncio
import secrets
from collections.abc import AsyncGenerator

from hfserve.messages import Reply

SECONDS = 30.0


class Stash:
    """Ticket → reply; each is fetched once, and forgotten when nobody comes."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._replies: dict[str, tuple[Reply, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._replies)

    def put(self, reply: Reply) -> str:
        """Keep a reply; its ticket."""
        ticket = secrets.token_hex(16)
        timer = asyncio.get_running_loop().call_later(self._seconds, self._forget, ticket)
        self._replies[ticket] = reply, timer
        return ticket

    def take(self, ticket: str) -> Reply | None:
        """The reply of a ticket, once."""
        reply, timer = self._replies.pop(ticket, (None, None))
        if timer:
            timer.cancel()
        return reply

    def _forget(self, ticket: str) -> None:
        reply = self.take(ticket)
        if reply and isinstance(reply.chunks, AsyncGenerator):
            closing = asyncio.ensure_future(reply.chunks.aclose())
            closing.add_done_callback(lambda task: task.exception())
