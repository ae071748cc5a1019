"""zero-shot-classification: which of a client's own labels fit a text, asked of a model that judges entailment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes.encoder import EncoderModel
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, places, string, too_long
from hfserve.tasks.requests import FORMS, fields, parts
from hfserve.tasks.schemas.text import ZeroShotClassificationParameters as Parameters
from hfserve.tasks.scores import Array, softmax


class ZeroShotClassification:
    """A model of natural language inference; its answers have the pipeline's shape and values."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForSequenceClassification

        self.task = task
        self._options = options
        self._model = EncoderModel(AutoModelForSequenceClassification, model_dir, options)
        self._model.config.use_cache = False
        self._encode = self._model.encode
        self._entailment = _entailment(self._model.config.label2id)

    def items(self, data: Any) -> list[Item]:
        """An item for each text: the text as a premise with a hypothesis for each label."""
        inputs, parameters = fields(*parts(data), FORMS[self.task.name])
        chosen = parse(Parameters, parameters, self._options)
        texts = inputs if isinstance(inputs, list) else [inputs]
        return [
            self._item(string(text, place), chosen, place)
            for text, place in zip(texts, places(inputs, texts), strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """Labels and scores of each item, the likeliest first."""
        pairs = [pair for item in items for pair in item.data[1]]
        rows = iter(self._model(pairs))
        return [self._judged(item, np.stack([next(rows).numpy() for _ in item.data[1]])) for item in items]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """An object for a text, a list of those for a list."""
        inputs, _ = fields(*parts(data), FORMS[self.task.name])
        return list(results) if isinstance(inputs, list) else results[0]

    def _item(self, text: str, chosen: Parameters, place: str) -> Item:
        hypotheses = [chosen.hypothesis_template.replace("{}", label) for label in chosen.candidate_labels]
        encodings = [self._encode.encode(text, hypothesis) for hypothesis in hypotheses]
        cut = any(encoding.overflowing for encoding in encodings)
        if cut and not chosen.truncation:
            raise too_long(place, self._encode.limit)
        pairs = [self._pair(*each, text) for each in zip(encodings, hypotheses, strict=True)]
        wanted = chosen.model_dump(include={"candidate_labels", "multi_label"})
        cost = sum(len(pair["input_ids"]) for pair in pairs)
        return Item((text, pairs), wanted, "text", cost, place if cut else "")

    def _pair(self, encoding: Any, hypothesis: str, text: str) -> dict[str, list[int]]:
        """Premise and hypothesis; what is too long is cut off the premise."""
        if encoding.overflowing:
            if len(self._encode.encode("", hypothesis).ids) >= self._encode.limit:
                raise InvalidInput(
                    "parameters.candidate_labels: a label, in its template, leaves no room for the text in the "
                    f"{self._encode.limit} tokens that the model takes; shorten it"
                )
            encoding = self._encode.encode(text, hypothesis, cut="only_first")
        return self._encode.inputs(encoding)

    def _judged(self, item: Item, logits: Array) -> dict[str, Any]:
        labels = item.parameters["candidate_labels"]
        if item.parameters["multi_label"] or len(labels) == 1:
            contradiction = -1 if self._entailment == 0 else 0
            scores = softmax(logits[:, [contradiction, self._entailment]])[:, 1]
        else:
            scores = softmax(logits[:, self._entailment])
        order = scores.argsort()[::-1]
        return {
            "sequence": item.data[0],
            "labels": [labels[i] for i in order],
            "scores": [float(scores[i]) for i in order],
        }


def _entailment(label2id: Mapping[str, int]) -> int:
    """Which of the model's classes says yes; the last where none is named so (the pipeline's rule)."""
    return next((place for label, place in label2id.items() if label.lower().startswith("entail")), -1)
