"""AWS's own clients, unmodified, against a local SageMaker whose containers are hfserve."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/clients.md"

pytestmark = pytest.mark.timeout(900)
clients = pytest.mark.parametrize(
    "client", ["boto3_calls", "sagemaker2", "aws_cli", pytest.param("sagemaker3", marks=pytest.mark.sagemaker3)]
)


def section(lines):
    """What the page says of one client."""
    about, *calls = lines
    rows = [f"| {call['call']} | {call['broken'] or 'works'} |" for call in calls]
    return f"## {about['client']} ({about['version']})\n\n| call | result |\n|---|---|\n" + "\n".join(rows) + "\n"


def written(page, client, said):
    """The page with this section in place of the one that is there for the client."""
    old = re.compile(rf"## {re.escape(client)} \(.*?(?=\n## |\Z)", re.DOTALL)
    return old.sub(lambda _: said, page) if old.search(page) else f"{page}\n{said}"


@clients
def test_every_call_does_what_it_does_against_aws(outcomes, client):
    failures = [f"{line['call']}:\n{line['failure']}" for line in outcomes[client].result()[1:] if line["failure"]]
    assert not failures, "\n".join(failures)


@clients
def test_the_page_says_what_was_found(outcomes, client, request):
    lines = outcomes[client].result()
    said = section(lines)
    if request.config.getoption("--write-matrix", default=False):
        PAGE.write_text(written(PAGE.read_text(), lines[0]["client"], said))
    assert said in PAGE.read_text()
