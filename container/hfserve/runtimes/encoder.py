"""An encoder with its tokenizer, loaded and tuned: what every native text task computes with."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hfserve.runtimes import device
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import SAMPLES, Encoder, first_position
from hfserve.runtimes.tuning import tune
from hfserve.settings import Options

log = logging.getLogger(__name__)

LARGE = 4 << 30
"""Bytes of weights from which a model is loaded in its precision at once: float32 might not fit."""

TEXTS = (*SAMPLES, SAMPLES[-1] * 20)
"""What the examples say: sentences of several lengths, one of them long."""

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
        dtype = device.dtype(options.dtype, options.device)
        large = sum(file.stat().st_size for file in model_dir.glob("*.safetensors")) > LARGE
        self.model = runtime.load(auto_class, model_dir, options, dtype if large else torch.float32)
        self.config = self.model.config
        self.config.use_cache = False
        self.encode = Encoder(model_dir, self.config, options)
        self._output = output
        self._per_token = per_token
        self._only = only(self.encode) if only else None
        tune(
            self.model, examples(self) if examples else sentences(self.encode), self.encode.pad,
            first_position=first_position(self.config),
            output=output, per_token=per_token, only=self._only, dtype=dtype,
        )  # fmt: skip

    def __call__(self, encoded: Sequence[dict[str, list[int]]]) -> list[Any]:
        """What the model says of each sequence, float32 on the CPU: `output`, without padding."""
        return runtime.forward(
            self.model, encoded, self.encode.pad, output=self._output, per_token=self._per_token, only=self._only
        )


def sentences(encode: Encoder) -> list[dict[str, list[int]]]:
    """Sentences of several lengths, one of them long."""
    return [encode(text, None, longest=LONG)[0] for text in TEXTS]
