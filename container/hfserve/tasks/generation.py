"""What tasks that generate text share: words in and out, who may share a pass, and the random numbers of a request."""

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import load_tokenizer
from hfserve.settings import Options

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

_numbers = threading.Lock()
"""Held by whoever draws from torch's random numbers, which the whole process shares."""


class Words:
    """The model's tokenizer, fast or slow, for one thread at a time: it changes with every length."""

    def __init__(self, model_dir: Path, options: Options) -> None:
        self.tokenizer = load_tokenizer(model_dir, options)
        self.turn = threading.Lock()
        self.pad: int | None = self.tokenizer.pad_token_id

    def decode(self, rows: Any, clean_up: bool | None, *, skip_special: bool = True) -> list[str]:
        """The texts of rows of tokens."""
        with self.turn:
            decode: Any = self.tokenizer.decode
            return [
                decode(row, skip_special_tokens=skip_special, clean_up_tokenization_spaces=clean_up) for row in rows
            ]


def samples(model: Any, generation: Mapping[str, Any]) -> bool:
    """Whether tokens are drawn: as asked, else as the model's files say."""
    return bool(generation.get("do_sample", model.generation_config.do_sample))


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
        reason = runtime.first_line(error).partition(": ")[2]
        return [InvalidInput(f"the parameters do not go together: {reason}") for _ in items]


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
