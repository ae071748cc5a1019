"""What each call of a client came to: one line of JSON for each, in the file that CLIENT_RESULTS names."""

import contextlib
import json
import os
import time
import traceback
from pathlib import Path

MODELS = Path(os.environ.get("CLIENT_MODELS", "."))
IMAGE = "hfserve:local"
ROLE = "arn:aws:iam::111122223333:role/local"
POSITIVE, NEGATIVE = {"inputs": "I love this"}, {"inputs": "I hate this"}
PATIENCE = 400
RESULTS = Path(os.environ.get("CLIENT_RESULTS", "/dev/stdout"))


def say(**found):
    """Add a line to the results."""
    with RESULTS.open("a") as file:
        file.write(json.dumps(found) + "\n")


@contextlib.contextmanager
def call(name, *, broken=None, shown=None):
    """A call that should work, or one that is known to be broken in the client itself, and what it then shows."""
    began = time.monotonic()
    try:
        yield
        failure = f"it is no longer broken: {broken}" if broken else None
    except Exception:
        told = traceback.format_exc()
        failure = None if broken and shown in told else told
    say(call=name, broken=broken, failure=failure, seconds=round(time.monotonic() - began, 1))


def until(condition, what):
    """Wait until the condition gives something."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.1)
    return found


@contextlib.contextmanager
def raises(kind):
    """An error that should come; what it is stands in `.value` afterwards."""
    caught = Caught()
    try:
        yield caught
    except kind as error:
        caught.value = error
    else:
        raise AssertionError(f"{kind.__name__} did not come")


class Caught:
    value = None


def labels(body):
    """The label that each answer begins with."""
    answers = json.loads(body) if isinstance(body, str | bytes) else body
    return [(answer[0] if isinstance(answer, list) else answer)["label"] for answer in answers]
