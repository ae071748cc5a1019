"""An encoder with its tokenizer, loaded and tuned: what every native text task computes with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import SAMPLES, Encoder, first_position
from hfserve.runtimes.tuning import tune
from hfserve.settings import Options


class EncoderModel:
    """`encode` makes the inputs of a text; calling the model says what it makes of several of them at once."""

    def __init__(
        self, auto_class: Any, model_dir: Path, options: Options, *,
        output: Callable[[Any], Any] = lambda answer: answer.logits, per_token: bool = False,
    ) -> None:  # fmt: skip
        self.model = runtime.load(auto_class, model_dir, options)
        self.config = self.model.config
        self.encode = Encoder(model_dir, self.config, options)
        self._output = output
        self._per_token = per_token
        samples = [self.encode(text, None)[0] for text in SAMPLES]
        tune(
            self.model, samples, self.encode.pad,
            first_position=first_position(self.config), output=output, per_token=per_token,
        )  # fmt: skip

    def __call__(self, encoded: Sequence[dict[str, list[int]]]) -> list[Any]:
        """What the model says of each sequence, float32 on the CPU: `output`, without padding."""
        return runtime.forward(self.model, encoded, self.encode.pad, output=self._output, per_token=self._per_token)
