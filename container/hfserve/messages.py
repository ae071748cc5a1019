"""Request → Item → Outcome → Reply: the values that pass between the rooms."""

from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hfserve.errors import ServeError, error_body

JSON = "application/json"
JSON_LINES = "application/jsonlines"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked: the body as it came, header names in lower case, a deadline on `time.monotonic()`."""

    body: bytes
    headers: Mapping[str, str]
    request_id: str
    deadline: float
    query: str = ""
    path: str = "/invocations"

    @property
    def content_type(self) -> str:
        """The Content-Type as it came, "" when there was none."""
        return self.headers.get("content-type", "")

    @property
    def accept(self) -> str:
        """The Accept as it came; a streaming call of SageMaker's sends it under its own name (contract row 21)."""
        return self.headers.get("x-amzn-sagemaker-accept") or self.headers.get("accept", "")


class Feed:
    """The way back from an item while it runs: what is made of it, piece by piece, and whether anyone still waits."""

    __slots__ = ("gone", "tell")

    def __init__(self) -> None:
        self.tell: Callable[[Any], None] | None = None
        self.gone = False


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to run: items share a forward pass only when their `batch_key` is equal.

    `cost` is what the item adds to a batch, in tokens for text and 1 elsewhere; `cut` names the part of the request
    that was truncated for the model, "" when none was. One that is `stepwise` is run by the model's steps.
    """

    data: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    batch_key: Hashable = None
    cost: int = 1
    cut: str = ""
    stepwise: bool = False
    feed: Feed = field(default_factory=Feed, compare=False, repr=False)


Outcome = Any
"""The result of one item, or the exception that stands for it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some items of a request, and how their outcomes are told."""

    items: Sequence[Item]
    answered: Callable[[Sequence[Outcome]], bytes]


@dataclass(frozen=True, slots=True)
class Stream:
    """How a request is answered while it runs: `told` frames each piece of an item, by the item's number; or each
    of the `parts`, made as they are run, no more than so many `ahead`, is told when those before it are out.

    What has `held` bytes held back at its beginning is told by a plain reply when that is all of it, and is cut off
    when it fails later, so that nobody takes it for whole.
    """

    content_type: str
    told: Callable[[int, Any], bytes] | None = None
    parts: Iterator[Part] | None = None
    ahead: int = 64
    end: Callable[[], bytes] = bytes
    held: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A request taken apart: its items, and how their outcomes become a reply, or a stream of them."""

    items: Sequence[Item]
    finish: Callable[[Sequence[Outcome]], "Reply"]
    stream: Stream | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """What a stream's head says."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a lane ran, for the metrics: the seconds that each item waited, and what running took."""

    items: int
    tokens: int
    waits: Sequence[float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """What happened in a step of items made side by side, for the metrics; `left` of the `running` go on."""

    running: int
    left: int
    tokens: int
    used: int
    blocks: int
    seconds: float
    cancelled: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client is answered: a body, or the chunks of a stream."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: AsyncIterator[bytes] | None = None

    @classmethod
    def of_error(cls, error: ServeError, request_id: str) -> "Reply":
        """The one shape of every error."""
        return cls(error.status, error_body(error, request_id), JSON, dict(error.headers))
