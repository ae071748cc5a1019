"""CSV: a line that names the columns, then a record a line."""

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

import numpy as np

from hfserve.codecs.media import Media, text
from hfserve.codecs.records import Records, gather
from hfserve.errors import BadRequest, NotAcceptable

KNOWN = frozenset({"inputs", "question", "context"})
SCALARS = (str, int, float, type(None), np.generic)


def decode(body: bytes, media: Media) -> Records:
    """A dict of strings for each line after the first, by the names of the columns."""
    rows = csv.reader(StringIO(text(body, media.charset), newline=""), strict=True)
    try:
        names = _names(next(filter(None, rows), []))
        return gather(_record(names, row, rows.line_num) for row in rows if row)
    except csv.Error as error:
        raise BadRequest(f"line {rows.line_num} is not valid CSV: {error}") from None


def encode(result: Any) -> bytes:
    """Dicts under a line that names their keys; lists have no names and get no such line."""
    table = _table(result)
    if table is None:
        raise NotAcceptable("this answer is not a flat table; ask for application/json")
    written = StringIO(newline="")
    csv.writer(written).writerows(table)
    return written.getvalue().encode(errors="replace")


def fits(result: Any) -> bool:
    """Whether the answer is a flat dict, or a list of flat dicts with the same keys, of flat lists or of scalars."""
    return _table(result) is not None


def _names(header: Sequence[str]) -> list[str]:
    names = [name.strip() for name in header]
    names = [name.lower() if name.lower() in KNOWN else name for name in names]
    if len(names) == 1 and names != ["inputs"]:
        raise BadRequest(
            f"the first line of CSV names its columns; a single column is called inputs, not {names[0][:50]!r}"
        )
    if len(set(names)) < len(names) or not all(names) or any(map(_is_number, names)):
        raise BadRequest("the first line of CSV must name its columns, each once, such as inputs or question,context")
    return names


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _record(names: Sequence[str], row: Sequence[str], line: int) -> Any:
    if len(row) == len(names):
        return dict(zip(names, row, strict=True))
    fault = f"line {line} has {len(row)} fields where the first line names {len(names)}"
    return BadRequest(f'{fault}; put "quotes" around a text that holds a comma' if len(row) > len(names) else fault)


def _table(result: Any) -> list[list[Any]] | None:
    rows = result.tolist() if isinstance(result, np.ndarray) else [result] if isinstance(result, dict) else result
    if not isinstance(rows, list | tuple) or not rows:
        return None
    if isinstance(rows[0], dict):
        names = list(rows[0])
        if not names or any(not isinstance(row, dict) or row.keys() != rows[0].keys() for row in rows):
            return None
        table = [names, *([row[name] for name in names] for row in rows)]
    else:
        table = [list(row) if isinstance(row, list | tuple) else [row] for row in rows]
        if {len(row) for row in table} != {max(1, len(table[0]))}:
            return None
    kinds = {type(value) for row in table for value in row}
    return table if all(issubclass(kind, SCALARS) for kind in kinds) else None
