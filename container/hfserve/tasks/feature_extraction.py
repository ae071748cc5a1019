"""feature-extraction: vectors of a text's tokens, or one vector for the text.

A folder that sentence-transformers saved answers with one vector for a text, unless the request chooses a pooling.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, places, string
from hfserve.tasks.requests import FORMS, fields, parts
from hfserve.tasks.schemas.text import FeatureExtractionParameters as Parameters
from hfserve.tasks.sentences import TextVectors


class FeatureExtraction:
    """A model without a head; the vectors of tokens have the pipeline's shape and values."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        self.task = task
        self._options = options
        self._texts = TextVectors(model_dir, options)

    def items(self, data: Any) -> list[Item]:
        """An item for each text, encoded."""
        inputs, parameters = fields(*parts(data), FORMS[self.task.name])
        chosen = parse(Parameters, parameters, self._options)
        if chosen.normalize and self._per_token(chosen.pooling):
            raise InvalidInput('parameters.normalize: is for one vector a text; choose the pooling "mean" or "cls"')
        texts = inputs if isinstance(inputs, list) else [inputs]
        return [
            self._item(string(text, place), chosen, place)
            for text, place in zip(texts, places(inputs, texts), strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The vector of each item, or those of its tokens."""
        rows = self._texts([item.data for item in items])
        return [self._vectors(row, **item.parameters) for row, item in zip(rows, items, strict=True)]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: tokens stand in a list of one, as of a batch."""
        inputs, _ = fields(*parts(data), FORMS[self.task.name])
        return list(results) if isinstance(inputs, list) else results[0]

    def _per_token(self, pooling: str | None) -> bool:
        return pooling in {None, "none"} and not self._texts.own(pooling)

    def _item(self, text: str, chosen: Parameters, place: str) -> Item:
        cutting = chosen.tokenize_kwargs
        encoded, cut = self._texts.encode(
            text, place, chosen.pooling,
            longest=cutting.max_length, truncation=chosen.truncation and cutting.truncation,
        )  # fmt: skip
        wanted = chosen.model_dump(include={"pooling", "normalize"})
        return Item(encoded, wanted, "text", len(encoded["input_ids"]), place if cut else "")

    def _vectors(self, tokens: torch.Tensor, pooling: str | None, normalize: bool | None) -> Any:
        if self._per_token(pooling):
            return [tokens.tolist()]
        return self._texts.pooled(tokens, pooling, normalize).tolist()
