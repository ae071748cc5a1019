"""image-text-to-text and any-to-any: texts of pictures, sounds and words, told token by token.

Where the language model within the model allows it, texts are made side by side by the engine, from what transformers'
pipeline prepares of a request to what it makes of the tokens. Others, and searches with beams, go through the pipeline
one at a time.
"""

import copy
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from hfserve.errors import InvalidInput, first_line
from hfserve.messages import Item, Outcome
from hfserve.runtimes import multimodal
from hfserve.runtimes.generation import Engine, Text, Wanted
from hfserve.settings import Options
from hfserve.tasks import examples
from hfserve.tasks import generation as shared
from hfserve.tasks.answers import jsonable
from hfserve.tasks.base import Task
from hfserve.tasks.narration import Events, detailed
from hfserve.tasks.pipeline import PipelineRunner
from hfserve.tasks.requests import fields, parts
from hfserve.tasks.steps import Steps
from hfserve.tasks.steps import told as told_of

CONTEXT = 4
"""Tokens of a prompt that its text is read with: these pipelines read both together, and cut off what was sent."""
ABOUT_TEXTS = frozenset({"details", "top_n_tokens", "stop", "frequency_penalty", "presence_penalty"})
"""Parameters that the engine keeps, and a pipeline knows nothing of."""

WORDS = "It was not what I had hoped for."
_PICTURE, _SOUND = {"image": examples.png(), "text": WORDS}, {"audio": examples.wav(), "text": WORDS}

log = logging.getLogger(__name__)


class TellingPipelineRunner(PipelineRunner):
    """A pipeline that writes, and can tell its text while it does."""

    ours = PipelineRunner.ours | ABOUT_TEXTS

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        super().__init__(task, model_dir, options)
        self._options = options
        self._model = self.pipe.model
        self._tokenizer = self.pipe.tokenizer or self.pipe.processor.tokenizer
        self._words = shared.Words(self._tokenizer)
        self._limit = shared.positions(self._model.config)
        self._processors = shared.Processors(self._model)
        self._tried: frozenset[str] = frozenset()
        self._engines = self._made_engines()
        self.steps = [Steps(engine, self._of_texts) for engine in self._engines]
        if self._engines:
            self.chats = bool(getattr(self.pipe.processor, "chat_template", None))

    def items(self, data: Any) -> list[Item]:
        """An item for each input."""
        (whole,) = super().items(data)
        read, parameters = whole.data
        several = self._several(data)
        return [
            self._item(each, parameters, f"inputs[{i}]" if several else "inputs")
            for i, each in enumerate(read if several else [read])
        ]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """The answer to each input of a list, else to the one."""
        return list(results) if self._several(data) else results[0]

    def told(self, item: Item) -> Item:
        """The item, if it can be told."""
        asked = item.parameters["generate"]
        beams = shared.setting(self._model, asked, "num_beams", 1)
        shared.check_told(beams=beams, texts=shared.texts_of(self._model, asked))
        return item

    def events(self, item: Item) -> Events:
        """An item's tokens as events."""
        skip = item.parameters["generate"].get("skip_special_tokens") is not False
        return Events(
            lambda ids: self._words.decode([ids], None, skip_special=skip)[0],
            frozenset(self._tokenizer.all_special_ids), shown=lambda text: text,
            text_of=lambda token: self._words.decode([[token]], None, skip_special=False)[0],
            context=item.parameters["wanted"][0].prompt[-CONTEXT:] if item.stepwise else (),
        )  # fmt: skip

    def message(self, item: Item, text: str) -> dict[str, Any]:
        """Nothing beside the text."""
        return {}

    # Before the model

    def _several(self, data: Any) -> bool:
        inputs, _ = fields(*parts(data), self._form)
        return isinstance(inputs, list) and not self._form.one(inputs)

    def _item(self, read: Any, parameters: Mapping[str, Any], place: str) -> Item:
        asked = {**parameters, **parameters.get("generate_kwargs", {})}
        most = asked.get("max_new_tokens", self._model.generation_config.max_new_tokens)
        told = {**parameters, "generate": {**asked, "max_new_tokens": most}, "seed": parameters.get("seed")}
        item = Item((read, parameters), told, batch_key=object())
        if self._engines and asked.get("generation_mode", "text") == "text":
            with self._refusing(read, parameters):
                item = self._stepwise(item, place)
        if not item.stepwise and (asked_for := sorted(ABOUT_TEXTS & parameters.keys())):
            raise InvalidInput(f"parameters.{asked_for[0]}: not with this model, or not with a search; leave it out")
        return item

    def _stepwise(self, item: Item, place: str) -> Item:
        """The item with what is wanted of an engine, where a text can be made token by token."""
        read, own = item.data
        given, settled, after = self._prepared(read, own)
        shown, settled = given.pop("text"), dict(settled)
        stops = [*shared.strings(settled.pop("stop_strings", None)), *shared.strings(item.parameters.get("stop"))]
        settled.pop("tokenizer", None)
        if given.keys() - self._tried or not shared.is_stepwise(self._model, settled):
            return item
        ids = given["input_ids"][0].tolist()
        if len(ids) >= self._limit:
            raise InvalidInput(
                f"{place} has {len(ids)} tokens, what it shows included; the model takes {self._limit}: shorten it"
            )
        settled["max_new_tokens"] = min(self._most(settled, len(ids)), self._limit - len(ids))
        wanted = self._processors.wanted(
            {name: value for name, value in settled.items() if name != "max_length"}, ids, own.get("seed"),
            stops=self._words.stopped(stops), given=given,
            penalties=(own.get("frequency_penalty") or 0.0, own.get("presence_penalty") or 0.0),
            details=own.get("details"), top=own.get("top_n_tokens"),
        )  # fmt: skip
        shared.check_room(self._engines[0], wanted, place)
        parameters = {**item.parameters, "generate": {**item.parameters["generate"], **settled}}
        parameters |= {"wanted": wanted, "shown": shown, "after": after}
        return replace(item, parameters=parameters, cost=len(ids), stepwise=True)

    def _most(self, settled: Mapping[str, Any], prompt: int) -> int:
        """The most tokens to generate, as `generate()` counts them."""
        most = settled.get("max_new_tokens")
        if most is None:
            total = shared.setting(self._model, settled, "max_length", math.inf)
            if total <= prompt:
                raise InvalidInput(f"parameters.max_length: the prompt has {prompt} tokens already; send a larger one")
            most = total - prompt
        return int(min(most, self._options.max_new_tokens))

    def _prepared(self, read: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Any]:
        """What the pipeline gives the model, how it has it generate, and what it makes of the tokens then."""
        chosen = {name: value for name, value in own.items() if name not in self.ours}
        call = copy.deepcopy({name: value for name, value in read.items() if name == "return_full_text"} | chosen)
        text, media = read["text"], {name: read[name] for name in ("images", "audio") if name in read}
        shown: Any = {**media, "text": text} if media else text
        if isinstance(text, list):
            shown = sys.modules[type(self.pipe).__module__].Chat(text)
        before, forward, after = self.pipe._sanitize_parameters(**call)
        with self._words.turn:
            given = self.pipe.preprocess(shown, **{**self.pipe._preprocess_params, **before})
        settled = self.pipe._prepare_generate_kwargs(forward.get("generate_kwargs") or {})
        return dict(given), settled, {**self.pipe._postprocess_params, **after}

    # Side by side

    def _made_engines(self) -> list[Engine]:
        """What makes many texts side by side, if it says the same of pictures as the model does by itself."""
        if self._model.config.is_encoder_decoder or not self._model.can_generate():
            return []
        prompts = self._samples()
        if not prompts:
            return []
        self._tried = frozenset(name for given in prompts for name in given)
        return shared.engines(
            self._model, self._options, self._limit, prompts,
            make=multimodal.engines, alone=lambda _: multimodal.alone(self._model, prompts),
        )  # fmt: skip

    def _samples(self) -> list[dict[str, Any]]:
        """What the model is given of words, of a picture and of a sound: of those that it takes."""
        found = []
        for inputs in (_PICTURE, _SOUND, {"text": WORDS}):
            try:
                given, _, _ = self._prepared(self._form.read(self._marked(inputs), "inputs", self._loaded), {})
            except Exception as error:
                log.debug("not tried: %s", first_line(error))
                continue
            found.append({name: value for name, value in given.items() if name != "text"})
        return [given for given in found if "input_ids" in given]

    def _marked(self, inputs: Mapping[str, Any]) -> Any:
        """Inputs with a place for what goes with the text, where the model wants one."""
        kind = next((name for name in ("image", "audio") if name in inputs), "")
        if not kind:
            return inputs
        if getattr(self.pipe.processor, "chat_template", None):
            said = [{"type": kind, kind: inputs[kind]}, {"type": "text", "text": inputs["text"]}]
            return [{"role": "user", "content": said}]
        return {**inputs, "text": getattr(self.pipe.processor, f"{kind}_token", "") + inputs["text"]}

    def _of_texts(self, item: Item, texts: Sequence[Text]) -> Outcome:
        """What the pipeline makes of the tokens."""
        rows = [torch.tensor(text.ids) for text in texts]
        pad = shared.setting(self._model, item.parameters["generate"], "pad_token_id", 0)
        wanted: Wanted = texts[0].wanted
        outputs = {
            "generated_sequence": pad_sequence(rows, batch_first=True, padding_value=pad),
            "prompt_text": item.parameters["shown"], "input_ids": torch.tensor([wanted.prompt]),
        }  # fmt: skip
        with self._words.turn:
            records = jsonable(self.pipe.postprocess(outputs, **item.parameters["after"]))
        made = ((told_of(text), text.made) for text in texts)
        return detailed(records, made, item.parameters.get("details"), lambda: self.events(item))

    # One at a time

    def _told(self, item: Item) -> Mapping[str, Any]:
        ends = shared.ids_of(self._model.generation_config.eos_token_id)
        return shared.telling(item, ends, context=CONTEXT) | shared.stopping([item])
