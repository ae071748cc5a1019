"""Request → Reply: prepare, wait for the outcomes, finish; every failure becomes the one shape of an error."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hfserve import live
from hfserve.errors import DeadlineExceeded, ModelError, NotReady, ServeError
from hfserve.logs import request_id
from hfserve.messages import Item, Job, Reply, Request
from hfserve.metrics import WorkerMetrics
from hfserve.model import BrokenDevice, Model
from hfserve.scheduler import Scheduler
from hfserve.streaming import begin, hold

log = logging.getLogger(__name__)

LARGE = 64 << 10
"""Bytes from which a body is read in a thread, so that reading it holds up nobody else."""


class Service:
    """Answers requests with a model; tells `broken` why when the process can compute no more (contract row 12)."""

    def __init__(
        self,
        model: Model,
        scheduler: Scheduler,
        metrics: WorkerMetrics,
        *,
        stream_s: float = 0.0,
        broken: Callable[[str], None] = log.error,
    ) -> None:
        self._stream_s = stream_s
        self._broken = broken
        self._model = model
        self._scheduler = scheduler
        self._metrics = metrics
        self._draining = False

    def drain(self) -> None:
        """From now on, refuse what is new; what was accepted is answered."""
        self._draining = True

    async def answer(self, request: Request) -> Reply:
        """The reply to a request; raises nothing but cancellation."""
        token = request_id.set(request.request_id)
        started = time.monotonic()
        self._metrics.in_flight.inc()
        reply = Reply(status=499)
        try:
            reply = await self._answer(request)
            return reply
        finally:
            self._count(reply.status, time.monotonic() - started)
            request_id.reset(token)

    async def _answer(self, request: Request) -> Reply:
        try:
            return await self._run(request)
        except ServeError as error:
            if isinstance(error, BrokenDevice):
                self._broken(str(error))
            if error.status >= 500 and error.status != 503:
                log.warning("%s: %s", type(error).__name__, error)
            return Reply.of_error(error, request.request_id)
        except Exception:
            log.exception("a request failed unexpectedly")
            return Reply.of_error(ModelError("the server failed; the log has the traceback"), request.request_id)

    async def _run(self, request: Request) -> Reply:
        if self._draining:
            raise NotReady("the server is stopping; send this request to another one")
        large = len(request.body) > LARGE or self._model.slow_to_read
        job: Job = await asyncio.to_thread(self._model.prepare, request) if large else self._model.prepare(request)
        try:
            async with asyncio.timeout(request.deadline - time.monotonic()):
                reply = self._stream(job, request) if job.stream else await self._finished(job, request, large)
                if reply.chunks is None:
                    return reply
                if job.stream and job.stream.held:
                    body, chunks = await hold(reply.chunks, job.stream.held, request.request_id)
                    return replace(reply, body=body, chunks=chunks)
                return replace(reply, chunks=await begin(reply.chunks, request.request_id, reply.content_type))
        except TimeoutError:
            raise DeadlineExceeded("the answer was not ready before the deadline") from None

    async def _finished(self, job: Job, request: Request, large: bool) -> Reply:
        """The reply when all is made."""
        futures = self._scheduler.submit(job.items, source=object(), deadline=request.deadline)
        try:
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            return await asyncio.to_thread(job.finish, outcomes) if large else job.finish(outcomes)
        finally:
            live.let_go(job.items, futures)

    def _stream(self, job: Job, request: Request) -> Reply:
        """A reply whose pieces are made while it goes out."""
        assert job.stream
        source, until = object(), request.deadline + self._stream_s

        def submit(items: Sequence[Item]) -> list[asyncio.Future[Any]]:
            return self._scheduler.submit(items, source=source, deadline=until)

        chunks = live.chunks(job, submit, until)
        return Reply(content_type=job.stream.content_type, headers=job.headers, chunks=chunks)

    def _count(self, status: int, seconds: float) -> None:
        self._metrics.in_flight.dec()
        self._metrics.request_seconds.observe(seconds)
        self._metrics.requests.labels(self._metrics.task, str(status)).inc()
