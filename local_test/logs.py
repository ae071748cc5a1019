"""CloudWatch Logs: what the containers have said, a file for each log group.

A line of the file is `TIME STREAM MESSAGE`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from local_test.errors import AwsError
from local_test.state import State

Body = dict[str, Any]
_MOST = 10_000


@dataclass(frozen=True)
class Line:
    """Something that a container said."""

    number: int
    time: int
    stream: str
    message: str

    @classmethod
    def parse(cls, number: int, text: str) -> "Line":
        """Of a line of the file."""
        when, stream, message = text.rstrip("\n").split(" ", 2)
        return cls(number, int(datetime.fromisoformat(when).timestamp() * 1000), stream, message)

    def event(self) -> Body:
        """As FilterLogEvents tells it."""
        return {
            "logStreamName": self.stream, "timestamp": self.time, "message": self.message, "ingestionTime": self.time,
            "eventId": str(self.number),
        }  # fmt: skip


def handle(target: str, body: Body, state: State) -> Body:
    """Answer one operation of the API."""
    operation = _OPERATIONS.get(target)
    if operation is None:
        raise AwsError("UnknownOperationException", f"Logs.{target} is not emulated locally")
    return operation(state, body)


def read(path: Path) -> Iterator[Line]:
    """The lines of a log group."""
    with path.open(errors="replace") as file:
        for number, text in enumerate(file):
            if text.endswith("\n"):
                yield Line.parse(number, text)


def _filter(state: State, body: Body) -> Body:
    names, prefix = body.get("logStreamNames"), body.get("logStreamNamePrefix", "")
    pattern = body.get("filterPattern", "").strip('"')
    found = [
        line
        for line in _lines(state, body)
        if line.stream.startswith(prefix) and (not names or line.stream in names) and pattern in line.message
    ]
    start, most = int(body.get("nextToken") or 0), body.get("limit", _MOST)
    more = {"nextToken": str(start + most)} if len(found) > start + most else {}
    return {"events": [line.event() for line in found[start : start + most]], "searchedLogStreams": [], **more}


def _get(state: State, body: Body) -> Body:
    lines = [line for line in _lines(state, body) if line.stream == body["logStreamName"]]
    most = body.get("limit", _MOST)
    token = body.get("nextToken")
    start = int(token[2:]) if token else 0 if body.get("startFromHead") else max(len(lines) - most, 0)
    shown = lines[start : start + most]
    return {
        "events": [{key: line.event()[key] for key in ("timestamp", "message", "ingestionTime")} for line in shown],
        "nextForwardToken": f"f/{start + len(shown)}",
        "nextBackwardToken": f"b/{max(start - most, 0)}",
    }


def _streams(state: State, body: Body) -> Body:
    first: dict[str, Line] = {}
    last: dict[str, Line] = {}
    for line in _lines(state, body):
        first.setdefault(line.stream, line)
        last[line.stream] = line
    prefix = body.get("logStreamNamePrefix", "")
    return {
        "logStreams": [
            {
                "logStreamName": stream, "creationTime": first[stream].time, "firstEventTimestamp": first[stream].time,
                "lastEventTimestamp": last[stream].time, "lastIngestionTime": last[stream].time,
            }
            for stream in sorted(first)
            if stream.startswith(prefix)
        ]
    }  # fmt: skip


def _groups(state: State, body: Body) -> Body:
    found = sorted(f"/{path.relative_to(state.logs).with_suffix('')}" for path in state.logs.rglob("*.log"))
    prefix = body.get("logGroupNamePrefix", "")
    return {"logGroups": [{"logGroupName": name} for name in found if name.startswith(prefix)]}


def _lines(state: State, body: Body) -> Iterator[Line]:
    path = state.log_path(body.get("logGroupName") or body["logGroupIdentifier"].rpartition("log-group:")[2])
    if not path.is_file() or path.parent.name not in ("Endpoints", "TransformJobs"):
        raise AwsError("ResourceNotFoundException", "The specified log group does not exist.")
    start, end = body.get("startTime", 0), body.get("endTime", float("inf"))
    return (line for line in read(path) if start <= line.time < end)


_OPERATIONS: dict[str, Callable[[State, Body], Body]] = {
    "FilterLogEvents": _filter,
    "GetLogEvents": _get,
    "DescribeLogStreams": _streams,
    "DescribeLogGroups": _groups,
}
