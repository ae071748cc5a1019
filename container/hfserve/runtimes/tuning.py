"""The fastest exact way to run a model on this machine, found by trying when it loads.

Each way has to give the answers of the plain one; what differs is undone, and so is what is not faster.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hfserve.runtimes import onednn, packing
from hfserve.runtimes.torch import forward

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Difference of a packed pass from a padded one at most, against outputs of size one."""

CLOSE = 1e-4
"""Difference of other linear layers at most, likewise."""

SECONDS = 1.0
"""Seconds that timing one way may take."""


def tune(
    model: Any, examples: Sequence[dict[str, list[int]]], pad: dict[str, int], *,
    first_position: int, output: Callable[[Any], Any] = lambda answer: answer.logits, per_token: bool = False,
) -> None:  # fmt: skip
    """Pack the model and change its linear layers where both hold; `examples` are sequences of several lengths."""

    def answers() -> list[Any]:
        return forward(model, examples, pad, output=output, per_token=per_token)

    plain = answers()
    packed = _try("packing", lambda: packing.pack(model, first_position), answers, plain, TOLERANCE)
    linear = False
    if model.device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        before = _seconds(answers)
        undo: list[Callable[[], None]] = []
        linear = _try("oneDNN", lambda: _kept(undo, onednn.convert(model)), answers, plain, CLOSE)
        if linear and (after := _seconds(answers)) > before:
            undo[0]()
            linear = False
            log.debug("oneDNN took %.4f s, torch's own layers %.4f s", after, before)
    if linear:
        onednn.let_go(model)
    log.info("tuned", extra={"packed": packed, "linear": "onednn" if linear else "torch"})


def _try(
    name: str, change: Callable[[], Callable[[], None]], answers: Callable[[], list[Any]], plain: list[Any], most: float
) -> bool:
    """Make a change and keep it if the answers stay as they are."""
    undo = None
    try:
        undo = change()
        differences = [_difference(new, old) for new, old in zip(answers(), plain, strict=True)]
    except Exception as error:  # a model may refuse in any way; it is served as it was
        differences = [float("inf")]
        log.debug("%s is not for this model: %s", name, error)
    if max(differences) <= most:
        return True
    log.info("%s is not for this model: its answers differ by %.1e", name, max(differences))
    if undo:
        undo()
    return False


def _difference(new: Any, old: Any) -> float:
    if new.shape != old.shape:
        return float("inf")
    return float((new - old).abs().max() / max(1.0, float(old.abs().max())))


def _kept(place: list[Callable[[], None]], undo: Callable[[], None]) -> Callable[[], None]:
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
