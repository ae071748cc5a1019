"""Bodies of lines: read, run and answered record by record, so that a million of them take little memory.

Batch transform sends such bodies (contract rows 32 and 33). Each record is answered by a line, in order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hfserve import codecs
from hfserve.codecs import parameters, table
from hfserve.errors import (
    BadRequest,
    DeadlineExceeded,
    ModelError,
    NotAcceptable,
    NotReady,
    Overloaded,
    ServeError,
    error_body,
)
from hfserve.messages import JSON, Item, Job, Outcome, Part, Reply, Request, Stream
from hfserve.settings import MIB, Settings
from hfserve.tasks import kinds

RECORDS, BYTES = 64, 256 << 10
"""Most of a part, which is read, run and answered together; it has one record at least."""
AHEAD = 4
"""Parts that run, or whose answers wait for those before them."""
HELD = MIB
"""Bytes of an answer that are held back, so that a failure before them still has an honest status."""

OF_ALL = (DeadlineExceeded, NotAcceptable, NotReady, Overloaded)
"""What fails the whole body, whatever its records are."""

COLUMNS = {kinds.CONTEXT: ("question", "context"), kinds.TEXT: ("text", "text_pair")}
"""What two columns of CSV are that nothing names, by what the task takes."""

Read = Callable[[Any], Sequence[Item]]
"""The items of a record; raises ServeError."""
Tell = Callable[[Any, Sequence[Outcome]], Any]
"""The answer to a record, from the outcomes of its items; raises ServeError."""


@dataclass(frozen=True, slots=True)
class Line:
    """A record with its items; the error that it is instead, without any."""

    number: int
    record: Any
    items: Sequence[Item] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a body, each to be answered by a line; whether a placeholder may be, but for errors `of_all`."""

    records: Iterator[codecs.Sized]
    content_type: str
    request_id: str
    placeholders: bool
    of_all: tuple[type[ServeError], ...]
    takes: str
    beside: Mapping[str, Any]

    @classmethod
    def of(
        cls, request: Request, settings: Settings, *, takes: str = "", of_all: Sequence[type[ServeError]] = ()
    ) -> "Lines | None":
        """The lines of a request; None when it holds one value, or asks for one answer."""
        content_type = _answered_as(request, settings)
        records = codecs.records(request.body, request.content_type, tables=settings.batch) if content_type else None
        if not content_type or records is None:
            return None
        return cls(
            records, content_type, request.request_id, settings.bad_records == "placeholder", (*OF_ALL, *of_all), takes,
            parameters.beside(request.query, request.headers),
        )  # fmt: skip

    def job(self, read: Read, tell: Tell, headers: Mapping[str, str] | None = None) -> Job:
        """The request taken apart, bit by bit as it is run; what is read until the answer begins may add headers."""
        stream = Stream(self.content_type, parts=self._parts(read, tell), ahead=AHEAD, held=HELD)
        return Job((), _never, stream, {} if headers is None else headers)

    def _parts(self, read: Read, tell: Tell) -> Iterator[Part]:
        lines: list[Line] = []
        number = size = 0
        for number, (record, length) in enumerate(self.records, 1):
            lines.append(self._line(number, record, read))
            size += length
            if len(lines) == RECORDS or size >= BYTES:
                yield self._part(lines, tell)
                lines, size = [], 0
        if lines:
            yield self._part(lines, tell)
        if not number:
            raise BadRequest("the body holds no records")

    def _line(self, number: int, record: Any, read: Read) -> Line:
        try:
            readable = self._readable(record)
            return Line(number, readable, read(readable))
        except ServeError as error:
            return Line(number, self._spared(number, error))

    def _readable(self, record: Any) -> Any:
        if isinstance(record, ServeError):
            raise record
        return parameters.under(self.beside, self._named(record) if isinstance(record, tuple) else record)

    def _named(self, row: tuple[str, ...]) -> dict[str, Any]:
        """A line of a table whose columns nothing names."""
        if len(row) == 1 or not self.takes:
            return {"inputs": row[0] if len(row) == 1 else row}
        columns = COLUMNS.get(self.takes, ())
        if len(columns) != len(row):
            raise BadRequest(f"{len(row)} columns without names mean nothing here; send JSON Lines instead")
        return {"inputs": dict(zip(columns, row, strict=True))}

    def _part(self, lines: Sequence[Line], tell: Tell) -> Part:
        return Part([item for line in lines for item in line.items], partial(self._answers, lines, tell))

    def _answers(self, lines: Sequence[Line], tell: Tell, outcomes: Sequence[Outcome]) -> bytes:
        left = iter(outcomes)
        return b"".join(self._answer(line, tell, [next(left) for _ in line.items]) for line in lines)

    def _answer(self, line: Line, tell: Tell, outcomes: Sequence[Outcome]) -> bytes:
        if isinstance(line.record, ServeError):
            return self._placeholder(line.record)
        try:
            return codecs.line(tell(line.record, outcomes), self.content_type)
        except ServeError as error:
            return self._placeholder(self._spared(line.number, error))

    def _spared(self, number: int, error: ServeError) -> ServeError:
        """The error when a placeholder may stand for it; else it is raised, and fails the body."""
        if self.placeholders and not isinstance(error, self.of_all):
            return error
        raise type(error)(f"record {number}: {error}") from error

    def _placeholder(self, error: ServeError) -> bytes:
        told = error_body(error, self.request_id)
        return codecs.line(told.decode(), self.content_type) if self.content_type in table.TABLES else told + b"\n"


def answer_of(reply: Reply) -> Any:
    """What a reply to one record says, which is to be a part of another."""
    if reply.chunks is not None:
        raise ModelError("a record cannot be answered by a stream; send it alone")
    if reply.status >= 400:
        raise ModelError(f"the hooks answered status {reply.status}: {reply.body[:200]!r}")
    if codecs.essence(reply.content_type) == JSON:
        return codecs.decode(reply.body, reply.content_type)
    return reply.body.decode(errors="replace")


def _answered_as(request: Request, settings: Settings) -> str:
    """Lines of JSON or, of batch transform, of CSV; "" when Accept asks for something else.

    A transform job says with Accept what each line shall be.
    """
    wanted = codecs.preferred(request.accept)
    if not wanted and settings.default_accept != JSON:
        wanted = codecs.essence(settings.default_accept)
    if settings.batch and wanted in table.TABLES:
        return wanted
    if not wanted or (settings.batch and wanted == JSON):
        wanted = codecs.essence(request.content_type)
        wanted = wanted if wanted in table.LINES else table.LINES[0]
    return wanted if wanted in table.LINES else ""


def _never(outcomes: Sequence[Outcome]) -> Reply:
    raise AssertionError("lines have no reply at their end")
