"""What tasks that generate text share: words in and out, who may share a pass, and the random numbers of a request."""

import contextlib
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hfserve.errors import InvalidInput, first_line
from hfserve.messages import Item, Outcome
from hfserve.runtimes import generation as side_by_side
from hfserve.runtimes import torch as runtime
from hfserve.runtimes import tuning
from hfserve.runtimes.generation import EOS, LENGTH, STOP, Engine, Token, Wanted, rowwise
from hfserve.runtimes.tokenizing import UNLIMITED
from hfserve.settings import Options
from hfserve.tasks.steps import Ended, Piece, unfit

log = logging.getLogger(__name__)

MOST_PADDING = 2.0
"""As runtimes.torch has it, but higher: a step of the decoder costs more than padding in the prompts."""
ALONE = frozenset(
    ["bigbird_pegasus", "led", "longt5", "nllb-moe", "recurrent_gemma", "reformer", "switch_transformers"]
)
"""Families in which what stands beside an input, or pads it, changes its answer: windows, blocks, experts, states.

The experts' code is also switched while `generate()` runs, and states are kept, which two threads cannot both do.
"""
OURS = frozenset({"seed", "clean_up_tokenization_spaces"})
"""Parameters of `schemas.generation.Generation` that are not for `generate()`."""

ONLY_GENERATE = (
    "penalty_alpha", "dola_layers", "guidance_scale", "assistant_early_exit", "prompt_lookup_num_tokens",
    "prefix_allowed_tokens_fn", "watermarking_config", "constraints", "force_words_ids", "custom_generate",
)  # fmt: skip
"""Settings of a model's files that ask for a way of generating that only `generate()` knows."""

TOLERANCE = {"float32": 1e-3}
ROUGH = 0.05
"""How far logits may move in company, as a share of the largest; in half precision everything moves them."""

EDGE = 8
"""Tokens read beside a stop string's own: tokenizers drop spaces at the edge of a text."""

GREEDY = "greedy"
"""The key of all who take the likeliest token, whatever else they ask for."""

MOST_KNOWN = 256
"""Sets of processors that are kept for the next request that asks for the same."""

STRETCHED = frozenset({"dynamic", "linear"})
"""Position embeddings whose model takes more than its configuration says, by their factor."""
POSITIONS = ("max_position_embeddings", "max_seq_len")

_numbers = threading.Lock()
"""Held by whoever draws from torch's random numbers, which the whole process shares."""


class Words:
    """The model's tokenizer, fast or slow, for one thread at a time: it changes with every length."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.turn = threading.Lock()
        self.pad: int | None = self.tokenizer.pad_token_id

    def decode(self, rows: Any, clean_up: bool | None, *, skip_special: bool = True) -> list[str]:
        """The texts of rows of tokens."""
        with self.turn:
            decode: Any = self.tokenizer.decode
            return [
                decode(row, skip_special_tokens=skip_special, clean_up_tokenization_spaces=clean_up) for row in rows
            ]

    def stopped(self, stops: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
        """Whether the last token ended a text at a string; transformers' own way takes seconds with many words."""
        if not stops:
            return None
        longest = max(len(stop.encode()) for stop in stops) + EDGE

        def stopped(ids: Sequence[int]) -> bool:
            tail = ids[-longest:]
            text, before = self.decode([tail, tail[:-1]], False, skip_special=False)
            return _ends(text, before, stops)

        return stopped


def ropes(config: Any) -> list[dict[str, Any]]:
    """The rotary position embeddings of a model: one, or one for each kind of layer."""
    told = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    return [each for each in (told, *told.values()) if isinstance(each, dict) and "rope_type" in each]


def positions(config: Any) -> int:
    """The most tokens that the model has positions for."""
    told = [getattr(config.get_text_config(decoder=True), name, None) for name in POSITIONS]
    factors = [each.get("factor") or 1.0 for each in ropes(config) if each["rope_type"] in STRETCHED]
    return next((int(count * max(factors, default=1.0)) for count in told if count and count > 0), UNLIMITED)


def strings(told: str | Sequence[str] | None) -> Sequence[str]:
    """The strings of a setting that has one, several or none."""
    return [told] if isinstance(told, str) else told or []


def _ends(text: str, before: str, stops: Sequence[str]) -> bool:
    """Whether a string ends in what the last token added; half a character stood as � before it."""
    there = len(before.rstrip("�"))
    return any(text.find(stop, max(there - len(stop) + 1, 0)) >= 0 for stop in stops)


def ids_of(told: int | Sequence[int] | None) -> frozenset[int]:
    """The ids of a setting that has one, several or none."""
    return frozenset([told] if isinstance(told, int) else told or ())


def samples(model: Any, generation: Mapping[str, Any]) -> bool:
    """Whether tokens are drawn: as asked, else as the model's files say."""
    return bool(generation.get("do_sample", model.generation_config.do_sample))


def setting(model: Any, generation: Mapping[str, Any], name: str, usual: Any = None) -> Any:
    """What was asked for, else what the model's files say."""
    value = generation.get(name, getattr(model.generation_config, name, None))
    return usual if value is None else value


def texts_of(model: Any, generation: Mapping[str, Any]) -> int:
    """How many texts are asked for of one input."""
    return int(setting(model, generation, "num_return_sequences", 1))


def ends_of(model: Any, generation: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end a text."""
    return ids_of(setting(model, generation, "eos_token_id"))


def is_stepwise(model: Any, generation: Mapping[str, Any]) -> bool:
    """Whether a text can be made token by token: there is no search, and nothing that only `generate()` does."""
    searched = setting(model, generation, "num_beams", 1) > 1
    if searched or any(setting(model, generation, name) for name in ONLY_GENERATE):
        return False
    return samples(model, generation) or texts_of(model, generation) == 1


def engines(
    model: Any, options: Options, positions: int, rows: Sequence[Any], *,
    make: Callable[..., list[Engine]], alone: Callable[[list[torch.Tensor]], list[torch.Tensor]],
) -> list[Engine]:  # fmt: skip
    """What makes many texts side by side, if it says what the model says by itself: one for each lane.

    `alone` gives the model's own logits for those that an engine gave after `rows`.
    """
    try:
        made = make(model, options, positions=positions)
        together = made[0].logits(rows)
        apart = alone(together)
    except Exception as error:
        log.info("texts are made in batches, not side by side: %s", first_line(error))
        return []
    if not alike(model, apart, together):
        log.info("texts are made in batches: side by side this model would say something else")
        side_by_side.release(model)
        return []
    if options.runtime == "auto":
        first = made[0]
        crowd = [rows[0]] * (side_by_side.TRIED if first.tokens >= side_by_side.TRIED * positions else 1)
        tuning.quicken(model, lambda: first.logits(rows), lambda: first.logits(crowd, steps=3))
    return made


def alike(model: Any, apart: Sequence[torch.Tensor], together: Sequence[torch.Tensor]) -> bool:
    """Whether logits after the same tokens, (steps, vocabulary) for each prompt, are the same."""
    tolerance = TOLERANCE.get(str(model.dtype).removeprefix("torch."), ROUGH)
    return all(
        bool((one - other[: len(one)]).abs().max() <= tolerance * one.abs().max())
        for one, other in zip(apart, together, strict=True)
    )


def check_room(engine: Engine, wanted: Sequence[Wanted], place: str) -> None:
    """Refuse at once what could never run."""
    if not engine.fits(wanted):
        raise InvalidInput(
            f"{place}: {len(wanted)} text{'s' * (len(wanted) > 1)} of up to {wanted[0].tokens} tokens, prompt "
            f"included, are more than this server has memory for ({engine.tokens} tokens; "
            "HFSERVE_KV_CACHE_MB); ask for fewer"
        )


def batch_key(model: Any, generation: Mapping[str, Any]) -> Hashable:
    """Those who sample take turns with the random numbers; others share a pass when they ask for the same."""
    if samples(model, generation):
        return object()
    return tuple((name, repr(value)) for name, value in sorted(generation.items()))


def in_groups(
    items: Sequence[Item], generated: Callable[[Sequence[Item]], list[Outcome]], *, alone: bool = False
) -> list[Outcome]:
    """The outcomes of items, generated for a few of equal parameters and like length at a time."""
    outcomes: list[Outcome] = [None] * len(items)
    for group in _groups(items, alone):
        for i, outcome in zip(group, _outcomes([items[i] for i in group], generated), strict=True):
            outcomes[i] = outcome
    return outcomes


def _groups(items: Sequence[Item], alone: bool) -> Iterator[list[int]]:
    """Places of items that share a pass; the items of one request may have different keys."""
    places: dict[Hashable, list[int]] = {}
    for i, item in enumerate(items):
        places.setdefault(i if alone else item.batch_key, []).append(i)
    for same in places.values():
        for group in runtime.groups([items[i].cost for i in same], MOST_PADDING):
            yield [same[i] for i in group]


def _outcomes(items: Sequence[Item], generated: Callable[[Sequence[Item]], list[Outcome]]) -> list[Outcome]:
    try:
        return generated(items)
    except ValueError as error:
        return [unfit(error) for _ in items]


def padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool = False) -> torch.Tensor:
    """Rows of numbers, filled up to the longest."""
    longest = max(len(row) for row in rows)
    fills = [[pad] * (longest - len(row)) for row in rows]
    return torch.tensor([[*fill, *row] if left else [*row, *fill] for row, fill in zip(rows, fills, strict=True)])


def generate(
    model: Any, inputs: Mapping[str, torch.Tensor], generation: Mapping[str, Any], seed: int | None, **more: Any
) -> torch.Tensor:
    """What `generate()` makes of inputs, of shape (inputs, sequences of each, tokens)."""
    there = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    count = len(next(iter(there.values())))
    with torch.inference_mode(), runtime.memory_guard(), _randomness(model, generation, seed):
        tokens: torch.Tensor = model.generate(**there, **generation, **more).cpu()
    return tokens.reshape(count, -1, tokens.shape[-1])


class Penalties:
    """OpenAI's: a token that the text has is less likely by `presence`, and by `frequency` for each time it has it."""

    def __init__(self, start: int, frequency: float, presence: float) -> None:
        self._start = start
        self._frequency = frequency
        self._presence = presence

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) after the tokens of the rows, whose texts begin at `start`."""
        made = ids[:, self._start :]
        counts = torch.zeros_like(scores).scatter_add_(1, made, torch.ones_like(made, dtype=scores.dtype))
        return scores - self._frequency * counts - self._presence * (counts > 0)


class Processors:
    """What changes scores before a token is chosen, as `generate()` would make it of the same settings."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._known: OrderedDict[Hashable, tuple[Any, Hashable]] = OrderedDict()
        self._turn = threading.Lock()

    def wanted(
        self, generation: Mapping[str, Any], prompt: Sequence[int], seed: int | None, *, source: Sequence[int] = (),
        stops: Callable[[Sequence[int]], bool] | None = None, details: bool | str | None = None, top: int | None = None,
        given: Mapping[str, Any] | None = None, penalties: tuple[float, float] = (0.0, 0.0),
    ) -> list[Wanted]:  # fmt: skip
        """What is asked of an engine, for each text of a prompt; raises InvalidInput."""
        processors, key = self.of(generation, prompt, source)
        if any(penalties):
            processors, key = _in_turn(Penalties(len(prompt), *penalties), processors), None
        one = Wanted(
            prompt, generation["max_new_tokens"], ends_of(self._model, generation), processors, key,
            sample=samples(self._model, generation), stops=stops, source=source,
            logprobs=(top or 0) if details is True or top else None,
            given=given or {},
        )  # fmt: skip
        count = texts_of(self._model, generation)
        return [replace(one, seed=None if seed is None else seed + i) for i in range(count)]

    def of(
        self, generation: Mapping[str, Any], prompt: Sequence[int], source: Sequence[int] = ()
    ) -> tuple[Any, Hashable]:
        """The processors, and a key where texts of equal keys can be processed together; raises InvalidInput."""
        key = tuple((name, repr(value)) for name, value in sorted(generation.items()) if name != "max_new_tokens")
        with self._turn:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = self._made(generation, prompt, source or prompt)
        if not rowwise(made):
            return made, None
        shared = key if made or samples(self._model, generation) else GREEDY
        with self._turn:
            self._known[key] = made, shared
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return made, shared

    def _made(self, generation: Mapping[str, Any], prompt: Sequence[int], read: Sequence[int]) -> Any:
        model, given = self._model, torch.tensor([read], device=self._model.device)
        try:
            config, _ = model._prepare_generation_config(None, **generation)
            config.max_length = len(prompt) + generation["max_new_tokens"]
            model._prepare_special_tokens(config, device=model.device)
            return model._get_logits_processor(
                config, input_ids_seq_length=len(prompt), encoder_input_ids=given, device=model.device
            )
        except ValueError as error:
            raise unfit(error) from error


def _in_turn(first: Any, others: Any) -> Any:
    """Processors as one."""
    from transformers import LogitsProcessorList

    make: Any = LogitsProcessorList
    return make([first, *others])


def penalizing(start: int, penalties: tuple[float, float]) -> dict[str, Any]:
    """What `generate()` is given for OpenAI's penalties; nothing without."""
    return {"logits_processor": _in_turn(Penalties(start, *penalties), ())} if any(penalties) else {}


class _Teller:
    """Hands tokens to an item's feed as `generate()` makes them, one later, for the last says how the text ended."""

    def __init__(self, item: Item, ends: frozenset[int], context: int) -> None:
        self._item = item
        self._ends = ends
        self._most = context
        self._context: Sequence[int] = ()
        self._began = time.monotonic()
        self._first = 0.0
        self._prompt: int | None = None
        self._made: list[int] = []

    def put(self, tokens: torch.Tensor) -> None:
        """The prompt, then every token."""
        if self._prompt is None:
            self._prompt = tokens.numel()
            self._context = tokens.flatten().tolist()[-self._most :] if self._most else ()
            return
        for token in tokens.flatten().tolist():
            if self._made:
                self._tell(Piece(Token(self._made[-1])))
            self._made.append(token)
            self._first = self._first or time.monotonic() - self._began

    def end(self) -> None:
        """The last one."""
        if self._made:
            how = ended(self._item, self._made, self._ends)
            prompt = max(how.prompt, self._prompt or 0)  # of an encoder's model it is where the decoder begins
            how = replace(how, prompt=prompt, first_s=self._first, total_s=time.monotonic() - self._began)
            self._tell(Piece(Token(self._made[-1]), how))

    def _tell(self, piece: Piece) -> None:
        if self._item.feed.tell:
            self._item.feed.tell(replace(piece, context=self._context))
        self._context = ()


def ended(item: Item, made: Sequence[int], ends: frozenset[int]) -> Ended:
    """How a text ended that `generate()` made, by its tokens: behind the one that ends it is filling."""
    asked = item.parameters["generate"]
    most = asked.get("max_new_tokens") or asked.get("max_length", math.inf) - 1
    place = next((i for i, token in enumerate(made) if token in ends), None)
    count = len(made) if place is None else place + 1
    finish = EOS if place is not None else LENGTH if count >= most else STOP
    return Ended(finish, count, item.cost, item.parameters["seed"])


def check_told(*, beams: int | None, texts: int | None) -> None:
    """Raise InvalidInput for what cannot be told while it is made."""
    if (beams or 1) > 1:
        raise InvalidInput("a search with beams has no text before its end; leave out num_beams, or stream")
    if (texts or 1) > 1:
        raise InvalidInput("parameters.num_return_sequences: a stream is of one text")


def telling(item: Item, ends: frozenset[int], *, context: int = 0) -> dict[str, Any]:
    """What `generate()` is given to tell of an item's text while it makes it; nothing when nobody listens.

    With the first piece go so many tokens of the prompt at most.
    """
    return {"streamer": _Teller(item, ends, context)} if item.feed.tell else {}


def stopping(items: Sequence[Item], stopped: Callable[[Sequence[int]], bool] | None = None) -> dict[str, Any]:
    """What ends a text before its time: a string in it, or that nobody waits for it any more."""
    from transformers import StoppingCriteriaList

    def ended(rows: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        gone = all(item.feed.gone for item in items)
        found = [gone or bool(stopped and stopped(row)) for row in (rows.tolist() if stopped else [()] * len(rows))]
        return torch.tensor(found, device=rows.device)

    criteria: Any = StoppingCriteriaList
    return {"stopping_criteria": criteria([ended])}


@contextlib.contextmanager
def _randomness(model: Any, generation: Mapping[str, Any], seed: int | None) -> Iterator[None]:
    """Whoever samples has torch's random numbers to itself."""
    with seeded(model.device, seed) if samples(model, generation) else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def seeded(device: torch.device, seed: int | None) -> Iterator[None]:
    """Have torch's random numbers to oneself; whoever brings a seed leaves them as they were."""
    devices = [device] if device.type == "cuda" else []
    with _numbers, torch.random.fork_rng(devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield
