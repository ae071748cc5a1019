"""What the requests of all tasks have in common: inputs, parameters, and the words for what is wrong with them."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from hfserve.errors import InvalidInput


def split(data: Any) -> tuple[Any, dict[str, Any]]:
    """Inputs and parameters of a request; a body without `inputs` is itself the input (contract row 48)."""
    if not isinstance(data, dict) or "inputs" not in data:
        return data, {}
    parameters = data.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidInput(f"parameters is an object of names and values, not {kind(parameters)}")
    return data["inputs"], parameters


def parse(model: type[BaseModel], parameters: dict[str, Any]) -> Any:
    """Typed parameters; raises InvalidInput naming each wrong field and what it takes."""
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        told = {
            f"parameters.{detail['loc'][0]}: not known; there are {known}"
            if detail["type"] == "extra_forbidden"
            else f"parameters.{detail['loc'][0]}: {detail['msg']}"
            for detail in error.errors()
        }
        raise InvalidInput("; ".join(sorted(told))) from None


def places(inputs: Any, texts: Sequence[Any]) -> list[str]:
    """How to name each input in an error."""
    return [f"inputs[{i}]" for i in range(len(texts))] if texts is inputs else ["inputs"]


def kind(value: Any) -> str:
    """A value's type in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
