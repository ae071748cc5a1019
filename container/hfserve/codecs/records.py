"""Records: the decoded lines of a body, each due its own answer."""

from collections.abc import Iterable
from typing import Any

from hfserve.errors import BadRequest

Sized = tuple[Any, int]
"""A record, or the BadRequest that says why it cannot be read, and its bytes."""

MAX_UNREADABLE = 1000
"""Unreadable records that are kept, as exceptions far larger than themselves; a body with more is refused whole."""


class Records(list[Any]):
    """Decoded JSON Lines or CSV records: one answer per record is due, in order.

    A record that cannot be read is the BadRequest that says why, in its place: it can be reported alone.
    """


def gather(found: Iterable[Any]) -> Records:
    """The records, unless there are none or too many are unreadable."""
    records, unreadable = Records(), 0
    for record in found:
        unreadable += isinstance(record, BadRequest)
        if unreadable > MAX_UNREADABLE:
            raise BadRequest(f"more than {MAX_UNREADABLE} records cannot be read, the latest: {record}")
        records.append(record)
    if not records:
        raise BadRequest("the body holds no records")
    return records
