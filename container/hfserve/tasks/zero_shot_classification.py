"""zero-shot-classification: which of a client's own labels fit a text, asked of a model that judges entailment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes.encoder import EncoderModel
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, places, string
from hfserve.tasks.requests import FORMS, check_template, fields, labels_in, parts

Array = np.ndarray[Any, Any]


class Parameters(BaseModel):
    """What a request may choose; the label takes the place of {} in the template."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate_labels: list[str]
    hypothesis_template: str = "This example is {}."
    multi_label: bool = False


class ZeroShotClassification:
    """A model of natural language inference; its answers have the pipeline's shape and values."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForSequenceClassification

        self.task = task
        self._model = EncoderModel(AutoModelForSequenceClassification, model_dir, options)
        self._model.config.use_cache = False
        self._encode = self._model.encode
        self._entailment = _entailment(self._model.config.label2id)

    def items(self, data: Any) -> list[Item]:
        """An item for each text: the text as a premise with a hypothesis for each label."""
        inputs, parameters = fields(*parts(data), FORMS[self.task.name])
        chosen = _parsed(parameters)
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
        pairs = [self._pair(text, hypothesis) for hypothesis in hypotheses]
        wanted = chosen.model_dump(include={"candidate_labels", "multi_label"})
        return Item((text, pairs), wanted, "text", sum(len(pair["input_ids"]) for pair in pairs))

    def _pair(self, text: str, hypothesis: str) -> dict[str, list[int]]:
        """Premise and hypothesis; what is too long is cut off the premise."""
        encoding = self._encode.encode(text, hypothesis)
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
            scores = _softmax(logits[:, [contradiction, self._entailment]])[:, 1]
        else:
            scores = _softmax(logits[:, self._entailment])
        order = scores.argsort()[::-1]
        return {
            "sequence": item.data[0],
            "labels": [labels[i] for i in order],
            "scores": [float(scores[i]) for i in order],
        }


def _parsed(parameters: Mapping[str, Any]) -> Parameters:
    """A string holds several labels, between commas."""
    labels = parameters.get("candidate_labels")
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.split(",") if label.strip()]
    chosen: Parameters = parse(Parameters, {**parameters, "candidate_labels": labels_in(labels)})
    check_template(chosen.hypothesis_template)
    if chosen.hypothesis_template.count("{}") != 1:
        raise InvalidInput("parameters.hypothesis_template has to hold {} once, in the place of the label")
    return chosen


def _entailment(label2id: Mapping[str, int]) -> int:
    """Which of the model's classes says yes; the last where none is named so (the pipeline's rule)."""
    return next((place for label, place in label2id.items() if label.lower().startswith("entail")), -1)


def _softmax(logits: Array) -> Array:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
