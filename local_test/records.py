"""Records of batch transform: split out of an object, filtered, and joined with what was made of them."""

import csv
import io
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

Select = Callable[[Any], Any]

RECORD_IO = 0xCED7230A
"""What every part of a RecordIO file begins with."""

_PART = r"""'[^']*'|"[^"]*"|-?\d*:-?\d*|-?\d+|\*"""
_STEP = re.compile(rf"\.(?P<name>\w[\w-]*|\*)|\.?\[\s*(?P<parts>(?:{_PART})(?:\s*,\s*(?:{_PART}))*)\s*\]")


class BadRecords(ValueError):
    """An object that cannot be split, filtered or joined as the job asks."""


class Record(NamedTuple):
    """One record: as it is stored, with its line end or padding, and bare; what it was before it was filtered."""

    stored: bytes
    bare: bytes
    unfiltered: bytes | None = None


def split(source: BinaryIO, split_type: str) -> Iterator[Record]:
    """The records of an object; with SplitType None all of it is one."""
    return _SPLITTERS[split_type](source)


def mini_batches(records: Iterable[Record], *, limit: int, many: bool) -> Iterator[list[Record]]:
    """As many records in a row as fit into a payload of `limit` bytes (0: any number), or each alone."""
    batch: list[Record] = []
    size = 0
    for record in records:
        length = len(record.stored if many else record.bare)
        if limit and length > limit:
            raise BadRecords("Too much data for max payload size")
        if batch and (not many or (limit and size + length > limit)):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


def payload(batch: list[Record], *, many: bool) -> bytes:
    """What one request carries: MultiRecord keeps line ends and padding, SingleRecord drops them."""
    return b"".join(record.stored for record in batch) if many else batch[0].bare


def json_path(path: str) -> Select:
    """What a filter selects: `$`, `.name`, `['a','b']`, `[0,-1]`, `[1:]`, `[0,5:]` and `*`, one after the other."""
    steps: list[Select] = []
    place = 1
    while place < len(path):
        if not (step := _STEP.match(path, place)):
            break
        steps.append(_step(step))
        place = step.end()
    if not path.startswith("$") or place < len(path):
        raise BadRecords(f"{path} is no JSONPath that is supported")

    def select(value: Any) -> Any:
        try:
            for step in steps:
                value = step(value)
        except (LookupError, TypeError) as error:
            raise BadRecords(f"{path} finds nothing in a record") from error
        return value

    return select


class Processing:
    """DataProcessing: what of a record is sent, and what is stored with its answer."""

    def __init__(self, asked: dict[str, Any], content_type: str | None) -> None:
        self._filters_input = asked.get("InputFilter", "$") != "$"
        self._joins = asked.get("JoinSource", "None") == "Input"
        self._changes_output = self._joins or asked.get("OutputFilter", "$") != "$"
        self._input = json_path(asked.get("InputFilter", "$"))
        self._output = json_path(asked.get("OutputFilter", "$"))
        self._csv = _is_csv(content_type)

    def before(self, record: Record) -> Record:
        """The record that is sent in place of this one."""
        if not self._filters_input:
            return record
        values = [self._input(value) for value in _read(record.bare, self._csv)]
        bare = _written(values, self._csv)
        return Record(bare + b"\n", bare, unfiltered=record.stored)

    def after(self, batch: list[Record], answer: bytes, content_type: str | None) -> bytes:
        """What is stored for the records of one request, a line each."""
        if not self._changes_output:
            return answer
        is_csv = _is_csv(content_type)
        values = _read(answer, is_csv)
        if self._joins:
            if is_csv != self._csv:
                raise BadRecords("Input and output are joined only when both are CSV or both are JSON")
            sent = _read(b"".join(record.unfiltered or record.stored for record in batch), self._csv)
            if len(sent) != len(values):
                raise BadRecords(f"{len(sent)} records of input cannot be joined with {len(values)} of output")
            values = [_joined(before, after, is_csv) for before, after in zip(sent, values, strict=True)]
        return _written([self._output(value) for value in values], is_csv)


def _whole(source: BinaryIO) -> Iterator[Record]:
    body = source.read()
    yield Record(body, body)


def _lines(source: BinaryIO) -> Iterator[Record]:
    for line in source:
        yield Record(line, line.removesuffix(b"\n").removesuffix(b"\r"))


def _record_io(source: BinaryIO) -> Iterator[Record]:
    stored = bare = b""
    while head := source.read(8):
        magic, word = struct.unpack("<II", _full(head, 8))
        if magic != RECORD_IO:
            raise BadRecords("Fail to read records: this is no RecordIO")
        length, part = word & 0x1FFFFFFF, word >> 29
        data = _full(source.read(length), length)
        padding = source.read(-length % 4)
        stored += head + data + padding
        # A record that holds the magic number is stored in parts, of which 2 and 3 lost it.
        bare += (struct.pack("<I", RECORD_IO) if part in (2, 3) else b"") + data
        if part in (0, 3):
            yield Record(stored, bare)
            stored = bare = b""


def _tf_record(source: BinaryIO) -> Iterator[Record]:
    while head := source.read(12):
        (length,) = struct.unpack("<Q", _full(head, 12)[:8])
        rest = _full(source.read(length + 4), length + 4)
        yield Record(head + rest, rest[:length])


_SPLITTERS: dict[str, Callable[[BinaryIO], Iterator[Record]]] = {
    "None": _whole,
    "Line": _lines,
    "RecordIO": _record_io,
    "TFRecord": _tf_record,
}


def _full(data: bytes, length: int) -> bytes:
    if len(data) < length:
        raise BadRecords("Fail to read records: the last one is cut short")
    return data


def _step(match: re.Match[str]) -> Select:
    if name := match["name"]:
        return _values if name == "*" else lambda value: value[name]
    parts = re.findall(_PART, match["parts"])
    if parts == ["*"]:
        return _values
    if len(parts) == 1 and ":" not in parts[0]:
        return lambda value: _child(value, parts[0])
    if all(part[0] in "'\"" for part in parts):
        return lambda value: {part[1:-1]: _child(value, part) for part in parts}
    return lambda value: [found for part in parts for found in _some(value, part)]


def _values(value: Any) -> list[Any]:
    return list(value.values() if isinstance(value, dict) else value)


def _child(value: Any, part: str) -> Any:
    return value[part[1:-1]] if part[0] in "'\"" else value[int(part)]


def _some(value: Any, part: str) -> list[Any]:
    if ":" not in part:
        return [_child(value, part)]
    start, end = (int(number) if number else None for number in part.split(":"))
    return list(value[start:end])


def _is_csv(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() == "text/csv"


def _read(body: bytes, is_csv: bool) -> list[Any]:
    text = body.decode()
    if is_csv:
        return list(csv.reader(io.StringIO(text, newline="")))
    found = []
    rest = text.strip()
    try:
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            found.append(value)
            rest = rest[end:].lstrip()
    except ValueError as error:
        raise BadRecords(f"A record is no JSON: {error}") from error
    return found


def _written(values: list[Any], is_csv: bool) -> bytes:
    if not is_csv:
        return "\n".join(json.dumps(value) for value in values).encode()
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows(value if isinstance(value, list) else [value] for value in values)
    return text.getvalue().removesuffix("\n").encode()


def _joined(before: Any, after: Any, is_csv: bool) -> Any:
    if is_csv:
        return before + after
    if isinstance(before, dict):
        return before | {"SageMakerOutput": after}
    return {"SageMakerInput": before, "SageMakerOutput": after}
