"""What is served, as an OpenAPI 3.1 document: made from the task's types, with an example that was really answered."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from hfserve import __version__, errors
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.kinds import ANSWERED_AS, READ_FROM
from hfserve.tasks.schemas.base import AtMost
from hfserve.tasks.schemas.generation import Event

REF = "#/components/schemas/{model}"
UNANSWERED: Any = object()
"""In the place of an answer: there is none."""


def document(
    task: Task, options: Options, *, model: str = "", answer: Any = UNANSWERED,
    openai: Mapping[str, type[BaseModel]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The whole document; `answer` is what the loaded model said to the task's example.

    `openai` are the addresses of OpenAI's that the model has, each with what it takes.
    """
    schemas = _Schemas(options)
    request, reply = schemas.request(task), schemas.reply(task)
    return {
        "openapi": "3.1.0",
        "info": {"title": task.name, "version": __version__, "description": _description(task, model)},
        "x-hfserve": {"task": task.name, "takes": task.takes, "gives": task.gives, "model": model},
        "paths": {
            "/invocations": {"post": _invocations(task, schemas, request, reply, answer)},
            **{path: {"post": _openai(path, schemas, kind)} for path, kind in (openai or {}).items()},
            "/ping": {"get": _plain("ping", "Whether the model can answer", {200: "It can.", 503: "Not now."})},
            "/metrics": {"get": _plain("metrics", "Figures for Prometheus", {200: "Prometheus text"})},
            "/execution-parameters": {"get": _plain("capacity", "What batch transform may send", {200: "JSON"})},
        },
        "components": {"schemas": schemas.found},
    }


def custom(options: Options, *, model: str = "") -> dict[str, Any]:
    """The document of a model whose requests and answers are for the user's own functions to define."""
    task = Task("custom", "what code/inference.py reads", "what code/inference.py answers", {"inputs": "…"})
    return document(task, options, model=model)


def many(*, managed: bool, on_demand: bool) -> dict[str, Any]:
    """The document of a server of many models: loaded by address when `managed`, by being asked when `on_demand`."""
    name = {"name": "model_name", "in": "path", "required": True, "schema": MODEL_NAME}
    token = {"name": "next_page_token", "in": "query", "schema": {"type": "string"}}
    about = {"description": "What is known of the model.", "content": {JSON: {"schema": _ref("Model")}}}
    models: dict[str, Any] = {
        "get": {
            "operationId": "list", "summary": "The loaded models, by name, a page at a time", "parameters": [token],
            "responses": {"200": {"description": "A page.", "content": {JSON: {"schema": _ref("Models")}}}},
        }
    }  # fmt: skip
    model: dict[str, Any] = {
        "get": {
            "operationId": "describe", "summary": "A model", "parameters": [name],
            "responses": {"200": about, **_failures(errors.NotFound)},
        }
    }  # fmt: skip
    if managed:
        models["post"] = {
            "operationId": "load", "summary": "Load a model; answered when it can answer",
            "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Load")}}},
            "responses": {"200": about, **_failures(*LOAD_FAILURES)},
        }  # fmt: skip
        model["delete"] = {
            "operationId": "unload", "summary": "Unload a model; answered when its memory is free",
            "parameters": [name],
            "responses": {"200": {"description": "It is gone."}, **_failures(errors.NotFound, errors.Conflict)},
        }  # fmt: skip
    paths: dict[str, Any] = {
        "/models": models,
        "/models/{model_name}": model,
        "/models/{model_name}/invoke": {
            "post": {
                "operationId": "invoke", "summary": "Ask a model", "parameters": [name],
                "requestBody": {"required": True, "content": {JSON: {}, "*/*": {}}},
                "responses": {
                    "200": {"description": "The answer, in the form that Accept asks for.", "content": {JSON: {}}},
                    **_failures(errors.NotFound, *FAILURES),
                },
            }
        },
    }  # fmt: skip
    if on_demand:
        paths["/predict"] = {
            "post": {
                "operationId": "predict", "summary": "Ask a model, which is loaded when it is not there",
                "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Predict")}}},
                "responses": {
                    "200": {"description": "An item a line, as they are made.", "content": {LINES: {}}},
                    **_failures(errors.NotFound, errors.Overloaded, *FAILURES),
                },
            }
        }  # fmt: skip
    paths["/ping"] = {"get": _plain("ping", "Whether models can be loaded", {200: "They can.", 503: "Not now."})}
    paths["/metrics"] = {"get": _plain("metrics", "Figures for Prometheus", {200: "Prometheus text"})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Many models", "version": __version__, "description": "Models that come and go."},
        "x-hfserve": {"task": "", "takes": "", "gives": "", "model": ""},
        "paths": paths,
        "components": {"schemas": {"Error": ERROR, **OF_MANY}},
    }


class _Schemas:
    """The schemas of a document, gathered under their names."""

    def __init__(self, options: Options) -> None:
        self.found: dict[str, Any] = {"Error": ERROR}
        self._options = options

    def request(self, task: Task) -> dict[str, Any]:
        """A body in JSON: inputs with parameters, or the inputs alone."""
        one = self.add(task.schema.inputs, "Input")
        self.add(task.schema.parameters, "Parameters")
        inputs = {"anyOf": [one, {"type": "array", "items": one}]}
        self.found["Request"] = {
            "type": "object",
            "properties": {
                "inputs": inputs,
                "parameters": _ref("Parameters"),
                "options": {"type": "object", "description": "Tolerated and not used, as by the Hub's own API."},
            },
            "required": ["inputs"],
        }
        return {"anyOf": [_ref("Request"), *inputs["anyOf"]]}

    def reply(self, task: Task) -> dict[str, Any]:
        """An answer in JSON: of one input, or of a list of them."""
        one = self.add(task.schema.answer, "Answer")
        several = {"type": "array", "items": one}
        if task.schema.answers is not None:
            several = self.add(task.schema.answers, "Answers")
        return {"anyOf": [one, several]}

    def add(self, kind: Any, name: str) -> dict[str, Any]:
        """A reference to the schema of a type, which is kept under a name with all that it refers to."""
        schema = TypeAdapter(kind).json_schema(ref_template=REF)
        self.found |= schema.pop("$defs", {})
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            _bound(schema, kind, self._options)
        self.found[name] = schema
        return _ref(name)


def _bound(schema: dict[str, Any], kind: type[BaseModel], options: Options) -> None:
    """Write the bounds that the settings choose into a schema."""
    for name, field in kind.model_fields.items():
        for bound in field.metadata:
            if isinstance(bound, AtMost):
                about = schema["properties"][name]
                for choice in about.get("anyOf", [about]):
                    if word := BOUNDS.get(choice.get("type")):
                        choice[word] = getattr(options, bound.setting)


def _invocations(task: Task, schemas: _Schemas, request: Any, reply: Any, answer: Any) -> dict[str, Any]:
    example = {"example": {"summary": f"A request that any model of {task.name} can answer", "value": task.example}}
    answered: dict[str, Any] = {"schema": reply}
    if answer is not UNANSWERED:
        answered["examples"] = {"example": {"summary": "What this model answered to the example", "value": answer}}
    reads = {kind: _in_form(kind) for kind in READ_FROM[task.takes]} if task.takes in READ_FROM else {}
    gives: dict[str, Any] = {kind: {} for kind in ANSWERED_AS.get(task.gives, ())}
    if task.streams:
        gives["text/event-stream"] = {"schema": schemas.add(Event, "Event")}
    return {
        "operationId": "invoke",
        "summary": f"{task.takes} in, {task.gives} out".capitalize(),
        "parameters": [
            {
                "name": "parameters", "in": "query", "style": "form", "explode": True, "schema": _ref("Parameters"),
                "description": "Parameters for bodies that have no place for them; those of the body win.",
            },
            {
                "name": "X-HF-Parameters", "in": "header", "content": {JSON: {"schema": _ref("Parameters")}},
                "description": "The same as a JSON object.",
            },
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": request, "examples": example}, **reads}},
        "responses": {
            "200": {
                "description": "The answer, in the form that Accept asks for.",
                "headers": {"X-HFServe-Truncated": {
                    "schema": {"type": "string"},
                    "description": "The inputs that were too long for the model and were truncated, when there were.",
                }},
                "content": {JSON: answered, **gives},
            },
            **_failures(*FAILURES),
        },
    }  # fmt: skip


def _openai(path: str, schemas: _Schemas, kind: type[BaseModel]) -> dict[str, Any]:
    name = path.removeprefix("/v1/")
    body = schemas.add(kind, f"OpenAI{''.join(map(str.capitalize, name.split('/')))}")
    return {
        "operationId": name.replace("/", "_"), "summary": f"As OpenAI has it: {name.replace('/', ' ')}",
        "requestBody": {"required": True, "content": {JSON: {"schema": body}}},
        "responses": {"200": {"description": "The answer in OpenAI's words, or a stream of its chunks."},
                      **_failures(*FAILURES)},
    }  # fmt: skip


def _in_form(kind: str) -> dict[str, Any]:
    """The schema of a body in a form other than JSON."""
    if kind == "multipart/form-data":
        properties: Mapping[str, Any] = {"inputs": {}, "parameters": _ref("Parameters")}
        return {"schema": {"type": "object", "properties": properties}}
    return {"schema": {"type": "string"}} if kind.startswith("text/") else {}


def _failures(*kinds: type[errors.ServeError]) -> dict[str, Any]:
    return {str(error.status): _failure(error) for error in kinds}


def _failure(error: type[errors.ServeError]) -> dict[str, Any]:
    return {"description": str(error()), "content": {JSON: {"schema": _ref("Error")}}}


def _plain(name: str, summary: str, answers: Mapping[int, str]) -> dict[str, Any]:
    responses = {str(status): {"description": words} for status, words in answers.items()}
    return {"operationId": name, "summary": summary, "responses": responses}


def _description(task: Task, model: str) -> str:
    return f"{model or 'A model'} for {task.name}: {task.takes} in, {task.gives} out."


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": REF.format(model=name)}


JSON = "application/json"
LINES = "application/jsonlines"
MODEL_NAME = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"}
BOUNDS = {"integer": "maximum", "number": "maximum", "array": "maxItems"}
FAILURES = (
    errors.BadRequest, errors.NotAcceptable, errors.RequestTimeout, errors.PayloadTooLarge,
    errors.UnsupportedMediaType, errors.InvalidInput, errors.ModelError, errors.NotReady, errors.DeadlineExceeded,
    errors.OutOfMemory,
)  # fmt: skip
LOAD_FAILURES = (
    errors.BadRequest, errors.NotFound, errors.Conflict, errors.ModelError, errors.NotReady, errors.OutOfMemory,
)  # fmt: skip
OF_MANY: dict[str, Any] = {
    "Load": {
        "type": "object",
        "properties": {
            "model_name": MODEL_NAME,
            "url": {"type": "string", "minLength": 1, "description": "The directory of the model."},
        },
        "required": ["model_name", "url"],
    },
    "Predict": {
        "type": "object",
        "properties": {
            "text": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "model_name": {"type": "string", "description": "One of those that HFSERVE_MODELS allows."},
            "task": {"type": "string", "description": "The task, where the model's own is not meant."},
            "parameters": {"type": "object", "description": "As at the task's /invocations."},
        },
        "required": ["text", "model_name"],
        "additionalProperties": False,
    },
    "Model": {
        "type": "object",
        "properties": {
            "modelName": MODEL_NAME,
            "modelUrl": {"type": "string"},
            "status": {"enum": ["Loading", "Healthy", "Recovering", "Unhealthy", "Unloading"]},
            "reason": {"type": "string", "description": "Why it cannot answer, when it cannot."},
            "task": {"type": "string"},
            "workers": {"type": "integer"},
            "readyWorkers": {"type": "integer"},
            "pids": {"type": "array", "items": {"type": "integer"}},
            "memoryBytes": {"type": "integer", "description": "What unloading it would free."},
            "onDemand": {"type": "boolean", "description": "Whether /predict loaded it."},
        },
        "required": ["modelName", "modelUrl", "status"],
    },
    "Models": {
        "type": "object",
        "properties": {
            "models": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"modelName": MODEL_NAME, "modelUrl": {"type": "string"}},
                    "required": ["modelName", "modelUrl"],
                },
            },
            "nextPageToken": {"type": "string", "description": "For the next page; there is none without."},
        },
        "required": ["models"],
    },
}
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "status": {"type": "integer", "description": "The status of the answer, again."},
                "type": {"type": "string", "description": "The kind of error, one word."},
                "message": {"type": "string", "description": "What is wrong, and what to do."},
                "request_id": {"type": "string", "description": "The X-Request-Id of the answer, as in the log."},
            },
            "required": ["status", "type", "message", "request_id"],
        }
    },
    "required": ["error"],
}
