"""An encoder with its tokenizer, loaded and tuned: what every native text task computes with."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import LoadError
from hfserve.runtimes import device, openvino
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.memo import Memo
from hfserve.runtimes.tokenizing import SAMPLES, Encoder, first_position
from hfserve.runtimes.tuning import Wanted, tune
from hfserve.settings import Options

log = logging.getLogger(__name__)

LARGE = 4 << 30
"""Bytes of weights from which a model is loaded in its precision at once: float32 might not fit."""

TEXTS = (*SAMPLES, SAMPLES[-1] * 20)
"""What the examples say: sentences of several lengths, one of them long."""

MOST_SENTENCES = 300
"""Sentences that int8 is calibrated with at most; more do not change it by much."""

LONG = 320
"""Tokens of the longest example: more than the windows of layers that look at a neighbourhood only."""


class EncoderModel:
    """`encode` makes the inputs of a text; calling the model says what it makes of several of them at once.

    `examples` makes sequences to tune the model on, where those of plain sentences will not do; `only` names the token
    that the model is asked about alone, given its encoder. The examples have to have it.
    """

    def __init__(
        self, auto_class: Any, model_dir: Path, options: Options, *,
        output: Callable[[Any], Any] = lambda answer: answer.logits, per_token: bool = False,
        only: Callable[[Encoder], int] | None = None,
        examples: Callable[["EncoderModel"], Sequence[dict[str, list[int]]]] | None = None,
    ) -> None:  # fmt: skip
        if options.runtime == "openvino" and options.device != "cpu":
            raise LoadError("HFSERVE_RUNTIME=openvino is for CPUs; unset it, or set HFSERVE_DEVICE=cpu")
        int8 = options.dtype == openvino.INT8
        dtype = torch.float32 if int8 else device.dtype(options.dtype, options.device)
        large = sum(file.stat().st_size for file in model_dir.glob("*.safetensors")) > LARGE
        self.model = runtime.load(auto_class, model_dir, options, dtype if large else torch.float32)
        self.config = self.model.config
        self.config.use_cache = False
        self.encode = Encoder(model_dir, self.config, options)
        self._output = output
        self._per_token = per_token
        self._only = only(self.encode) if only else None
        tune(
            self.model, self, examples(self) if examples else sentences(self.encode),
            first_position=first_position(self.config), memo=_memo(auto_class, model_dir, options),
            wanted=Wanted(options.runtime, dtype, self._calibration(model_dir, options) if int8 else None),
        )  # fmt: skip

    def __call__(self, encoded: Sequence[dict[str, list[int]]]) -> list[Any]:
        """What the model says of each sequence, float32 on the CPU: `output`, without padding."""
        return runtime.forward(
            self.model, encoded, self.encode.pad, output=self._output, per_token=self._per_token, only=self._only
        )

    def _calibration(self, model_dir: Path, options: Options) -> list[dict[str, list[int]]]:
        """The sentences that the settings name, encoded; raises LoadError when there are none."""
        named = options.calibration or ""
        file = next((each for each in (model_dir / named, Path(named)) if each.is_file()), None)
        lines = [line for line in file.read_text().splitlines() if line.strip()] if file else []
        if not lines:
            raise LoadError(f"HFSERVE_CALIBRATION={named}: there is no such file with sentences in it")
        pairs = [line.partition("\t") for line in lines[:MOST_SENTENCES]]
        return [self.encode(text, pair if tab else None)[0] for text, tab, pair in pairs]


def _memo(auto_class: Any, model_dir: Path, options: Options) -> Memo:
    chosen = (options.dtype, options.runtime, options.calibration or "", options.device)
    return Memo(options.run_dir, model_dir, auto_class.__name__, torch.backends.cpu.get_cpu_capability(), *chosen)


def sentences(encode: Encoder) -> list[dict[str, list[int]]]:
    """Sentences of several lengths, one of them long."""
    return [encode(text, None, longest=LONG)[0] for text in TEXTS]
