"""`hfserve schema`: what a task takes and gives, as OpenAPI or as docs/tasks.md, without loading a model."""

import json
from collections.abc import Mapping
from typing import Any

from hfserve import openapi
from hfserve.settings import Options
from hfserve.tasks import table
from hfserve.tasks.base import Task

LONGEST = 60
"""Characters of a string in an example, before it is cut: pictures and sounds are long."""

HEAD = """\
# Tasks

All that is served, written by `hfserve schema --markdown` from the table that the server itself uses; the same as
OpenAPI: `hfserve schema --task TASK`, or `/openapi.json` of a running server.

A request is `{"inputs": …, "parameters": {…}}` in JSON, or the bare inputs; a list of inputs gets a list of answers,
in order. A file may be sent as it is (`Content-Type: image/png`), with its parameters in the query string or as JSON in
the header `X-HF-Parameters`, or as `multipart/form-data`. What a client does not say, the model's own files do. Answers
come in the form that `Accept` asks for; 406 names the forms there are. An unknown or ill-typed parameter is answered
422, in words that name it. The header `X-HFServe-Truncated` names inputs that were too long for the model and were cut.
"""


def print_task(name: str | None, *, markdown: bool) -> int:
    """Print one task as OpenAPI, or all of them as docs/tasks.md."""
    if markdown:
        print(markdown_of(table.TASKS.values()), end="")
        return 0
    if name is None:
        print("\n".join(sorted(table.TASKS)))
        return 0
    print(json.dumps(openapi.document(table.find(name), Options()), indent=2, ensure_ascii=False))
    return 0


def markdown_of(tasks: Any) -> str:
    """docs/tasks.md."""
    rows = sorted(tasks, key=lambda task: task.name)
    index = ["| task | takes | gives | runs |", "|---|---|---|---|"]
    index += [f"| [{task.name}](#{task.name}) | {task.takes} | {task.gives} | {_runs(task)} |" for task in rows]
    return "\n".join([HEAD, *index, "", *(line for task in rows for line in _section(task))])


def _section(task: Task) -> list[str]:
    document = openapi.document(task, Options())
    schemas = document["components"]["schemas"]
    invocations = document["paths"]["/invocations"]["post"]
    request = json.dumps(_shortened(task.example), ensure_ascii=False)
    lines = [f"## {task.name}", ""]
    if task.aliases:
        lines += [f"Also known as {', '.join(f'`{alias}`' for alias in task.aliases)}.", ""]
    lines += ["```json", request, "```", ""]
    lines += [f"- Inputs: {_shape(schemas['Input'], schemas)}", f"- Answer: {_shape(schemas['Answer'], schemas)}"]
    lines += [f"- Read as {_kinds(invocations['requestBody'])}; answered as {_kinds(invocations['responses']['200'])}"]
    return [*lines, "", *_parameters(schemas["Parameters"], schemas)]


def _parameters(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    properties = schema.get("properties", {})
    if not properties:
        return ["It takes no parameters.", ""]
    needed = schema.get("required", [])
    rows = [
        f"| `{name}` | {_cell(_shape(about, schemas))} | {'needed' if name in needed else _default(about)} "
        f"| {_cell(about.get('description', ''))} |"
        for name, about in properties.items()
    ]
    return ["| parameter | type | default | what it does |", "|---|---|---|---|", *rows, ""]


def _shape(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """A schema on one line, as a person would write the value."""
    if name := schema.get("$ref", "").rpartition("/")[2]:
        return _shape(schemas[name], schemas)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_shape(choice, schemas) for choice in choices))
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "anything")
    if kind == "array":
        items = schema.get("prefixItems")
        inside = ", ".join(_shape(item, schemas) for item in items) if items else _items(schema, schemas)
        return f"[{inside}]"
    if kind == "object" and "properties" in schema:
        needed = schema.get("required", [])
        fields = [
            f'"{name}"{"" if name in needed else "?"}: {_shape(about, schemas)}'
            for name, about in schema["properties"].items()
        ]
        return f"{{{', '.join(fields)}}}"
    if schema.get("contentEncoding") == "base64":
        return f"{schema.get('contentMediaType', 'bytes')} in base64"
    return f"{kind}{_bounds(schema)}"


def _items(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    return f"{_shape(schema['items'], schemas)}, …" if "items" in schema else "…"


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]}" for name, sign in words.items() if name in schema]
    return f" ({', '.join(bounds)})" if bounds else ""


def _default(about: Mapping[str, Any]) -> str:
    default = about.get("default")
    return "" if default is None else f"`{json.dumps(default)}`"


def _kinds(place: Mapping[str, Any]) -> str:
    return ", ".join(place["content"])


def _runs(task: Task) -> str:
    return "batched" if task.native else "one at a time"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _shortened(value: Any) -> Any:
    """An example without the length of pictures and sounds."""
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return f"{value[:LONGEST]}…" if isinstance(value, str) and len(value) > LONGEST else value
