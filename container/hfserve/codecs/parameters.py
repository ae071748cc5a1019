"""Parameters outside the body, which raw pictures, sounds and texts have no room for: in the query or a header."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from hfserve.codecs.media import value
from hfserve.codecs.records import Records
from hfserve.errors import BadRequest, ServeError

HEADER = "x-hf-parameters"
MAX_NAMES = 200


def beside(query: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The parameters in a query string and in the header X-HF-Parameters; the query's win."""
    try:
        found = parse_qs(query, keep_blank_values=True, max_num_fields=MAX_NAMES)
    except ValueError as error:
        raise BadRequest(f"the query string cannot be read: {error}") from None
    named = {name: [value(each) for each in given] for name, given in found.items()}
    return _in_header(headers) | {name: given[0] if len(given) == 1 else given for name, given in named.items()}


def under(given: Mapping[str, Any], data: Any) -> Any:
    """A decoded body with these parameters beneath its own; each record of lines or a table gets them."""
    if not given or isinstance(data, ServeError):
        return data
    if isinstance(data, Records):
        return Records(under(given, record) for record in data)
    if not isinstance(data, dict):
        return {"inputs": data, "parameters": given}
    own = data.get("parameters") or {}
    if not isinstance(own, dict):
        return data
    if "inputs" in data:
        return {**data, "parameters": {**given, **own}}
    rest = {name: each for name, each in data.items() if name not in {"parameters", "options"}}
    return {"inputs": rest or None, "parameters": {**given, **own}}


def _in_header(headers: Mapping[str, str]) -> dict[str, Any]:
    """The object in the header, whose UTF-8 came as Latin-1."""
    if HEADER not in headers:
        return {}
    try:
        found = orjson.loads(headers[HEADER].encode("latin-1"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadRequest('the header X-HF-Parameters has to be a JSON object such as {"top_k": 2}')
    return found
