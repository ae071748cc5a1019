"""text-generation: a prompt or a chat gone on with, as transformers' pipeline does it.

Texts are made token by token, all side by side, where the model's attention allows it. Others, and searches with beams,
go through `generate()`: prompts whose requests ask for the same share a pass, padded on the left, where that changes no
answer.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import InvalidInput, LoadError, first_line
from hfserve.messages import Item, Outcome
from hfserve.runtimes import generation
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import SAMPLES, load_tokenizer
from hfserve.settings import Options
from hfserve.tasks import generation as shared
from hfserve.tasks.base import Task
from hfserve.tasks.forms import cuts, kind, parse, string, too_long
from hfserve.tasks.narration import Events, detailed
from hfserve.tasks.requests import Form, fields, parts
from hfserve.tasks.schemas.generation import Generation
from hfserve.tasks.schemas.generation import TextGeneration as Parameters
from hfserve.tasks.steps import Ended, Steps, told

USUAL = {"max_new_tokens": 256, "do_sample": True, "temperature": 0.7}
"""The pipeline's defaults, for what neither the request nor the model's files say."""
LENGTHS = frozenset({"max_new_tokens", "max_length", "min_new_tokens", "min_length"})
ASKED = frozenset(Generation.model_fields) - shared.OURS
"""Parameters that are for `generate()`."""
STOPS = ("stop", "stop_sequence", "stop_sequences", "stop_strings")
NEUTRAL = {
    "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0,
}  # fmt: skip
"""Parameters that look at the prompt's tokens, padding too, unless they have these values."""
GROWING = frozenset({"dynamic", "longrope"})
"""Position embeddings that change for all of a batch, and after it, with the longest text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads, and what the full text begins with: a string, or the messages of a chat."""

    ids: list[int]
    given: Any
    empty: bool = False
    """Whether the one id is made up, for a model that has to begin with something."""


class TextGeneration:
    """A decoder; its answers have the pipeline's shape and values."""

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        self.task = task
        self._options = options
        self._model = _load(model_dir, options)
        self._words = shared.Words(load_tokenizer(model_dir, options))
        self._known = _known(self._model.generation_config)
        self._pad = _filler(self._model.generation_config, self._words)
        self._limit = shared.positions(self._model.config)
        self._prefix = _prefix(self._model)
        self._answers_parsed = bool(getattr(self._words.tokenizer, "response_template", None))
        self._alone = self._answers_parsed or not self._keeps_company()
        self.concurrent = _is_concurrent(self._model)
        self.chats = bool(self._words.tokenizer.chat_template)
        self._special = frozenset(self._words.tokenizer.all_special_ids)
        self._processors = shared.Processors(self._model)
        self._engines = self._made_engines()
        self.steps = [Steps(engine, self._of_texts) for engine in self._engines]

    def items(self, data: Any) -> list[Item]:
        """An item for each prompt or chat, encoded."""
        inputs, parameters = _asked(data)
        chosen = parse(Parameters, parameters, self._options)
        if chosen.return_tensors and chosen.return_full_text is not None:
            raise InvalidInput("parameters.return_tensors: gives all tokens; leave out return_full_text")
        generation = self._generation(chosen)
        if _many(inputs):
            return [self._item(each, f"inputs[{i}]", chosen, generation) for i, each in enumerate(inputs)]
        return [self._item(inputs, "inputs", chosen, generation)]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """For each item its generated texts, as the pipeline words them."""
        return shared.in_groups(items, self._generated, alone=self._alone)

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """A list for each prompt or chat, and a list of those for a list."""
        return list(results) if _many(_asked(data)[0]) else results[0]

    # Before the model

    def _item(self, value: Any, place: str, chosen: Parameters, generation: Mapping[str, Any]) -> Item:
        given = _read(value, place)
        ids, shortened = self._encoded(given, place, chosen)
        prompt = len(ids) or 1
        tokens = self._tokens(generation, prompt, chosen, place)
        ids, tokens, cut = self._fitted(ids, tokens, chosen, place)
        settled = {name: value for name, value in generation.items() if name not in LENGTHS}
        settled |= {"max_new_tokens": tokens, **self._least(generation, prompt, tokens, chosen)}
        start = Prompt(ids or [self._beginning(place)], given, empty=not ids)
        key = self._batch_key(settled, chosen, len(start.ids))
        parameters: dict[str, Any] = {"generate": settled, "chosen": chosen, "seed": chosen.seed}
        stepwise = bool(self._engines) and shared.is_stepwise(self._model, settled)
        if stepwise:
            parameters["wanted"] = self._wanted(settled, chosen, start.ids)
            shared.check_room(self._engines[0], parameters["wanted"], place)
        return Item(start, parameters, key, len(start.ids), place if cut or shortened else "", stepwise)

    def _encoded(self, given: Any, place: str, chosen: Parameters) -> tuple[list[int], bool]:
        """The tokens of a prompt, and whether lengths in the request cut it."""
        arguments = _encoding(chosen, chat=not isinstance(given, str))
        most = arguments.pop("max_length", None)
        ids = kept = self._ids(given, place, chosen, arguments)
        if most is not None and most < len(ids):
            kept = self._ids(given, place, chosen, {**arguments, "truncation": True, "max_length": most})
        kept = kept if chosen.truncate is None else kept[-chosen.truncate :]
        return kept, len(kept) < len(ids)

    def _ids(self, given: Any, place: str, chosen: Parameters, arguments: dict[str, Any]) -> list[int]:
        with self._words.turn:
            if isinstance(given, str):
                return list(self._words.tokenizer(self._prefix_of(chosen) + given, **arguments)["input_ids"])
            return _templated(self._words.tokenizer, given, place, chosen, arguments)

    def _prefix_of(self, chosen: Parameters) -> str:
        return self._prefix if chosen.prefix is None else chosen.prefix

    def _generation(self, chosen: Parameters) -> dict[str, Any]:
        """What `generate()` is given when the model's files are silent, with what the request asks."""
        asked = chosen.model_dump(include=set(ASKED), exclude_none=True)
        known = {**self._known, **asked}
        usual = {name: value for name, value in USUAL.items() if name not in known}
        if "max_length" in known:
            usual.pop("max_new_tokens", None)
        if not {**known, **usual}["do_sample"]:
            usual.pop("temperature", None)
        lengths = {name: known[name] for name in LENGTHS & known.keys()}
        return {**lengths, **usual, **asked, "pad_token_id": self._pad}

    def _tokens(self, generation: Mapping[str, Any], prompt: int, chosen: Parameters, place: str) -> int:
        """The most tokens to generate."""
        if "max_new_tokens" in generation:
            return int(min(generation["max_new_tokens"], self._options.max_new_tokens))
        total = generation["max_length"] + self._prefix_length(chosen)
        if total <= prompt:
            raise InvalidInput(
                f"parameters.max_length: {place} has {prompt} tokens already; send a larger one, or max_new_tokens"
            )
        if chosen.max_length is not None and total - prompt > self._options.max_new_tokens:
            raise InvalidInput(
                f"parameters.max_length: leaves {total - prompt} tokens to generate; this server takes "
                f"{self._options.max_new_tokens} at most (HFSERVE_MAX_NEW_TOKENS)"
            )
        return int(min(total - prompt, self._options.max_new_tokens))

    def _least(self, generation: Mapping[str, Any], prompt: int, most: int, chosen: Parameters) -> dict[str, int]:
        """The fewest tokens to generate: padding counts in a total length, and would end another's text early."""
        least = generation.get("min_new_tokens")
        if least is None and generation.get("min_length"):
            least = max(generation["min_length"] + self._prefix_length(chosen) - prompt, 0)
        return {} if least is None else {"min_new_tokens": min(least, most)}

    def _prefix_length(self, chosen: Parameters) -> int:
        """A total length is counted without the prefix."""
        prefix = self._prefix_of(chosen)
        if not prefix:
            return 0
        with self._words.turn:
            added = bool(chosen.add_special_tokens)
            return len(self._words.tokenizer(prefix, add_special_tokens=added)["input_ids"])

    def _fitted(self, ids: list[int], tokens: int, chosen: Parameters, place: str) -> tuple[list[int], int, bool]:
        """Prompt and number of tokens within the model's positions, and whether the prompt was cut.

        The prompt is left whole where at least one token can follow it, unless the request asks for a hole.
        """
        hole = chosen.handle_long_generation == "hole"
        limit = min(self._limit, self._words.tokenizer.model_max_length) if hole else self._limit
        prompt = len(ids) or 1
        if prompt + tokens <= limit:
            return ids, tokens, False
        if prompt < limit and not hole:
            return ids, limit - prompt, False
        if not cuts(chosen.truncation):
            raise too_long(place, limit)
        if hole and tokens >= limit:
            raise InvalidInput(f"parameters.max_new_tokens: leaves nothing of the {limit} tokens of prompt and text")
        tokens = tokens if hole else min(tokens, max(limit // 2, 1))
        return ids[-(limit - tokens) :], tokens, True

    def _beginning(self, place: str) -> int:
        """What a text without a prompt begins with."""
        beginning = self._known.get("bos_token_id")
        if beginning is None:
            raise InvalidInput(f"{place} is empty, and this model has no token to begin a text with")
        return int(beginning)

    def _batch_key(self, generation: Mapping[str, Any], chosen: Parameters, length: int) -> Hashable:
        """What items have to have in common to share a pass; their padding must not be seen by anyone."""
        stops = _stops(chosen)
        endless = generation.get("eos_token_id", self._known.get("eos_token_id")) is None
        seen = chosen.skip_special_tokens is False or chosen.return_tensors or (stops and endless)
        if self._alone or seen:
            return object()
        values = {**self._known, **generation}
        counted = any(values.get(name, neutral) != neutral for name, neutral in NEUTRAL.items())
        key = shared.batch_key(self._model, generation)
        return key, tuple(stops), _penalties(chosen), length if counted else None

    def message(self, item: Item, text: str) -> dict[str, Any]:
        """What a model's own template finds in an answer to a chat: words, thoughts, calls of tools."""
        if not self._answers_parsed:
            return {}
        (read,) = self._words.decode([item.data.ids], None, skip_special=False)
        return self._parsed(text, read, item.parameters["chosen"])

    # Token by token

    def told(self, item: Item) -> Item:
        """The item, if it can be told."""
        settled = item.parameters["generate"]
        beams = shared.setting(self._model, settled, "num_beams", 1)
        shared.check_told(beams=beams, texts=shared.texts_of(self._model, settled))
        return item

    def events(self, item: Item) -> Events:
        """The tokens of one of an item's texts as events."""
        chosen, given = item.parameters["chosen"], item.data.given
        skip = chosen.skip_special_tokens is not False and not self._answers_parsed
        clean = chosen.clean_up_tokenization_spaces

        def decode(ids: Sequence[int]) -> str:
            return self._words.decode([ids], clean, skip_special=skip)[0]

        def shown(text: str) -> str:
            return given + text if chosen.return_full_text and isinstance(given, str) else text

        return Events(decode, self._special, shown=shown, text_of=self._text_of)

    def _made_engines(self) -> list[generation.Engine]:
        """What makes many texts side by side: one for each lane."""
        if not self.concurrent:
            return []
        rows = self._sample_rows()
        return shared.engines(
            self._model, self._options, self._limit, rows,
            make=generation.engines, alone=lambda _: [self._logits([row])[0] for row in rows],
        )  # fmt: skip

    def _wanted(self, settled: Mapping[str, Any], chosen: Parameters, ids: Sequence[int]) -> list[generation.Wanted]:
        """What is asked of the engine, for each text of a prompt."""
        return self._processors.wanted(
            settled, ids, chosen.seed, stops=self._words.stopped(_stops(chosen)), penalties=_penalties(chosen),
            details=chosen.details, top=chosen.top_n_tokens,
        )  # fmt: skip

    def _of_texts(self, item: Item, texts: Sequence[generation.Text]) -> Outcome:
        """The records of a prompt whose texts the engine made."""
        records = self._answer(item, [text.ids for text in texts])
        return self._detailed(item, records, ((told(text), text.made) for text in texts))

    def _detailed(
        self, item: Item, records: list[dict[str, Any]], made: Iterable[tuple[Ended, Sequence[generation.Token]]]
    ) -> list[dict[str, Any]]:
        """The records with how each text ended, and its tokens, where that was asked for."""
        return detailed(records, made, item.parameters["chosen"].details, lambda: self.events(item))

    def _text_of(self, token: int) -> str:
        return self._words.decode([[token]], False, skip_special=False)[0]

    # The model

    def _generated(self, items: Sequence[Item]) -> list[Outcome]:
        if len(items) > 1 and any(item.feed.tell for item in items):  # what is told is told of one at a time
            return [outcome for item in items for outcome in self._generated([item])]
        rows = [item.data.ids for item in items]
        inputs = {
            "input_ids": shared.padded(rows, self._pad or 0, left=True),
            "attention_mask": shared.padded([[1] * len(row) for row in rows], 0, left=True),
        }
        asked = items[0].parameters
        more = shared.telling(items[0], shared.ends_of(self._model, asked["generate"]))
        more |= shared.stopping(items, self._words.stopped(_stops(asked["chosen"])))
        longest = inputs["input_ids"].shape[1]
        more |= shared.penalizing(longest, _penalties(asked["chosen"]))
        tokens = shared.generate(self._model, inputs, asked["generate"], asked["seed"], **more)
        return [
            self._whole(item, [sequence[longest - len(item.data.ids) :].tolist() for sequence in sequences])
            for item, sequences in zip(items, tokens, strict=True)
        ]

    def _whole(self, item: Item, sequences: Sequence[list[int]]) -> Outcome:
        """The records of a prompt, whose rows `generate()` filled up behind the text's end."""
        ends = shared.ends_of(self._model, item.parameters["generate"])

        def made(sequence: list[int]) -> tuple[Ended, Sequence[generation.Token]]:
            ids = sequence[len(item.data.ids) :]
            ended = shared.ended(item, ids, ends)
            return ended, [generation.Token(each) for each in ids[: ended.tokens]]

        return self._detailed(item, self._answer(item, sequences), map(made, sequences))

    def _keeps_company(self) -> bool:
        """Whether prompts of unequal lengths get the same logits together as apart, and finished rows end unseen."""
        config = self._model.config
        if config.model_type in shared.ALONE or GROWING & {each["rope_type"] for each in shared.ropes(config)}:
            return False
        if self._pad not in self._words.tokenizer.all_special_ids:
            return False
        rows = self._sample_rows()
        try:
            return shared.alike(self._model, [self._logits([row])[0] for row in rows], self._logits(rows))
        except ValueError:
            return False

    def _sample_rows(self) -> list[list[int]]:
        rows = [self._words.tokenizer(text)["input_ids"] for text in SAMPLES[:2]]
        return [row[: max(self._limit - 2, 1)] for row in rows]

    def _logits(self, rows: list[list[int]]) -> Any:
        """What the model says of each of the first two tokens after each prompt; fewer where its text ends."""
        with torch.inference_mode(), runtime.memory_guard():
            answer = self._model.generate(
                input_ids=shared.padded(rows, self._pad or 0, left=True).to(self._model.device),
                attention_mask=shared.padded([[1] * len(row) for row in rows], 0, left=True).to(self._model.device),
                max_new_tokens=2, do_sample=False, num_beams=1, pad_token_id=self._pad,
                output_logits=True, return_dict_in_generate=True, **NEUTRAL,
            )  # fmt: skip
        return torch.stack(answer.logits, 1).float().cpu()

    # After the model

    def _answer(self, item: Item, sequences: Sequence[list[int]]) -> list[dict[str, Any]]:
        """The records of a prompt."""
        chosen, prompt = item.parameters["chosen"], item.data
        if chosen.return_tensors:
            return [{"generated_token_ids": sequence} for sequence in sequences]
        start = 0 if prompt.empty else len(prompt.ids)
        skip = chosen.skip_special_tokens is not False and not self._answers_parsed
        clean = chosen.clean_up_tokenization_spaces
        texts = self._words.decode([sequence[start:] for sequence in sequences], clean, skip_special=skip)
        if chosen.return_full_text is False:
            return [{"generated_text": text} for text in texts]
        if isinstance(prompt.given, str):
            return [{"generated_text": prompt.given + text} for text in texts]
        (read,) = self._words.decode([sequences[0][:start]], clean, skip_special=skip)
        return [{"generated_text": self._chat(prompt.given, text, read, chosen)} for text in texts]

    def _chat(self, messages: list[dict[str, Any]], text: str, read: str, chosen: Parameters) -> list[dict[str, Any]]:
        """The chat with the text in it; a model's own template may find more in the text than words."""
        if _continues(messages, chosen):
            *before, last = messages
            return [*before, {"role": last["role"], "content": _extended(last["content"], text)}]
        if not self._answers_parsed:
            return [*messages, {"role": "assistant", "content": text}]
        return [*messages, self._parsed(text, read, chosen)]

    def _parsed(self, text: str, read: str, chosen: Parameters) -> dict[str, Any]:
        """An answer as the model's own template takes it apart."""
        with self._words.turn:
            message: dict[str, Any] = self._words.tokenizer.parse_response(text, prefix=read, tools=chosen.tools)
        return message


# Requests


def _message(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise InvalidInput(f'{place} is not a message: {{"role": "user", "content": "…"}}')
    content = value.get("content")
    if isinstance(content, list):
        for i, part in enumerate(content):
            _part(part, f"{place}.content[{i}]")
    elif not isinstance(content, str) and not (content is None and value.get("tool_calls")):
        raise InvalidInput(f"{place}.content is {kind(content)}; it has to be a string or a list of parts")
    return value


def _part(value: Any, place: str) -> None:
    if not isinstance(value, dict) or value.get("type") != "text":
        raise InvalidInput(f'{place} is not text; this task takes parts as {{"type": "text", "text": "…"}} alone')
    string(value.get("text"), f"{place}.text")


def _read(value: Any, place: str, _: Any = None) -> Any:
    """A prompt, or the messages of a chat."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return string(value, place)
    if not value:
        raise InvalidInput(f'{place} is a chat without messages; send [{{"role": "user", "content": "…"}}]')
    return [_message(each, f"{place}[{i}]") for i, each in enumerate(value)]


FORM = Form(_read, ("text", "messages"))


def _asked(data: Any) -> tuple[Any, Mapping[str, Any]]:
    return fields(*parts(data), FORM)


def _many(inputs: Any) -> bool:
    """Whether a list holds several prompts or chats; a list of messages is one chat."""
    return isinstance(inputs, list) and not (inputs and isinstance(inputs[0], dict) and "role" in inputs[0])


def _stops(chosen: Parameters) -> list[str]:
    """The strings that end a text, by whatever name they came."""
    return list(dict.fromkeys(stop for name in STOPS for stop in shared.strings(getattr(chosen, name))))


def _penalties(chosen: Parameters) -> tuple[float, float]:
    return chosen.frequency_penalty or 0.0, chosen.presence_penalty or 0.0


def _encoding(chosen: Parameters, *, chat: bool) -> dict[str, Any]:
    """The tokenizer's arguments; as in the pipeline, max_length cuts a prompt, and a chat where it is told to."""
    own = chosen.tokenizer_encode_kwargs
    told = own.model_dump(exclude_none=True, exclude={"padding"}) if own else {}
    truncation = told.pop("truncation", chosen.truncation)
    arguments = {"add_special_tokens": chosen.add_special_tokens, "max_length": chosen.max_length, **told}
    explicit = "truncation" in chosen.model_fields_set or (own and own.truncation)
    if not cuts(truncation) or (chat and not explicit):
        del arguments["max_length"]
    if chat:
        del arguments["add_special_tokens"]
    else:
        arguments.pop("enable_thinking", None)
    return {name: value for name, value in arguments.items() if value is not None}


def _templated(
    tokenizer: Any, messages: list[dict[str, Any]], place: str, chosen: Parameters, arguments: dict[str, Any]
) -> list[int]:
    """The tokens of a chat, by the model's template; whatever that raises, it is the messages that it cannot take."""
    if not tokenizer.chat_template:
        raise InvalidInput(f"{place} is a chat, and this model has no chat template; send a string")
    goes_on = _continues(messages, chosen)
    try:
        encoded = tokenizer.apply_chat_template(
            messages, add_generation_prompt=not goes_on, continue_final_message=goes_on, return_dict=True,
            tools=chosen.tools, documents=chosen.documents, **arguments,
        )  # fmt: skip
    except Exception as error:
        raise InvalidInput(f"{place}: the model's chat template refuses it: {first_line(error)}") from error
    return list(encoded["input_ids"])


def _continues(messages: list[dict[str, Any]], chosen: Parameters) -> bool:
    """Whether the text goes on with a chat's last message; few models take two of the assistant's in a row."""
    asked = chosen.continue_final_message
    return messages[-1]["role"] == "assistant" if asked is None else asked


def _extended(content: Any, text: str) -> Any:
    """The content of a message with more text."""
    if isinstance(content, list):
        return [*content, {"type": "text", "text": text}]
    return (content or "") + text


# Models


def _load(model_dir: Path, options: Options) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return runtime.load(AutoModelForCausalLM, model_dir, options)
    except LoadError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise LoadError(
            "this model does not go on with a text; one that reads a text and writes another is served with "
            "HF_TASK=text2text-generation"
        ) from error


def _filler(generation: Any, words: shared.Words) -> int | None:
    """The token that fills rows up, by the pipeline's rule and then by that of `generate()`."""
    ends = generation.eos_token_id
    choices = (generation.pad_token_id, words.pad, ends[0] if isinstance(ends, list) else ends)
    return next((token for token in choices if token is not None), None)


def _known(generation: Any) -> dict[str, Any]:
    """What the model's files say, with the lengths cleared there, having been read here."""
    known = {name: value for name, value in generation.to_diff_dict().items() if value is not None}
    for name in LENGTHS:
        setattr(generation, name, None)
    return known


def _prefix(model: Any) -> str:
    """What the pipeline puts before each prompt."""
    from transformers import TextGenerationPipeline

    told = getattr(model.config, "prefix", None)
    usual = TextGenerationPipeline.XL_PREFIX if type(model).__name__ == "XLNetLMHeadModel" else ""
    return usual if told is None else told


def _is_concurrent(model: Any) -> bool:
    """Whether two threads may generate: some position embeddings, caches and experts change while one does."""
    if GROWING & {each["rope_type"] for each in shared.ropes(model.config)} or model.config.model_type in shared.ALONE:
        return False
    if model.generation_config.cache_implementation:
        return False
    return model.device.type == "cpu" or "grouped_mm" not in model.get_experts_implementation().values()
