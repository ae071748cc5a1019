"""summarization, translation and text2text-generation: text from text.

Searches with beams go through `generate()`, those that ask for the same in one pass; without, texts are made token by
token, all side by side, where the model's attention allows it. transformers 5 has no pipelines for these tasks;
the answers here are those of 4.57's, from its defaults to its shapes.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfserve.errors import InvalidInput, LoadError
from hfserve.messages import Item, Outcome
from hfserve.runtimes import seq2seq
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.generation import Engine, Text, Token, Wanted
from hfserve.runtimes.tokenizing import SAMPLES, UNLIMITED, load_tokenizer
from hfserve.settings import Options
from hfserve.tasks import generation as shared
from hfserve.tasks.base import Task
from hfserve.tasks.forms import cuts, parse, places, split, string, too_long
from hfserve.tasks.narration import Events, detailed
from hfserve.tasks.schemas import generation as schemas
from hfserve.tasks.steps import Ended, Steps, told

KEYS = {"summarization": "summary_text", "translation": "translation_text", "text2text-generation": "generated_text"}
USUAL = {"max_new_tokens": 256, "num_beams": 4}
"""The pipeline's defaults, which win over the model's own."""
UNSET_LENGTH = 20
"""The max_length that a configuration has when nobody chose one."""
MOST_TOKENS = 16_384
"""Tokens of a text that are read where neither the model nor its tokenizer sets an end."""
NAMED = 12
"""Languages that an error names."""


NOT_GENERATE = shared.OURS | {"truncation", "src_lang", "tgt_lang", "stop", "details", "top_n_tokens"}
"""Parameters that are not for `generate()`."""


class Text2Text:
    """An encoder with a decoder, for any of the three tasks."""

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForSeq2SeqLM

        self._model = runtime.load(AutoModelForSeq2SeqLM, model_dir, options)
        self._alone = self._model.config.model_type in shared.ALONE
        self.concurrent = not self._alone
        self._words = _Words(model_dir, _positions(self._model.config, "encoder"), options)
        self._options = options
        self._longest = min(_positions(self._model.config, "decoder") or UNLIMITED, options.max_new_tokens)
        name = _specific_name(task.name, self._model.config)
        specific = dict((getattr(self._model.config, "task_specific_params", None) or {}).get(name, {}))
        self._prefix = specific.pop("prefix", getattr(self._model.config, "prefix", None)) or ""
        self._defaults = _defaults(self._model.generation_config, specific, self._words.pad)
        family = "translation" if task.name.startswith("translation") else task.name
        self._key = KEYS[family]
        self._parameters = schemas.Translation if family == "translation" else schemas.Text2Text
        self._many_languages = family == "translation" and self._words.many_languages
        self._languages = self._usual_languages(task.name, name)
        self.task = self._with_example(task)
        self._processors = shared.Processors(self._model)
        self._engines = self._made_engines()
        self.steps = [Steps(engine, self._of_texts) for engine in self._engines]

    def items(self, data: Any) -> list[Item]:
        """An item for each text, encoded."""
        inputs, parameters = split(data)
        chosen = parse(self._parameters, parameters, self._options)
        generation = {**self._defaults, **chosen.model_dump(exclude=set(NOT_GENERATE), exclude_none=True)}
        texts = inputs if isinstance(inputs, list) else [inputs]
        return [
            self._item(string(text, place), place, chosen, generation)
            for text, place in zip(texts, places(inputs, texts), strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """For each item its generated texts, as the pipeline words them."""
        return shared.in_groups(items, self._generated, alone=self._alone)

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: of a list, each text's answer stands bare when it is the only one."""
        inputs, _ = split(data)
        if not isinstance(inputs, list):
            return results[0]
        return [each[0] for each in results] if all(len(each) == 1 for each in results) else list(results)

    def told(self, item: Item) -> Item:
        """The item; a search with beams that nobody asked for gives way to the likeliest token."""
        asked = item.parameters
        shared.check_told(beams=asked["beams"], texts=asked["generate"].get("num_return_sequences"))
        if item.stepwise:
            return item
        parameters = {**asked, "generate": {**asked["generate"], "num_beams": 1}}
        parameters["wanted"] = self._wanted(item.data["input_ids"], parameters)
        return replace(item, parameters=parameters, stepwise=bool(parameters["wanted"]))

    def events(self, item: Item) -> Events:
        """An item's tokens as events."""
        clean = item.parameters["clean_up_tokenization_spaces"]

        def decode(ids: Sequence[int]) -> str:
            return self._words.decode([ids], clean)[0]

        return Events(
            decode, frozenset(self._words.tokenizer.all_special_ids), shown=lambda text: text,
            text_of=lambda token: self._words.decode([[token]], False, skip_special=False)[0],
        )  # fmt: skip

    def _item(self, text: str, place: str, chosen: Any, generation: dict[str, Any]) -> Item:
        fits = cuts(chosen.truncation)
        if self._many_languages:
            source, target = self._asked_languages(chosen)
            encoded, cut = self._words.encode_for(text, source, target, cut=fits)
            generation = {**generation, "forced_bos_token_id": encoded.pop("forced_bos_token_id")}
        else:
            encoded, cut = self._words.encode(self._prefix + text, cut=fits)
        length = len(encoded["input_ids"])
        if not length:
            raise InvalidInput(f"{place} is empty, and this model's tokenizer adds nothing to it")
        if self._words.positions and length > self._words.positions:
            raise too_long(place, self._words.positions)
        generation = self._bounded(generation)
        parameters = {
            "generate": generation,
            "seed": chosen.seed,
            "beams": chosen.num_beams,
            "clean_up_tokenization_spaces": chosen.clean_up_tokenization_spaces,
            "place": place,
            "stops": shared.strings(chosen.stop),
            "details": chosen.details,
            "top": chosen.top_n_tokens,
        }
        parameters["wanted"] = self._wanted(encoded["input_ids"], parameters)
        key = shared.batch_key(self._model, generation), *parameters["stops"]
        return Item(encoded, parameters, key, length, place if cut else "", bool(parameters["wanted"]))

    def _wanted(self, source: list[int], parameters: Mapping[str, Any]) -> list[Wanted]:
        """What is asked of an engine; nothing where `generate()` is to make the texts."""
        generation = parameters["generate"]
        if not self._engines or not shared.is_stepwise(self._model, generation):
            return []
        most = generation.get("max_new_tokens") or generation["max_length"] - 1
        settled = {**generation, "max_new_tokens": most}
        settled.pop("max_length", None)
        start = seq2seq.beginning(self._model, generation.get("decoder_start_token_id"))
        stops = self._words.stopped(parameters["stops"])
        wanted = self._processors.wanted(
            settled, [start], parameters["seed"], source=source, stops=stops,
            details=parameters["details"], top=parameters["top"],
        )  # fmt: skip
        shared.check_room(self._engines[0], wanted, parameters["place"])
        return wanted

    def _bounded(self, generation: dict[str, Any]) -> dict[str, Any]:
        """With one of the two limits of length, within the decoder's positions, and no least length beyond it."""
        bounded = {name: value for name, value in generation.items() if name not in {"max_length", "max_new_tokens"}}
        tokens = generation["max_new_tokens"]
        if tokens is None:
            tokens = min(generation["max_length"] - 1, self._longest)
            bounded["max_length"] = tokens + 1
        else:
            tokens = min(tokens, self._longest)
            bounded["max_new_tokens"] = tokens
        for name, most in (("min_length", tokens + 1), ("min_new_tokens", tokens)):
            least = generation.get(name, getattr(self._model.generation_config, name))
            if least is not None and least > most:
                bounded[name] = most
        return bounded

    def _made_engines(self) -> list[Engine]:
        """What makes many texts side by side: one for each lane."""
        if not self.concurrent:
            return []
        rows = [self._words.encode(text, cut=True)[0]["input_ids"] for text in SAMPLES[:2]]
        return shared.engines(
            self._model, self._options, self._words.limit + self._longest, rows,
            make=seq2seq.engines, alone=lambda said: seq2seq.alone(self._model, rows, said),
        )  # fmt: skip

    def _of_texts(self, item: Item, texts: Sequence[Text]) -> Outcome:
        """The records of a text from which the engine made others."""
        return self._records(item, [text.ids for text in texts], ((told(text), text.made) for text in texts))

    def _records(self, item: Item, rows: Any, made: Iterable[tuple[Ended, Sequence[Token]]]) -> list[dict[str, Any]]:
        """The texts of rows of tokens, with how each was `made` where that was asked for."""
        clean = item.parameters["clean_up_tokenization_spaces"]
        records = [{self._key: text} for text in self._words.decode(rows, clean)]
        return detailed(records, made, item.parameters["details"], lambda: self.events(item))

    def _generated(self, items: Sequence[Item]) -> list[Outcome]:
        if len(items) > 1 and any(item.feed.tell for item in items):
            return [outcome for item in items for outcome in self._generated([item])]
        pads = {"input_ids": self._words.pad or 0, "attention_mask": 0}
        inputs = {name: shared.padded([item.data[name] for item in items], pad) for name, pad in pads.items()}
        asked = items[0].parameters
        ends = shared.ends_of(self._model, asked["generate"])
        more = shared.telling(items[0], ends) | shared.stopping(items, self._words.stopped(asked["stops"]))
        tokens = shared.generate(self._model, inputs, asked["generate"], asked["seed"], **more)

        def made(item: Item, row: list[int]) -> tuple[Ended, list[Token]]:
            ended = shared.ended(item, row[1:], ends)
            return ended, [Token(each) for each in row[1 : 1 + ended.tokens]]

        return [
            self._records(item, rows, (made(item, row) for row in rows.tolist()))
            for item, rows in zip(items, tokens, strict=True)
        ]

    def _usual_languages(self, asked: str, specific: str) -> tuple[str | None, str | None]:
        """The languages in the task's name, as asked for or as the model's files have it."""
        found = re.fullmatch("translation_(.+)_to_(.+)", specific)
        if not found or not self._many_languages:
            return None, None
        unknown = [language for language in found.groups() if not self._words.knows(language)]
        if unknown and asked == specific:
            raise LoadError(f"HF_TASK={asked}: {unknown[0]} is not a language of this model; {self._words.told}")
        return (None, None) if unknown else (found[1], found[2])

    def _asked_languages(self, chosen: Any) -> tuple[str, str]:
        source = self._language("src_lang", chosen.src_lang or self._languages[0])
        return source, self._language("tgt_lang", chosen.tgt_lang or self._languages[1])

    def _language(self, name: str, language: str | None) -> str:
        if language is None:
            raise InvalidInput(f"parameters.{name} is missing: this model knows many languages; {self._words.told}")
        if not self._words.knows(language):
            raise InvalidInput(f"parameters.{name}: {language!r} is not a language of it; {self._words.told}")
        return language

    def _with_example(self, task: Task) -> Task:
        """The task with an example that names languages, for a model that has to be told."""
        if not self._many_languages or self._languages[0] or not self._words.languages:
            return task
        language = self._words.languages[0]
        parameters = {**task.example.get("parameters", {}), "src_lang": language, "tgt_lang": language}
        return replace(task, example={**task.example, "parameters": parameters})


class _Words(shared.Words):
    """The words of many languages, if the model has such."""

    def __init__(self, model_dir: Path, positions: int | None, options: Options) -> None:
        super().__init__(load_tokenizer(model_dir, options))
        self.limit = min(self.tokenizer.model_max_length, positions or MOST_TOKENS)
        self.positions = positions
        self.many_languages = hasattr(self.tokenizer, "_build_translation_inputs")
        self.languages = _languages(self.tokenizer) if self.many_languages else []

    @property
    def told(self) -> str:
        """The languages, for an error."""
        more = ", …" if len(self.languages) > NAMED else ""
        return f"there are {', '.join(self.languages[:NAMED])}{more}"

    def knows(self, language: str) -> bool:
        """Whether the model has a token for the language."""
        return not self.languages or language.strip("_") in self.languages

    def encode(self, text: str, *, cut: bool) -> tuple[dict[str, Any], bool]:
        """The model's inputs for a text, and whether it was cut."""
        return self._fitted(lambda cutting: self.tokenizer(text, **cutting), cut)

    def encode_for(self, text: str, source: str, target: str, *, cut: bool) -> tuple[dict[str, Any], bool]:
        """The model's inputs for a text in one language, with the token that begins another; and whether it was cut."""

        def build(cutting: dict[str, Any]) -> Any:
            asked = {"return_tensors": None, "src_lang": source, "tgt_lang": target, **cutting}
            return self.tokenizer._build_translation_inputs(text, **asked)

        return self._fitted(build, cut)

    def _fitted(self, encode: Callable[[dict[str, Any]], Any], cut: bool) -> tuple[dict[str, Any], bool]:
        """What `encode` gives, and again with the tokenizer cutting where that is too long."""
        with self.turn:
            encoded = encode({"truncation": False})
            over = cut and len(encoded["input_ids"]) > self.limit
            if over:
                encoded = encode({"truncation": True, "max_length": self.limit})
        return _inputs(encoded), over


def _inputs(encoded: Any) -> dict[str, Any]:
    ids = list(encoded["input_ids"])
    inputs = {"input_ids": ids, "attention_mask": list(encoded.get("attention_mask") or [1] * len(ids))}
    return inputs | {name: encoded[name] for name in ("forced_bos_token_id",) if name in encoded}


def _languages(tokenizer: Any) -> list[str]:
    """Languages have tokens of their own, some between underscores, as nothing else has without brackets."""
    tokens = {*tokenizer.get_added_vocab(), *getattr(tokenizer, "lang_token_to_id", ())}
    return sorted(token.strip("_") for token in tokens if not token.startswith(("<", "[", "▁")))


def _positions(config: Any, half: str) -> int | None:
    """The most tokens that the encoder or the decoder has positions for, None when they have no end."""
    own = getattr(config, half, None)
    names = (f"max_{half}_position_embeddings", "max_position_embeddings")
    found = (getattr(place, name, None) for place in (config, own) for name in names)
    return next((int(count) for count in found if count), None)


def _specific_name(task: str, config: Any) -> str:
    """The task's name among the model's settings by task: translation is the first of its kind there."""
    names = getattr(config, "task_specific_params", None) or {}
    return next((name for name in names if name.startswith("translation")), task) if task == "translation" else task


def _defaults(generation: Any, specific: dict[str, Any], pad: int | None) -> dict[str, Any]:
    """What `generate()` is given when the request is silent, by the pipeline's rules.

    Its own defaults win over the model's, except that a length in the model's files takes the place of
    max_new_tokens; settings by task win over both. The model's own lengths are cleared, having been counted here.
    """
    usual: dict[str, Any] = {**USUAL}
    if generation.max_length not in {None, UNSET_LENGTH}:
        usual |= {"max_length": generation.max_length, "max_new_tokens": generation.max_new_tokens}
    generation.max_length = generation.max_new_tokens = None
    if generation.pad_token_id is None:
        generation.pad_token_id = pad
    return usual | {name: value for name, value in specific.items() if name in vars(generation)}
