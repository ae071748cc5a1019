"""One JSON line per event, or a line for people."""

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is being answered; it stands in every line logged meanwhile."""

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """`{"time", "level", "source", "event", …extra}`, one line whatever the message holds."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line of JSON."""
        line: dict[str, Any] = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "source": self.source,
            "event": record.getMessage(),
        }
        if rid := request_id.get():
            line["request_id"] = rid
        line.update((k, v) for k, v in vars(record).items() if k not in _PLAIN)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return as_json(line)


def as_json(event: dict[str, Any]) -> str:
    """An event as one line of JSON that can be written, whatever it holds."""
    try:
        text = json.dumps(event, default=str, ensure_ascii=False, allow_nan=False)
    except ValueError:  # a number that JSON does not know
        text = json.dumps({name: str(value) for name, value in event.items()}, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def stamp(when: float | None = None) -> str:
    """UTC time with milliseconds, ISO 8601."""
    when = time.time() if when is None else when
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f".{int(when % 1 * 1000):03d}Z"


def fold(line: str, source: str, level: str = "info") -> dict[str, Any]:
    """A line that some process printed, as an event: kept when it is one already, wrapped otherwise."""
    if line.startswith("{") and line.endswith("}"):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict) and "event" in event:
            return {"time": stamp(), "level": level, "source": source, **event}
    return {"time": stamp(), "level": level, "source": source, "event": line}


def for_people(event: dict[str, Any]) -> str:
    """An event as a line for a terminal."""
    rest = {k: v for k, v in event.items() if k not in {"time", "level", "source", "event", "traceback", "try"}}
    level = str(event.get("level", "info"))
    mark = "" if level in {"info", "debug"} else f"{level.upper()}: "
    extra = "  " + " ".join(f"{k}={v}" for k, v in rest.items()) if rest else ""
    trace = "\n" + str(event["traceback"]) if event.get("traceback") else ""
    trace += f"\n\n    {event['try']}\n" if event.get("try") else ""
    when, source = str(event.get("time", ""))[11:19], str(event.get("source", ""))
    line = f"{when} {source:<10} {mark}{event['event']}{extra}{trace}"
    return line.encode(errors="backslashreplace").decode()


def configure(source: str, level: int) -> None:
    """Send this process's log to standard output as JSON lines; warnings of Python's too."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(source))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
