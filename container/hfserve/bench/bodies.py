"""What is sent: a user's texts or whole bodies, the server's own example, or sentences of several lengths."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hfserve.bench.errors import BenchError

SENTENCES = (
    "It works.",
    "The room was clean and the staff were friendly.",
    "I waited forty minutes for a table, and the soup was cold when it came.",
    "Fast delivery, well packed, exactly as described; I would order from this shop again.",
    "The first half of the film is slow, yet the last twenty minutes make up for all of it, above all the scene on the "
    "bridge, which I have not been able to get out of my head since.",
    "After two weeks the battery no longer held its charge. Support answered within a day, asked for a photograph of "
    "the label, and sent a new one without any further questions. It has worked ever since, though it is a little "
    "louder than the first, and I wish that the manual said how to turn off the light.",
    "No.",
    "We have stayed here three times now, and each time something small was wrong: once the heating, once the noise of "
    "the lift, and this time a window that would not close. The breakfast, on the other hand, is the best in town.",
)


def from_file(path: Path) -> list[bytes]:
    """A body for each line that is not empty: a text, or in a file that ends in .jsonl a whole body in JSON."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read: {error}") from None
    make = _whole if path.suffix == ".jsonl" else _text
    found = [make(line, f"{path.name}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BenchError(f"{path} holds no line of text")
    return found


def of(values: Sequence[Any]) -> list[bytes]:
    """Bodies of values that JSON can tell."""
    return [json.dumps(value).encode() for value in values]


def sentences() -> list[bytes]:
    """Those that come with the code."""
    return of([{"inputs": text} for text in SENTENCES])


def example(document: Any) -> bytes | None:
    """The example of an OpenAPI document, None when it has none."""
    try:
        content = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]
        value = content["example"] if "example" in content else next(iter(content["examples"].values()))["value"]
    except (LookupError, TypeError, AttributeError, StopIteration):
        return None
    return json.dumps(value).encode()


def texts(body: bytes) -> Iterator[str]:
    """The texts that a model reads of a body: strings of its inputs, but not files written as text."""
    value = json.loads(body)
    yield from strings(value.get("inputs", value) if isinstance(value, dict) else value)


def strings(value: Any) -> Iterator[str]:
    """All strings in a value of JSON, but not files written as text."""
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


def _text(line: str, place: str) -> bytes:
    return json.dumps({"inputs": line}).encode()


def _whole(line: str, place: str) -> bytes:
    try:
        json.loads(line)
    except ValueError as error:
        raise BenchError(f"{place} is not JSON: {error}") from None
    return line.strip().encode()
