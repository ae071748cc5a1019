"""The fastest way to run a model on this machine, found by trying when it loads.

Each way has to give the answers of the plain one; what differs is undone, and so is what is not faster. Only a
precision that was asked for may change the answers, and by how much is logged. What was found is remembered for the
next worker.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from hfserve.errors import LoadError, first_line
from hfserve.runtimes import attention, device, onednn, openvino, packing
from hfserve.runtimes.device import threads
from hfserve.runtimes.memo import Memo
from hfserve.runtimes.torch import cast

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Difference of a packed pass from a padded one at most, against outputs of size one."""

CLOSE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Difference of other layers at most, likewise: what rounding alone may make of them."""

PATIENCE = 5.0
"""Seconds that timing the plain model may take; one that takes longer is left as it is."""

SECONDS, RUNS = 0.5, 40
"""Seconds for which a way is timed, in at least one pass, and passes after which the quickest is known."""

ONEDNN = ("onednn, joined", "onednn")

Examples = Sequence[dict[str, list[int]]]
Run = Callable[[Examples], list[Any]]
"""What a model says of each sequence."""

Undo = Callable[[], None]
Ways = Mapping[str, Callable[[], Undo]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model is to run on: a runtime, a precision, and for int8 the sequences to calibrate it on."""

    runtime: Literal["auto", "torch", "openvino"] = "auto"
    dtype: torch.dtype = torch.float32
    calibration: Examples | None = None


@dataclass(slots=True)
class Tuning:
    """What was found: how a model is packed, what its layers and attention run on, and the seconds of each pass."""

    packed: str | None = None
    layers: str = "torch"
    attention: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def tune(
    model: Any, run: Run, examples: Examples, *, first_position: int,
    wanted: Wanted | None = None, memo: Memo | None = None,
) -> None:  # fmt: skip
    """Pack a model, give it its precision and other layers, each where it holds for the examples.

    Give a model in float32: in another precision, packing cannot be told from rounding. `examples` are of several
    lengths. Raises LoadError when OpenVINO is asked for and cannot run the model.
    """
    tuner = _Tuner(model, run, examples, first_position, wanted or Wanted(dtype=model.dtype), memo)
    note = memo.recall() if memo else None
    with threads(device.cores()):
        found = tuner.again(Tuning(**note)) if note else tuner.find()
    if memo and not note:
        memo.keep(asdict(found))
    precision = "int8" if tuner.wanted.calibration else str(tuner.wanted.dtype).removeprefix("torch.")
    log.info("tuned", extra={**asdict(found), "packed": found.packed or "no", "dtype": precision, "known": bool(note)})


def quicken(model: Any, answers: Callable[[], list[Any]], step: Callable[[], Any]) -> None:
    """Give a decoder on CPU oneDNN's layers where `answers` stay as they are and a `step`, on a thread, is quicker.

    A model so large that its layers could not stand beside the new ones is left as it is.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    able = model.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not able or weights > device.free_memory():
        return
    with threads(1):
        plain, began = answers(), time.monotonic()
        seconds = {"torch": _best(step)}
        if time.monotonic() - began > PATIENCE:
            return
        undo: Undo = onednn.convert(model, step)
        try:
            same = _most(answers(), plain) <= CLOSE[model.dtype]
            seconds["onednn"] = _best(step)
        except Exception as error:  # private operators may refuse in any way
            log.debug("oneDNN is not for this model: %s", error)
            same = False
        if same and seconds["onednn"] < seconds["torch"]:
            onednn.let_go(model)
            log.info("tuned", extra={"layers": "onednn", "seconds": seconds})
        else:
            undo()
            log.info("tuned", extra={"layers": "torch", "seconds": seconds})


class _Tuner:
    def __init__(
        self, model: Any, run: Run, examples: Examples, first_position: int, wanted: Wanted, memo: Memo | None
    ) -> None:
        self.model = model
        self.wanted = wanted
        self._run = run
        self._examples = examples
        self._short = sorted(examples, key=lambda each: len(each["input_ids"]))[:-1] or examples
        self._memo = memo
        self._packings: Ways = {name: partial(way, model, first_position) for name, way in packing.WAYS.items()}
        self._layers: Ways = {
            "onednn, joined": partial(onednn.convert, model, partial(run, self._short[:1])),
            "onednn": partial(onednn.convert, model), "openvino": self._openvino,
        }  # fmt: skip

    def find(self) -> Tuning:
        """Try everything."""
        plain = self._answers()
        packed, _ = self._first(self._packings, plain, TOLERANCE)
        found = Tuning(packed)
        if self.wanted.runtime == "openvino":
            found.layers = self._openvino_or_fail(plain)
        else:
            plain = self._cast(plain)
            found.attention, _ = self._first(attention.ways(self.model), plain, CLOSE[self.model.dtype])
            found.layers = self._fastest(plain, found.seconds)
        self._let_go(found.layers)
        return found

    def again(self, found: Tuning) -> Tuning:
        """Do what was found before, unchecked: model, machine and versions are the same."""
        if found.packed:
            self._packings[found.packed]()
        if self.wanted.runtime != "openvino":
            cast(self.model, self.wanted.dtype)
        if found.attention:
            attention.ways(self.model)[found.attention]()
        self._put_in(found.layers)
        self._let_go(found.layers)
        return found

    def _answers(self) -> list[Any]:
        return self._run(self._examples)

    def _cast(self, plain: list[Any]) -> list[Any]:
        """Give the model its precision; its answers in that."""
        if self.wanted.dtype == self.model.dtype:
            return plain
        cast(self.model, self.wanted.dtype)
        answers = self._answers()
        _tell_change(str(self.wanted.dtype).removeprefix("torch."), answers, plain)
        return answers

    def _fastest(self, plain: list[Any], seconds: dict[str, float]) -> str:
        """Put in the layers that take the least time; which those are. `seconds` is filled in."""
        if self.model.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return "torch"
        began = time.monotonic()
        seconds["torch"] = self._seconds()
        if time.monotonic() - began > PATIENCE:
            return "torch"
        held, undo = self._first({name: self._layers[name] for name in ONEDNN}, plain, CLOSE[self.model.dtype])
        if not held:
            return "torch"
        seconds[held] = self._seconds()
        if seconds[held] <= seconds["torch"]:
            return held
        undo()
        return "torch"

    def _put_in(self, layers: str) -> None:
        if layers != "torch":
            self._layers[layers]()

    def _openvino_or_fail(self, plain: list[Any]) -> str:
        try:
            asked = self.wanted.calibration or self._examples
            before = self._run(asked) if self.wanted.calibration else plain
            self._put_in("openvino")
            after = self._run(asked)
        except ImportError as error:
            raise LoadError(f"HFSERVE_RUNTIME=openvino needs {error.name}: pip install 'hfserve[openvino]'") from error
        except Exception as error:  # OpenVINO may refuse a model in any way
            raise LoadError(f"OpenVINO cannot run this model: {first_line(error)}; unset HFSERVE_RUNTIME") from error
        if self.wanted.calibration or self.wanted.dtype != torch.float32:
            _tell_change("int8" if self.wanted.calibration else "bfloat16", after, before)
        elif (difference := _most(after, before)) > CLOSE[torch.float32]:
            raise LoadError(f"with OpenVINO this model's answers differ by {difference:.1e}; unset HFSERVE_RUNTIME")
        return "openvino"

    def _openvino(self) -> Undo:
        network = self._calibrated() if self.wanted.calibration else openvino.traced(self.model)
        return openvino.replace(self.model, network, openvino.PRECISIONS[self.wanted.dtype])

    def _calibrated(self) -> Any:
        """The network in int8, which takes long to make and is kept for the next worker."""
        file = self._memo.beside(".xml") if self._memo else None
        if file and file.exists():
            return openvino.read(file)
        calibrate = partial(self._run, self.wanted.calibration or ())
        network = openvino.calibrated(self.model, openvino.traced(self.model), calibrate)
        if file:
            openvino.save(network, file)
        return network

    def _let_go(self, layers: str) -> None:
        """Free what the new layers have their own copy of."""
        if layers.startswith("onednn"):
            onednn.let_go(self.model)
        if layers == "openvino":
            openvino.let_go(self.model)

    def _first(self, ways: Ways, plain: list[Any], most: float) -> tuple[str | None, Undo]:
        """The first way under which the answers stay as they are, and what undoes it; the others are undone."""
        for name, change in ways.items():
            if undo := self._try(name, change, plain, most):
                return name, undo
        return None, _nothing

    def _seconds(self) -> float:
        """The best time of a few short passes, on one thread, as a lane runs."""
        with threads(1):
            best = _best(partial(self._run, self._short))
        torch.set_num_threads(device.cores())
        return best

    def _try(self, name: str, change: Callable[[], Undo], plain: list[Any], most: float) -> Undo | None:
        """Make a change and keep it if the answers stay as they are; what undoes it."""
        undo = None
        try:
            undo = change()
            difference = _most(self._answers(), plain)
        except Exception as error:  # a model may refuse in any way; it is served as it was
            difference = float("inf")
            log.debug("%s is not for this model: %s", name, error)
        if difference <= most:
            return undo
        log.info("%s is not for this model: its answers differ by %.1e", name, difference)
        if undo:
            undo()
        return None


def _best(run: Callable[[], Any]) -> float:
    """Seconds of the quickest of as many runs as there is time for, and as are of use."""
    best, end = float("inf"), time.monotonic() + SECONDS
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
        if time.monotonic() >= end:
            break
    return round(best, 5)


def _tell_change(precision: str, new: list[Any], old: list[Any]) -> None:
    """Say how far a precision changes the answers."""
    pairs = [(a.flatten().float(), b.flatten().float()) for a, b in zip(new, old, strict=True) if a.numel()]
    alike = [float(torch.nn.functional.cosine_similarity(a, b, dim=0)) for a, b in pairs]
    same = sum(int(a.argmax()) == int(b.argmax()) for a, b in pairs)
    log.info(
        "in %s, answers differ from float32's by up to %.1e", precision, _most(new, old),
        extra={
            "compared": len(pairs), "same_largest": same, "mean_cosine": round(sum(alike) / max(1, len(alike)), 6),
            "least_cosine": round(min(alike, default=1.0), 6),
        },
    )  # fmt: skip


def _nothing() -> None:
    """Undo what was not done."""


def _most(new: list[Any], old: list[Any]) -> float:
    return max(_difference(*pair) for pair in zip(new, old, strict=True))


def _difference(new: Any, old: Any) -> float:
    if new.shape != old.shape or not torch.isfinite(new).all():
        return float("inf")
    return float((new - old).abs().max() / max(1.0, float(old.abs().max()))) if new.numel() else 0.0
