"""Linear layers with weights laid out for oneDNN, on CPU: the same numbers, sooner where torch would use MKL.

Layers that read the same rows (queries, keys and values) become one, and an activation is computed by the layer before
it. Which layers those are is not looked up by name: a pass over an example shows what reads what. The operators are
torch's own yet private, so that torch is pinned, and `convert` is undone when they fail or differ.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

LEAST_WEIGHTS = 64 * 64
DTYPES = (torch.float32, torch.bfloat16)

Activation = tuple[str, str | None]
"""An activation as oneDNN names it, with its variant."""

NONE: Activation = ("none", None)

Undo = Callable[[], None]

Place = tuple[nn.Module, str]
"""A module of a model: its parent, and its name there."""


class OneDnnLinear(nn.Module):
    """A linear layer whose weight, (out, in), lies in oneDNN's blocked form; an activation may follow."""

    def __init__(self, linears: Sequence[nn.Linear], activation: Activation = NONE) -> None:
        super().__init__()
        weight = torch.cat([linear.weight.detach() for linear in linears])
        self.in_features = linears[0].in_features
        self.out_features = len(weight)
        self.bias = None if linears[0].bias is None else torch.cat([linear.bias.detach() for linear in linears])
        self.activation = activation
        self.blocked = torch.ops.mkldnn._reorder_linear_weight(weight, 256)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out)."""
        name, variant = self.activation
        answer: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.blocked, self.bias, name, [], variant)
        return answer


class Part(nn.Module):
    """One of several layers that read the same rows: the first that is called computes for all, the last forgets."""

    def __init__(self, shared: "Shared", number: int) -> None:
        super().__init__()
        self.shared = shared
        self.number = number

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out)."""
        return self.shared.part(self.number, rows)


class Shared(nn.Module):
    """The layers of several parts as one; every lane has its own rows in hand."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.linear = OneDnnLinear(linears)
        self.widths = [linear.out_features for linear in linears]
        self._hand = threading.local()

    def part(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        """What layer `number` makes of the rows."""
        if getattr(self._hand, "rows", None) is not rows:
            self._hand.rows, self._hand.parts = rows, self.linear(rows).split(self.widths, dim=-1)
        part: torch.Tensor = self._hand.parts[number]
        if number == len(self.widths) - 1:
            self._hand.rows = self._hand.parts = None
        return part


@dataclass
class _Seen:
    """What a pass showed: what each layer and activation read and wrote, call by call."""

    read: dict[nn.Module, list[Any]] = field(default_factory=lambda: defaultdict(list))
    wrote: dict[nn.Module, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def note(self, module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
        """Tensors are kept until all has been understood, so that no two ever have one identity."""
        self.read[module].append(given[0])
        self.wrote[module].append(answer)


def convert(model: Any, run: Callable[[], Any] | None = None) -> Undo:
    """Replace the linear layers of a model on CPU, joined where `run`, a pass, shows how; what undoes it."""
    places = {
        child: (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if _is_linear(child) or _activation(child) != NONE
    }
    seen = _watched(places, run) if run else _Seen()
    new: dict[nn.Module, nn.Module] = {
        child: OneDnnLinear([child]) for child in places if isinstance(child, nn.Linear) and child not in seen.read
    }
    activated = _activated(seen)
    for linear, activation in activated.items():
        new |= {linear: OneDnnLinear([linear], _activation(activation)), activation: nn.Identity()}
    for linears in _siblings(seen, places):
        free = [linear for linear in linears if linear not in activated]
        shared = Shared(free) if len(free) > 1 else None
        new |= {linear: Part(shared, i) if shared else OneDnnLinear([linear]) for i, linear in enumerate(free)}
    for child, module in new.items():
        _put(places[child], module)

    def undo() -> None:
        for child in new:
            _put(places[child], child)

    return undo


def _watched(places: Mapping[nn.Module, Place], run: Callable[[], Any]) -> _Seen:
    seen = _Seen()
    hooks = [child.register_forward_hook(seen.note) for child in places]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _activated(seen: _Seen) -> dict[nn.Linear, nn.Module]:
    """Each layer whose every output an activation reads, that reads nothing else, with that activation."""
    writers = {_ids(seen.wrote[module]): module for module in seen.wrote if isinstance(module, nn.Linear)}
    return {
        writers[_ids(read)]: module
        for module, read in seen.read.items()
        if not isinstance(module, nn.Linear) and _ids(read) in writers
    }


def _siblings(seen: _Seen, places: Mapping[nn.Module, Place]) -> list[list[nn.Linear]]:
    """Layers of one module that always read the same rows."""
    found: dict[Any, list[nn.Linear]] = defaultdict(list)
    for module, read in seen.read.items():
        if isinstance(module, nn.Linear):
            found[places[module][0], _ids(read), module.bias is None].append(module)
    return list(found.values())


def _ids(tensors: Sequence[Any]) -> tuple[int, ...]:
    return tuple(map(id, tensors))


def let_go(model: Any) -> None:
    """Copy what is left of the model's file out of its memory map, so that the pages of what was replaced are freed."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def _is_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.weight.dtype in DTYPES and module.weight.numel() >= LEAST_WEIGHTS


def _activation(module: nn.Module) -> Activation:
    """The activation as oneDNN computes it, or none."""
    from transformers import activations

    if isinstance(module, nn.GELU):
        return "gelu", module.approximate
    if isinstance(module, activations.GELUActivation):
        return ("gelu", "none") if module.act is nn.functional.gelu else NONE
    return NONE


def _put(place: Place, module: nn.Module) -> None:
    setattr(*place, module)
