"""text-classification: labels and scores of a text or a pair of texts, in one shared pass for many requests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes.encoder import EncoderModel
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import cuts, kind, parse, places, split, too_long
from hfserve.tasks.schemas.text import UNSET
from hfserve.tasks.schemas.text import TextClassificationParameters as Parameters
from hfserve.tasks.scores import softmax


class TextClassification:
    """A sequence classifier; its answers have the pipeline's shape and values."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForSequenceClassification

        self.task = task
        self._options = options
        self._model = EncoderModel(AutoModelForSequenceClassification, model_dir, options)
        self._encode = self._model.encode
        self._labels = self._model.config.id2label
        self._function = _default_function(self._model.config)

    def items(self, data: Any) -> list[Item]:
        """An item for each text, encoded."""
        inputs, parameters = split(data)
        chosen = parse(Parameters, parameters, self._options)
        texts = inputs if _many(inputs) else [inputs]
        return [self._item(text, chosen, place) for text, place in zip(texts, places(inputs, texts), strict=True)]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """Scores of each label, float32 of shape (labels,), for each item."""
        logits = self._model([item.data for item in items])
        return [
            self._scored(row.numpy(), item.parameters["function_to_apply"], item.parameters["top_k"])
            for row, item in zip(logits, items, strict=True)
        ]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: a lone string without top_k still gets a list."""
        inputs, parameters = split(data)
        if _many(inputs):
            return list(results)
        return [results[0]] if isinstance(inputs, str) and "top_k" not in parameters else results[0]

    def _item(self, text: Any, chosen: Parameters, place: str) -> Item:
        first, second = _pair(text, place)
        encoded, cut = self._encode(first, second, longest=chosen.max_length)
        if cut and not cuts(chosen.truncation):
            raise too_long(place, self._encode.limit)
        wanted = chosen.model_dump(include={"top_k", "function_to_apply"})
        return Item(encoded, wanted, "text", len(encoded["input_ids"]), place if cut else "")

    def _scored(self, logits: "np.ndarray[Any, Any]", function: str | None, top_k: int | None) -> Any:
        scores = _FUNCTIONS[function or self._function](logits)
        if top_k == UNSET:
            best = int(scores.argmax())
            return {"label": self._labels[best], "score": float(scores[best])}
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        return [{"label": self._labels[i], "score": float(scores[i])} for i in order[:top_k]]


def _many(inputs: Any) -> bool:
    """A list is many texts, but [[text, pair]] is one (the pipeline's old form)."""
    return isinstance(inputs, list) and not (len(inputs) == 1 and isinstance(inputs[0], list))


def _pair(text: Any, place: str) -> tuple[str, str | None]:
    if isinstance(text, str):
        return text, None
    if isinstance(text, list) and len(text) == 1 and isinstance(text[0], list) and len(text[0]) == 2:
        text = {"text": text[0][0], "text_pair": text[0][1]}
    if isinstance(text, dict) and set(text) <= {"text", "text_pair"} and isinstance(text.get("text"), str):
        pair = text.get("text_pair")
        if pair is None or isinstance(pair, str):
            return text["text"], pair
    raise InvalidInput(f'{place} is {kind(text)}; text-classification takes a string, or {{"text", "text_pair"}}')


def _default_function(config: Any) -> str:
    """The pipeline's rule (transformers 5.23, text_classification.py)."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def _sigmoid(logits: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.asarray(1 / (1 + np.exp(-logits)))


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {"softmax": softmax, "sigmoid": _sigmoid, "none": np.asarray}
