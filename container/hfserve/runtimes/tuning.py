"""The fastest way to run a model on this machine, found by trying when it loads.

Each way has to give the answers of the plain one; what differs is undone, and so is what is not faster. Only a
precision that was asked for may change the answers, and by how much is logged.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from hfserve.runtimes import onednn, packing
from hfserve.runtimes.torch import cast, forward

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Difference of a packed pass from a padded one at most, against outputs of size one."""

CLOSE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Difference of other linear layers at most, likewise: what rounding alone may make of them."""

SECONDS = 1.0
"""Seconds that timing one way may take."""

Answers = Callable[[], list[Any]]
Undo = Callable[[], None]


def tune(
    model: Any, examples: Sequence[dict[str, list[int]]], pad: dict[str, int], *, first_position: int,
    output: Callable[[Any], Any] = lambda answer: answer.logits, per_token: bool = False,
    only: int | None = None, dtype: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Pack the model, give it the precision `dtype`, change its linear layers, each where it holds.

    `examples` are sequences of several lengths. Give a model in float32: in another precision, packing cannot be told
    from rounding.
    """

    def answers() -> list[Any]:
        return forward(model, examples, pad, output=output, per_token=per_token, only=only)

    plain = answers()
    ways = {name: partial(pack, model, first_position) for name, pack in packing.WAYS.items()}
    packed = _first(ways, answers, plain, TOLERANCE)
    if dtype and dtype != model.dtype:
        cast(model, dtype)
        change = _most(answers(), plain)
        log.info("in %s, answers differ from float32's by up to %.1e", str(dtype).removeprefix("torch."), change)
    linear = _linears(model, answers)
    log.info("tuned", extra={"packed": packed or "no", "linear": linear, "dtype": str(model.dtype)})


def _linears(model: Any, answers: Answers) -> str:
    """Change the linear layers where oneDNN's are faster; which the model has now."""
    if model.device.type != "cpu" or model.dtype not in CLOSE or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "torch"
    plain, before = answers(), _seconds(answers)
    undo: list[Undo] = []
    ways = {
        "onednn, joined": lambda: _kept(undo, onednn.convert(model, answers)),
        "onednn": lambda: _kept(undo, onednn.convert(model)),
    }
    way = _first(ways, answers, plain, CLOSE[model.dtype])
    if way and (after := _seconds(answers)) > before:
        undo[-1]()
        log.debug("%s took %.4f s, torch's own layers %.4f s", way, after, before)
        way = None
    if way:
        onednn.let_go(model)
    return way or "torch"


def _first(ways: Mapping[str, Callable[[], Undo]], answers: Answers, plain: list[Any], most: float) -> str | None:
    """The first way under which the answers stay as they are; the others are undone."""
    return next((name for name, change in ways.items() if _try(name, change, answers, plain, most)), None)


def _try(name: str, change: Callable[[], Undo], answers: Answers, plain: list[Any], most: float) -> bool:
    """Make a change and keep it if the answers stay as they are."""
    undo = None
    try:
        undo = change()
        difference = _most(answers(), plain)
    except Exception as error:  # a model may refuse in any way; it is served as it was
        difference = float("inf")
        log.debug("%s is not for this model: %s", name, error)
    if difference <= most:
        return True
    log.info("%s is not for this model: its answers differ by %.1e", name, difference)
    if undo:
        undo()
    return False


def _most(new: list[Any], old: list[Any]) -> float:
    return max(_difference(*pair) for pair in zip(new, old, strict=True))


def _difference(new: Any, old: Any) -> float:
    if new.shape != old.shape:
        return float("inf")
    return float((new - old).abs().max() / max(1.0, float(old.abs().max())))


def _kept(place: list[Undo], undo: Undo) -> Undo:
    place.append(undo)
    return undo


def _seconds(run: Callable[[], Any]) -> float:
    """The best time of several runs, on one thread, as a lane runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = float("inf")
    end = time.monotonic() + SECONDS
    for _ in range(5):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
        if time.monotonic() > end:
            break
    torch.set_num_threads(threads)
    return best
