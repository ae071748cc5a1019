"""OpenAI's API: chats, completions and embeddings, read into a task's own requests and answered in OpenAI's words.

Names and shapes are those of https://platform.openai.com/docs/api-reference; what vLLM and Text Generation Inference
take beside them (top_k, repetition_penalty, chat_template_kwargs …) goes through to the task.
"""

import base64
import json
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from hfserve.errors import InvalidInput, NotFound
from hfserve.messages import Item, Outcome
from hfserve.tasks.base import Telling

CHATS, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
PATHS = (CHATS, COMPLETIONS, EMBEDDINGS)
SIGNS = {"messages": CHATS, "prompt": COMPLETIONS, "input": EMBEDDINGS}
"""What shows, in a body at /invocations, that it is one of OpenAI's."""

UNNAMED = "model"
"""What a model is called that came without a name."""

CHAT_TOKENS, COMPLETION_TOKENS = 1024, 16
"""Tokens generated at most when the request is silent: as Text Generation Inference has it for chats, and OpenAI for
completions."""

FINISHES = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}
MOST = 64
"""Answers to one request."""


class StreamOptions(BaseModel):
    """How a stream ends."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class _Body(BaseModel):
    """What all bodies have; fields that change nothing here are taken and not used."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str | None = None
    user: str | None = None
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None


class _Writing(_Body):
    """What chats and completions take."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MOST)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[NonNegativeInt, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=300)
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = Field(None, ge=0)
    skip_special_tokens: bool | None = None

    def asked(self) -> dict[str, Any]:
        """The task's parameters for it; a temperature of 0 takes the likeliest token."""
        drawn = {} if self.temperature is None else {"do_sample": self.temperature > 0}
        warm = {"temperature": self.temperature} if self.temperature else {}
        through = self.model_dump(
            include={
                "top_p", "stop", "seed", "top_k", "min_p", "repetition_penalty", "skip_special_tokens",
                "frequency_penalty", "presence_penalty",
            },
            exclude_none=True,
        )  # fmt: skip
        if self.logit_bias:
            through["sequence_bias"] = [[[token], float(bias)] for token, bias in self.logit_bias.items()]
        least = {"min_new_tokens": self.min_tokens} if self.min_tokens else {}
        return {"return_full_text": False, "details": "brief", **drawn, **warm, **through, **least}


class _Chat(_Writing):
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    response_format: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None


class _Completion(_Writing):
    prompt: str | list[str] = Field()
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=1)
    suffix: str | None = Field(None, max_length=0)


class _Embedding(_Body):
    input: str | list[str]
    encoding_format: str | None = Field(None, pattern="^(float|base64)$")
    dimensions: int | None = None


@runtime_checkable
class Chatting(Telling, Protocol):
    """A task that goes on with texts, and perhaps with chats."""

    chats: bool

    def message(self, item: Item, text: str) -> dict[str, Any]:
        """What a model's own template finds in an answer to a chat, beside the text."""


class Answering:
    """How one request of OpenAI's is answered: `requests` are for the task, one for each choice."""

    requests: Sequence[dict[str, Any]]
    streams = False

    def body(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The answer when all is made."""
        raise NotImplementedError

    def events(self, number: int, item: Item, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The chunks that an event of one choice makes."""
        raise NotImplementedError

    def last(self) -> list[dict[str, Any]]:
        """The chunks after all choices have ended."""
        return []


def bodies(runner: Any) -> dict[str, type[BaseModel]]:
    """The addresses of OpenAI's that a task has, each with what it takes."""
    if runner.task.name == "feature-extraction":
        return {EMBEDDINGS: _Embedding}
    if not isinstance(runner, Chatting):
        return {}
    return {**({CHATS: _Chat} if runner.chats else {}), COMPLETIONS: _Completion}


def read(path: str, data: Any, runner: Any, name: str, request_id: str) -> Answering | None:
    """How a body is answered; None when it is not one of OpenAI's. Raises NotFound, or InvalidInput."""
    if path not in PATHS:
        path = _path_of(data, runner)
        if not path:
            return None
    if not isinstance(data, dict):
        raise InvalidInput("the body has to be a JSON object")
    if path == EMBEDDINGS:
        if runner.task.name != "feature-extraction":
            raise NotFound(f"this model is for {runner.task.name} and has no {path}; POST to /invocations")
        return _Embeddings(_parsed(_Embedding, data), name or UNNAMED)
    if not isinstance(runner, Chatting) or (path == CHATS and not runner.chats):
        reason = "has no chat template" if isinstance(runner, Chatting) else f"is for {runner.task.name}"
        raise NotFound(f"this model {reason}, so that there is no {path}; POST to /invocations")
    kind = _Chats if path == CHATS else _Completions
    return kind(_parsed(kind.takes, data), name or UNNAMED, runner, request_id)


def _path_of(data: Any, runner: Any) -> str:
    """Whose body it is, at /invocations: the task's own has `inputs`."""
    if not isinstance(data, dict) or "inputs" in data:
        return ""
    path = next((SIGNS[name] for name in SIGNS if name in data), "")
    if path == EMBEDDINGS:
        return path if runner.task.name == "feature-extraction" else ""
    return path if isinstance(runner, Chatting) else ""


def _parsed(kind: Any, data: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(map(str, found["loc"])) or "the body"
        told = "not known here" if found["type"] == "extra_forbidden" else found["msg"]
        raise InvalidInput(f"{place}: {told}") from None


class _Written(Answering):
    """Chats and completions alike."""

    takes: Any
    whole: str
    chunk: str
    prefix: str

    def __init__(self, body: Any, name: str, runner: Chatting, request_id: str) -> None:
        self._body = body
        self._runner = runner
        self._id = f"{self.prefix}-{request_id}"
        self._head = {"id": self._id, "created": int(time.time()), "model": name}
        self.streams = bool(body.stream)
        self._stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
        self._held: dict[int, _Held] = {}
        self._counts: dict[int, tuple[int, int]] = {}
        self.requests = self._asked()

    def body(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The answer when all is made."""
        choices = []
        for number, (item, ((record,))) in enumerate(zip(items, outcomes, strict=True)):
            found = record["details"]
            self._counts[number] = found["input_length"], found["generated_tokens"]
            text = _cut(record["generated_text"], self._stops if found["finish_reason"] == "stop_sequence" else ())
            choice = self._choice(number, item, text)
            calls = "message" in choice and "tool_calls" in choice["message"]
            finish = "tool_calls" if calls else FINISHES[found["finish_reason"]]
            choices.append(
                {"index": number, **choice, "logprobs": self._logprobs(number, found), "finish_reason": finish}
            )
        return {**self._head, "object": self.whole, "choices": choices, "usage": self._usage()}

    def events(self, number: int, item: Item, event: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The chunks that an event of one choice makes."""
        made = []
        if number not in self._held:
            self._held[number] = _Held(self._stops)
            made += self._begun(number)
        found = event["details"]
        text = self._held[number].add(
            event["token"]["text"], last=bool(found), stopped=bool(found) and found["finish_reason"] == "stop_sequence"
        )
        logprobs = self._logprobs(number, {"tokens": [event["token"]], "top_tokens": [event.get("top_tokens", [])]})
        if text or logprobs:
            made.append(self._chunk(number, self._added(text), logprobs))
        if found:
            self._counts[number] = found["input_length"], found["generated_tokens"]
            made.append(self._chunk(number, self._added(""), None, FINISHES[found["finish_reason"]]))
        return made

    def last(self) -> list[dict[str, Any]]:
        """The usage, when it was asked for."""
        options = self._body.stream_options
        if not (options and options.include_usage):
            return []
        return [{**self._head, "object": self.chunk, "choices": [], "usage": self._usage()}]

    def _asked(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _begun(self, number: int) -> list[dict[str, Any]]:
        return []

    def _choice(self, number: int, item: Item, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _added(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def _logprobs(self, number: int, found: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def _chunk(self, number: int, added: dict[str, Any], logprobs: Any, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": number, **added, "logprobs": logprobs, "finish_reason": finish}
        return {**self._head, "object": self.chunk, "choices": [choice]}

    def _usage(self) -> dict[str, int]:
        """Prompts are counted once, however many choices go on with them."""
        prompts = sum(read for number, (read, _) in self._counts.items() if not number % (self._body.n or 1))
        made = sum(made for _, made in self._counts.values())
        return {"prompt_tokens": prompts, "completion_tokens": made, "total_tokens": prompts + made}

    def _copies(self, inputs: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """A request for each of n choices; of one seed each makes its own."""
        seeds = [{} if self._body.seed is None else {"seed": self._body.seed + i} for i in range(self._body.n or 1)]
        return [{"inputs": inputs, "parameters": {**parameters, **seed}} for seed in seeds]


class _Chats(_Written):
    takes = _Chat
    whole, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def _asked(self) -> list[dict[str, Any]]:
        body = self._body
        if (body.response_format or {}).get("type", "text") != "text":
            raise InvalidInput("response_format: this server writes text alone")
        if body.tool_choice not in {None, "auto", "none"} if isinstance(body.tool_choice, str | None) else True:
            raise InvalidInput(
                'tool_choice: this server leaves the choice to the model ("auto"), or offers none ("none")'
            )
        most = body.max_completion_tokens or body.max_tokens or CHAT_TOKENS
        parameters = {**body.asked(), "max_new_tokens": most}
        if body.tools and body.tool_choice != "none":
            parameters["tools"] = body.tools
        if body.chat_template_kwargs:
            parameters["tokenizer_encode_kwargs"] = body.chat_template_kwargs
        if body.logprobs:
            parameters |= {"details": True, "top_n_tokens": body.top_logprobs}
        parameters["continue_final_message"] = bool(body.continue_final_message)
        return self._copies([_plain(message) for message in body.messages], parameters)

    def _begun(self, number: int) -> list[dict[str, Any]]:
        return [self._chunk(number, {"delta": {"role": "assistant", "content": ""}}, None)]

    def _choice(self, number: int, item: Item, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, **self._runner.message(item, text)}
        if message.get("tool_calls"):
            calls = enumerate(message["tool_calls"])
            id_ = f"call_{self._id[-12:]}_{number}"
            message["tool_calls"] = [_call(call, f"{id_}_{i}") for i, call in calls]
        return {"message": message}

    def _added(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def _logprobs(self, number: int, found: Mapping[str, Any]) -> Any:
        if not self._body.logprobs:
            return None
        tops = found.get("top_tokens") or [[] for _ in found["tokens"]]
        pairs = zip(found["tokens"], tops, strict=True)
        return {"content": [{**_token(token), "top_logprobs": [_token(each) for each in top]} for token, top in pairs]}


class _Completions(_Written):
    takes = _Completion
    whole, chunk, prefix = "text_completion", "text_completion", "cmpl"

    def _asked(self) -> list[dict[str, Any]]:
        body = self._body
        parameters = {**body.asked(), "max_new_tokens": body.max_tokens or COMPLETION_TOKENS}
        if body.logprobs is not None:
            parameters |= {"details": True, "top_n_tokens": body.logprobs}
        prompts = body.prompt if isinstance(body.prompt, list) else [body.prompt]
        if not prompts:
            raise InvalidInput("prompt: an empty list; send a string")
        self._prompts = prompts
        return [request for prompt in prompts for request in self._copies(prompt, parameters)]

    def _begun(self, number: int) -> list[dict[str, Any]]:
        return [self._chunk(number, {"text": self._echoed(number)}, None)] if self._body.echo else []

    def _choice(self, number: int, item: Item, text: str) -> dict[str, Any]:
        return {"text": self._echoed(number) + text}

    def _echoed(self, number: int) -> str:
        return str(self._prompts[number // (self._body.n or 1)]) if self._body.echo else ""

    def _added(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _logprobs(self, number: int, found: Mapping[str, Any]) -> Any:
        if self._body.logprobs is None:
            return None
        tokens = found["tokens"]
        tops = found.get("top_tokens") or [[] for _ in tokens]
        return {
            "tokens": [token["text"] for token in tokens], "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [{each["text"]: each["logprob"] for each in top} for top in tops], "text_offset": [],
        }  # fmt: skip


class _Embeddings(Answering):
    """Vectors of texts, those of the model's own pooling, else the mean of the tokens'."""

    def __init__(self, body: Any, name: str) -> None:
        texts = body.input if isinstance(body.input, list) else [body.input]
        if not texts:
            raise InvalidInput("input: an empty list; send a string")
        self._body = body
        self._name = name
        self.requests = [{"inputs": text, "parameters": {"truncation": True}} for text in texts]

    def body(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The answer when all is made."""
        vectors = [_vector(outcome) for outcome in outcomes]
        if self._body.dimensions not in {None, len(vectors[0])}:
            raise InvalidInput(f"dimensions: this model's vectors have {len(vectors[0])}")
        tokens = sum(item.cost for item in items)
        given = [_in_base64(each) if self._body.encoding_format == "base64" else each for each in vectors]
        return {
            "object": "list", "model": self._name,
            "data": [{"object": "embedding", "index": i, "embedding": each} for i, each in enumerate(given)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }  # fmt: skip


class _Held:
    """The text of a choice, without the string that ended it: what might be its beginning is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._text = ""

    def add(self, text: str, *, last: bool, stopped: bool) -> str:
        """What can go out now."""
        self._text += text
        if last:
            return _cut(self._text, self._stops if stopped else ())
        held = max((_overlap(self._text, stop) for stop in self._stops), default=0)
        out, self._text = self._text[: len(self._text) - held], self._text[len(self._text) - held :]
        return out


def _overlap(text: str, stop: str) -> int:
    """How much of a text's end may belong to a stop string: its beginning, or all of it with what stands after."""
    if (place := text.find(stop)) >= 0:
        return len(text) - place
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


def _cut(text: str, stops: Sequence[str]) -> str:
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def _token(token: Mapping[str, Any]) -> dict[str, Any]:
    text = token["text"]
    return {"token": text, "logprob": token["logprob"], "bytes": list(text.encode())}


def _call(call: Mapping[str, Any], id_: str) -> dict[str, Any]:
    """A call of a tool; OpenAI has the arguments as a string."""
    function = call.get("function", call)
    arguments = function.get("arguments") or {}
    told = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": id_, "type": "function", "function": {"name": function.get("name"), "arguments": told}}


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message without the fields that clients send empty."""
    return {name: value for name, value in message.items() if value is not None or name == "content"}


def _vector(outcome: Any) -> list[float]:
    """One vector of a text: the mean of its tokens' where the model says no other way."""
    if isinstance(outcome[0], list):
        return [sum(column) / len(column) for column in zip(*outcome[0], strict=True)]
    return list(outcome)


def _in_base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
