"""Request to Reply, whatever the model says."""

import asyncio
import json
import time

import pytest

from hfserve.errors import InvalidInput, NotReady, OutOfMemory
from hfserve.messages import Item, Reply, Request
from hfserve.metrics import WorkerMetrics
from hfserve.model import BrokenDevice, Job
from hfserve.scheduler import Limits, Scheduler
from hfserve.service import Service


class Saying:
    """A model whose every item has one outcome."""

    task = "any"
    concurrent = False
    slow_to_read = False

    def __init__(self, outcome):
        self.outcome = outcome

    def prepare(self, request):
        def finish(outcomes):
            if isinstance(outcomes[0], Exception):
                raise outcomes[0]
            return Reply(body=outcomes[0])

        return Job([Item(request)], finish)

    def run(self, items, threads):
        return [self.outcome for _ in items]


def answer(outcome, *, drained=False):
    """The reply, and what was said to be broken."""
    told = []

    async def main():
        model = Saying(outcome)
        async with Scheduler(model.run, Limits()) as scheduler:
            service = Service(model, scheduler, WorkerMetrics("any"), broken=told.append)
            if drained:
                service.drain()
            return await service.answer(Request(b"{}", {}, "id-1", time.monotonic() + 5))

    return asyncio.run(main()), told


def test_a_result_is_the_body():
    assert answer(b"fine")[0] == Reply(body=b"fine")


@pytest.mark.parametrize("error", [InvalidInput("no"), OutOfMemory("full"), NotReady("soon")])
def test_an_error_has_its_status_and_the_requests_id(error):
    reply, told = answer(error)
    assert reply.status == error.status
    assert json.loads(reply.body)["error"]["request_id"] == "id-1"
    assert told == []


def test_an_unexpected_error_tells_the_client_nothing_of_itself():
    reply, _ = answer(RuntimeError("secret"))
    assert reply.status == 500
    assert b"secret" not in reply.body


def test_a_broken_device_has_the_worker_replaced():
    reply, told = answer(BrokenDevice("the GPU cannot be used any more: illegal memory access"))
    assert reply.status == 500
    assert told == ["the GPU cannot be used any more: illegal memory access"]


def test_what_is_new_is_refused_while_draining():
    reply, _ = answer(b"fine", drained=True)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
