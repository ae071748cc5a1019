"""What the requests of all tasks have in common: inputs, parameters, and the words for what is wrong with them."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hfserve.errors import InvalidInput
from hfserve.settings import Options
from hfserve.tasks.schemas.base import AtMost

P = TypeVar("P", bound=BaseModel)


def split(data: Any) -> tuple[Any, dict[str, Any]]:
    """Inputs and parameters of a request; a body without `inputs` is itself the input (contract row 48)."""
    if not isinstance(data, dict) or "inputs" not in data:
        return data, {}
    parameters = data.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidInput(f"parameters is an object of names and values, not {kind(parameters)}")
    return data["inputs"], parameters


def parse(model: type[P], parameters: Mapping[str, Any], options: Options | None = None) -> P:
    """Typed parameters; raises InvalidInput naming each wrong field and what it takes."""
    try:
        chosen = model.model_validate(parameters)
    except ValidationError as error:
        told = {_complaint(model, detail) for detail in error.errors()}
        raise InvalidInput("; ".join(sorted(told))) from None
    if options:
        _check_bounds(chosen, options)
    return chosen


def _complaint(model: type[BaseModel], detail: Any) -> str:
    """What is wrong with a field, and what it takes."""
    name, *inside = map(str, detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = "" if inside else f"; there are {', '.join(model.model_fields) or 'none'}"
        return f"parameters.{'.'.join([name, *inside])}: not known{known}"
    if detail["type"] == "missing" and not inside:
        return f"parameters.{name} is missing: {model.model_fields[name].description}"
    return f"parameters.{name}: {detail['msg']}"


def _check_bounds(chosen: BaseModel, options: Options) -> None:
    """Raise InvalidInput for a number or a list beyond what the settings allow."""
    for name, field in type(chosen).model_fields.items():
        value = getattr(chosen, name)
        for bound in field.metadata:
            if isinstance(bound, AtMost) and value is not None:
                most = getattr(options, bound.setting)
                if (value if isinstance(value, int | float) else len(value)) > most:
                    raise InvalidInput(
                        f"parameters.{name}: this server takes {most} at most (HFSERVE_{bound.setting.upper()})"
                    )


def cuts(truncation: bool | str | None) -> bool:
    """Whether a request lets its text be cut."""
    return truncation not in {False, "do_not_truncate"}


def too_long(place: str, limit: int) -> InvalidInput:
    """What to tell a client who wants nothing cut."""
    return InvalidInput(
        f'{place} is longer than the {limit} tokens that the model takes; shorten it, or leave out "truncation": false'
    )


def places(inputs: Any, texts: Sequence[Any]) -> list[str]:
    """How to name each input in an error."""
    return [f"inputs[{i}]" for i in range(len(texts))] if texts is inputs else ["inputs"]


def string(value: Any, place: str) -> str:
    """The value, when it is a string; raises InvalidInput naming its place when not."""
    if not isinstance(value, str):
        raise InvalidInput(f"{place} is {kind(value)}; it has to be a string")
    return value


def kind(value: Any) -> str:
    """A value's type in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
