"""The engine for models that write of pictures and sounds: LLaVA, SmolVLM, Gemma 3, Qwen2-VL to Qwen3-VL and more.

What such a model makes of a prompt, words and pictures alike, reaches the language model within it as one row of
vectors. A newcomer's are caught there, on its first pass, and read piece by piece like the tokens of any other prompt.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from hfserve.runtimes import device, generation
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.generation import Engine, Text, Wanted
from hfserve.settings import Options

MARKS, LAYERS = "visual_pos_masks", "deepstack_visual_embeds"
"""Qwen3-VL's names for which tokens are a picture's, and for what its first layers add to them."""

KNOWN = frozenset(
    [
        "attention_mask", "cache_position", "input_ids", "inputs_embeds", "position_ids", "use_cache",
        "logits_to_keep", "return_dict", MARKS, LAYERS,
    ]
)  # fmt: skip
"""What a language model may be given by the model around it; of anything else we do not know whose tokens it is for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A prompt as the language model gets it: `states` (tokens, width), `positions` (axes, tokens).

    `next` is the position of what follows: a picture takes fewer than it has tokens, where they have several axes.
    `marks` (tokens) says which are a picture's, and `layers` (such tokens, width) what is added to them layer by layer.
    """

    states: torch.Tensor
    positions: torch.Tensor
    next: int
    marks: torch.Tensor
    layers: Sequence[torch.Tensor] = ()

    def added(self, first: int, end: int) -> Sequence[torch.Tensor]:
        """What is added to those tokens from `first` to `end` that are a picture's."""
        before, within = int(self.marks[:first].sum()), int(self.marks[first:end].sum())
        return [each[before : before + within] for each in self.layers]


class _Caught(BaseException):
    """What the language model was given; it goes no further."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__("caught")
        self.given = given


_looking: ContextVar[bool] = ContextVar("looking", default=False)
_more: ContextVar[Mapping[str, Any] | None] = ContextVar("more", default=None)


class MultimodalEngine(Engine):
    """A language model with its pool, and what looks at pictures for it; one newcomer is looked at in a step."""

    def step(self) -> list[Text]:
        """One pass; the texts that have a new token, or whose pictures the model could not read."""
        new = next((text.wanted.given for text in self.running if not text.seen), None)
        if new is None:
            return super().step()
        alike = [text for text in self.running if text.wanted.given is new]
        try:
            seen = self._look(alike[0].wanted)
        except Exception as error:
            if device.broken(error):
                raise
            for text in alike:
                text.failure = error
                self.stop(text)
            return [*alike, *super().step()]
        for text in alike:
            text.seen = seen
        return super().step()

    def _sample(self, prompt: Any, steps: int) -> Wanted:
        given = prompt if isinstance(prompt, Mapping) else {"input_ids": torch.tensor([prompt])}
        return Wanted(given["input_ids"][0].tolist(), steps, given=given)

    def _chosen(self) -> list[tuple[Text, int]]:
        """Those that are being written first: each has one token, whose vector is looked up with the others'."""
        return sorted((each for each in super()._chosen() if each[0].seen), key=lambda each: _is_read(each[0]))

    def _forward(self, chosen: Sequence[tuple[Text, int]]) -> torch.Tensor:
        for text, _ in chosen:
            text.seen = text.seen or self._look(text.wanted)
        token = _more.set(_added(chosen))
        try:
            return super()._forward(chosen)
        finally:
            _more.reset(token)

    def _new(self, chosen: Sequence[tuple[Text, int]]) -> dict[str, torch.Tensor]:
        """The vectors of prompts and of the tokens that were drawn, and their positions."""
        writing = [text for text, _ in chosen if not _is_read(text)]
        drawn = self.model.get_input_embeddings()(self._numbers([text.ids[text.read] for text in writing]))
        after = self._numbers([text.seen.next + text.read - len(text.wanted.prompt) for text in writing])
        reading = [(text.seen, slice(text.read, text.read + count)) for text, count in chosen if _is_read(text)]
        axes = max(len(text.seen.positions) for text, _ in chosen)
        states = torch.cat([drawn, *(seen.states[part] for seen, part in reading)])
        at = torch.cat(
            [after.expand(axes, -1), *(seen.positions[:, part].expand(axes, -1) for seen, part in reading)], 1
        )
        return {"inputs_embeds": states[None], "position_ids": at[:, None] if axes > 1 else at}

    def _look(self, wanted: Wanted) -> Seen:
        """What stands for a prompt in the language model; raises NotImplementedError where that is not all of it."""
        place = self.model.device
        given = {name: each.to(place) if hasattr(each, "to") else each for name, each in wanted.given.items()}
        token = _looking.set(True)
        try:
            with torch.inference_mode(), runtime.memory_guard():
                self.model(**given, use_cache=False)
        except _Caught as caught:
            told = {name: each for name, each in caught.given.items() if each is not None and each is not False}
        else:
            raise NotImplementedError("the model has no language model within it")
        finally:
            _looking.reset(token)
        states, positions = told.get("inputs_embeds"), told.get("position_ids")
        if states is None or states.shape[:2] != (1, len(wanted.prompt)) or told.keys() - KNOWN:
            raise NotImplementedError("the language model reads more of a picture than its tokens")
        count = len(wanted.prompt)
        if positions is None:
            positions = torch.arange(count, device=place)[None]
        marks = told.get(MARKS, torch.zeros(count, dtype=torch.bool, device=place))
        following = int(positions.max()) + 1
        return Seen(states[0], positions.reshape(-1, count), following, marks.reshape(count), told.get(LAYERS, ()))


def engines(model: Any, options: Options, *, positions: int) -> list[Engine]:
    """As `generation.engines`, for a model with a language model within it."""
    language_model = model.get_decoder()
    if language_model in (model, model.base_model):
        raise NotImplementedError("the model has no language model within it")
    hook = language_model.register_forward_pre_hook(_met, with_kwargs=True)
    try:
        return generation.engines(model, options, positions=positions, kind=MultimodalEngine)
    except BaseException:
        hook.remove()
        raise


def alone(model: Any, prompts: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    """What `generate()` finds after each prompt by itself and after its likeliest token: (steps, vocabulary)."""
    found = []
    for prompt in prompts:
        given = {name: each.to(model.device) if hasattr(each, "to") else each for name, each in prompt.items()}
        with torch.inference_mode(), runtime.memory_guard():
            answer = model.generate(
                **given, max_new_tokens=2, do_sample=False, num_beams=1, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        found.append(torch.stack(answer.logits, 1)[0].float().cpu())
    return found


def _added(chosen: Sequence[tuple[Text, int]]) -> Mapping[str, Any] | None:
    """What the language model is given beside the vectors of a row, where it has pictures in it."""
    spans = [(text.seen, text.read, text.read + count) for text, count in chosen if _is_read(text)]
    layers = [seen.added(first, end) for seen, first, end in spans if seen.layers]
    if not any(len(each[0]) for each in layers):
        return None
    drawn = spans[0][0].marks.new_zeros(len(chosen) - len(spans))
    marks = torch.cat([drawn, *(seen.marks[first:end] for seen, first, end in spans)])
    return {MARKS: marks[None], LAYERS: [torch.cat(each) for each in zip(*layers, strict=True)]}


def _is_read(text: Text) -> bool:
    """Whether it is its prompt that is being read, a piece in each pass."""
    return text.read < len(text.wanted.prompt)


def _met(module: Any, arguments: Any, given: Mapping[str, Any]) -> Any:
    """Before the language model runs: catch what it is given, or add to it."""
    if _looking.get():
        raise _Caught(given)
    return (arguments, {**given, **more}) if (more := _more.get()) else None
