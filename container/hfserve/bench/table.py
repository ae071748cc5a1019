"""The table of a measurement: a line for each number of clients, the last one alive while it is measured."""

import re
from collections.abc import Mapping
from typing import Any, TextIO

from hfserve.bench.load import Tally

WIDTHS = (7, 10, 9, 9, 12, 11)


class Table:
    """Writes to a stream; on a terminal a line changes until it is final."""

    def __init__(self, out: TextIO, unit: str) -> None:
        self._out = out
        self._alive = out.isatty()
        self._unit = unit

    def head(self) -> None:
        """The names of the columns."""
        names = ("clients", "requests/s", "p50 ms", "p99 ms", f"{self._unit}/s", "written/s", "errors")
        print(_line(names), file=self._out, flush=True)

    def watch(self, clients: int, tally: Tally) -> None:
        """What is known so far."""
        if self._alive:
            row = {"clients": clients, **tally.figures()}
            print(f"\r{self._cells(row)}\x1b[K", end="", file=self._out, flush=True)

    def row(self, row: Mapping[str, Any]) -> None:
        """A final line."""
        print(f"\r{self._cells(row)}\x1b[K" if self._alive else self._cells(row), file=self._out, flush=True)

    def _cells(self, row: Mapping[str, Any]) -> str:
        numbers = [row["requests_per_s"], row["p50_ms"], row["p99_ms"]]
        sizes = [row.get(f"{self._unit}_per_s"), row.get(f"written_{self._unit}_per_s")]
        return _line([row["clients"], *map(_number, numbers), *map(_number, sizes), errors(row["errors"])])


def errors(found: Mapping[str, int]) -> str:
    """For people: `503 × 12, no answer × 1`."""
    return ", ".join(f"{name.removeprefix('status ')} × {count}" for name, count in found.items()) or "none"


def sentence(body: bytes) -> str:
    """The words of an error's body on a line."""
    return re.sub(r"\s+", " ", body[:500].decode(errors="replace")).strip()


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"


def _line(cells: Any) -> str:
    *numbers, last = map(str, cells)
    return "  ".join([*(cell.rjust(width) for cell, width in zip(numbers, WIDTHS, strict=True)), last])
