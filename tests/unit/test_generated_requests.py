"""No request that a task's own OpenAPI can generate makes the model, or our code, fail: it is answered or refused."""

import time
from urllib.parse import urlsplit

import hypothesis
import pytest
import requests
import schemathesis
import torch

import zoo
from hfserve.artifacts import Artifact
from hfserve.errors import ServeError
from hfserve.messages import Request
from hfserve.model import load
from hfserve.settings import Settings
from hfserve.tasks.table import TASKS

torch.set_num_threads(1)

SLOW = {"mask-generation": 15, "text-to-image": 5}
"""Tasks that take long for a request, and how many they get."""
USUAL = 40


@pytest.mark.parametrize("task", TASKS)
def test_a_generated_request_is_answered_or_refused(task, tmp_path):
    zoo.build(task, tmp_path)
    model = load(
        Artifact(tmp_path, str(tmp_path), code_dir=None),
        Settings(task=task, max_new_tokens=8, max_pixels=20_000, max_labels=20),
    )
    model.warm_up()
    operation = schemathesis.openapi.from_dict(model.openapi())["/invocations"]["POST"]

    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=SLOW.get(task, USUAL), deadline=None, database=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck), phases=[hypothesis.Phase.generate],
    )  # fmt: skip
    def ask(case):
        try:
            job = model.prepare(_sent(case))
            parts = job.stream.parts if job.stream else None
            if parts is None:
                assert job.finish(model.run(job.items, 1)).status == 200
            else:
                assert b"".join(part.answered(model.run(part.items, 1)) for part in parts)
        except ServeError as error:
            assert error.status < 500, (str(error), case.as_curl_command()[-2000:])

    ask()


def _sent(case):
    """A case as it comes in at a door."""
    named = {"method", "url", "headers", "params", "data", "json", "files"}
    given = case.as_transport_kwargs(base_url="http://localhost")
    sent = requests.Request(**{name: each for name, each in given.items() if name in named}).prepare()
    body = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
    headers = {name.lower(): value for name, value in sent.headers.items()}
    return Request(body, headers, "id", time.monotonic() + 60, urlsplit(sent.url).query)
