"""CSV: a line that names the columns, then a record a line."""

import csv
from collections.abc import Iterator, Sequence
from io import BytesIO, StringIO, TextIOWrapper
from typing import Any

import numpy as np

from hfserve.codecs.media import CHARSETS, UTF8_NAMES, Media, text
from hfserve.codecs.records import Records, Sized, gather
from hfserve.errors import BadRequest, NotAcceptable, UnsupportedMediaType

KNOWN = frozenset({"inputs", "question", "context"})
PAIR = frozenset({"text", "text_pair"})
SCALARS = (str, int, float, type(None), np.generic)


def decode(body: bytes, media: Media) -> Records:
    """A dict of strings for each line after the first, by the names of the columns."""
    rows = csv.reader(StringIO(text(body, media.charset), newline=""), strict=True)
    try:
        names = _names(next(filter(None, rows), []))
        return gather(_record(names, row, rows.line_num) for row in rows if row)
    except csv.Error as error:
        raise BadRequest(f"line {rows.line_num} is not valid CSV: {error}") from None


def each(body: bytes, media: Media) -> Iterator[Sized]:
    """A record for each line, read when its turn comes; a tuple where nothing names the columns.

    Batch transform cuts a file into bodies, of which the first alone has the line that names the columns.
    """
    rows = csv.reader(_characters(body, media.charset), strict=True)
    names: Sequence[str] = []
    first = True
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise BadRequest(f"the body is not valid {media.charset}: {error.reason}") from None
        except csv.Error as error:
            yield BadRequest(f"line {rows.line_num} is not valid CSV: {error}"), 0
            continue
        if not row:
            continue
        if first and _names_columns(row):
            names = _names(row)
        else:
            yield (_request(_record(names, row, rows.line_num)) if names else tuple(row)), sum(map(len, row))
        first = False


def row(answer: Any) -> bytes:
    """One line without names: of a flat dict or list, of the only one of a list, or of a scalar."""
    if isinstance(answer, list) and len(answer) == 1 and not isinstance(answer[0], SCALARS):
        answer = answer[0]
    table = _table([answer])
    if table is None:
        raise NotAcceptable("this answer is not a line of CSV; ask for application/jsonlines")
    written = StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerow(table[-1])
    return written.getvalue().encode(errors="replace")


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


def _characters(body: bytes, charset: str) -> TextIOWrapper:
    if charset not in CHARSETS:
        raise UnsupportedMediaType(f"charset {charset} is not read here; send utf-8")
    return TextIOWrapper(BytesIO(body), "utf-8-sig" if charset in UTF8_NAMES else charset, newline="")


def _names_columns(row: Sequence[str]) -> bool:
    """Whether a first line is one of names that are known here."""
    return not {name.strip().lower() for name in row}.isdisjoint(KNOWN | PAIR)


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


def _request(record: Any) -> Any:
    return {"inputs": record} if isinstance(record, dict) and set(record) != {"inputs"} else record


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
