"""Objects in requests: their fields by name, and the words for what is wrong with them."""

from collections.abc import Mapping
from typing import Any

from hfserve.errors import InvalidInput
from hfserve.tasks.forms import kind, string


def named(value: Any, place: str, names: tuple[str, ...], takes: str) -> list[Any]:
    """The fields of an object in the order of their names, all of which it has, and no other."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{place} is {kind(value)}; {takes}")
    if unknown := sorted(map(str, value.keys() - set(names))):
        raise InvalidInput(f"{place}.{unknown[0]}: not known; there are {', '.join(names)}")
    if missing := [name for name in names if name not in value]:
        raise InvalidInput(f"{place}.{missing[0]} is missing; {takes}")
    return [value[name] for name in names]


def one_of(value: Any, names: tuple[str, ...]) -> str:
    """The name that an object uses of several for the same field, the first where it uses none."""
    return next((name for name in names if isinstance(value, Mapping) and name in value), names[0])


def strings(value: Any, place: str) -> list[str]:
    """A list of strings, at least one."""
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{place} has to be a list of strings, at least one")
    return [string(each, f"{place}[{i}]") for i, each in enumerate(value)]
