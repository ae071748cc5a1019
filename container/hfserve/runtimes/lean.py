"""Imports transformers without what serving on a CPU never asks of it: half of its time and 55 MiB.

It imports torch's compiler to mark functions for it, torch's training on many machines to recognise their tensors, and
scipy for a loss. While it is imported, something small stands in for each; whoever wants the real one later gets it.
"""

import contextlib
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

WANTED = ("modeling_utils", "modeling_layers", "generation.utils", "models.auto.modeling_auto")
"""Modules of transformers that nearly every model needs."""


def preload() -> None:
    """Import what models need of transformers; nothing when it has been imported already."""
    if "transformers.modeling_utils" in sys.modules:
        return
    stand_ins = {name: _stand_in(name, held) for name, held in STAND_INS.items() if name not in sys.modules}
    try:
        with _standing_in(stand_ins):
            for name in WANTED:
                importlib.import_module(f"transformers.{name}")
            _make_something()
    except (ImportError, AttributeError) as error:  # this transformers wants more: it is imported as usual
        log.debug("transformers is imported whole: %s", error)
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]


def _make_something() -> None:
    """The first layer that is made without memory, as models are before they are loaded, asks for the compiler too."""
    import torch

    torch.nn.Embedding(1, 1, device="meta")


@contextlib.contextmanager
def _standing_in(modules: dict[str, ModuleType]) -> Iterator[None]:
    import torch.distributed

    real = torch.distributed.is_available
    sys.modules.update(modules)
    torch.distributed.is_available = lambda: False  # transformers asks once, and keeps the answer
    try:
        yield
    finally:
        torch.distributed.is_available = real
        for name in modules:
            del sys.modules[name]


def _stand_in(name: str, held: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(held)
    return module


def _unmarked(function: Any = None, *options: Any, **more: Any) -> Any:
    """What stands in for a decorator, with its options or without."""
    return _unmarked if function is None else function


def _later(module: str, name: str) -> Callable[..., Any]:
    """A function that is imported when it is first called."""

    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **options)

    return call


_ITEMS = "torch._dynamo._trace_wrapped_higher_order_op"

STAND_INS: dict[str, dict[str, Any]] = {
    "torch._dynamo": dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _unmarked),
    _ITEMS: {"TransformGetItemToIndex": _later(_ITEMS, "TransformGetItemToIndex")},
    "scipy.optimize": {"linear_sum_assignment": _later("scipy.optimize", "linear_sum_assignment")},
}
