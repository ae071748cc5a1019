"""Request → Item → Outcome → Reply: the values that pass between the rooms."""

from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hfserve.errors import ServeError, error_body

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked: the body as it came, header names in lower case, a deadline on `time.monotonic()`."""

    body: bytes
    headers: Mapping[str, str]
    request_id: str
    deadline: float
    query: str = ""

    @property
    def content_type(self) -> str:
        """The Content-Type as it came, "" when there was none."""
        return self.headers.get("content-type", "")

    @property
    def accept(self) -> str:
        """The Accept as it came; a streaming call of SageMaker's sends it under its own name (contract row 21)."""
        return self.headers.get("x-amzn-sagemaker-accept") or self.headers.get("accept", "")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to run: items share a forward pass only when their `batch_key` is equal.

    `cost` is what the item adds to a batch, in tokens for text and 1 elsewhere; `cut` names the part of the request
    that was truncated for the model, "" when none was.
    """

    data: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    batch_key: Hashable = None
    cost: int = 1
    cut: str = ""


Outcome = Any
"""The result of one item, or the exception that stands for it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a lane ran, for the metrics: the seconds that each item waited, and what running took."""

    items: int
    tokens: int
    waits: Sequence[float]
    seconds: float


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
