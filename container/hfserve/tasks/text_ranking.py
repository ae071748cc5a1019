"""text-ranking: how well texts answer a query, by a model that reads query and text together (a cross-encoder)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfserve.errors import LoadError
from hfserve.messages import Item, Outcome
from hfserve.runtimes.encoder import EncoderModel
from hfserve.runtimes.tokenizing import or_fail
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, string, too_long
from hfserve.tasks.objects import named, one_of, strings
from hfserve.tasks.requests import parts
from hfserve.tasks.schemas.pairs import TextRankingParameters as Parameters

TEXTS = ("texts", "documents")
"""Names of the texts to rank, beside a query."""

TAKES = 'text-ranking takes {"query": "…", "texts": ["…"]}, a pair ["query", "text"], or {"text", "text_pair"}'


@dataclass(frozen=True, slots=True)
class Asked:
    """One input: a query with each of its texts, and where the texts stand."""

    query: str
    texts: Sequence[str]
    places: Sequence[str]
    alone: bool
    """Whether it is a pair, answered with a bare score."""


class TextRanking:
    """A sequence classifier with one label."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForSequenceClassification

        self.task = task
        self._options = options
        with or_fail():
            self._model = EncoderModel(AutoModelForSequenceClassification, model_dir, options)
        self._encode = self._model.encode
        if self._model.config.num_labels != 1:
            raise LoadError(
                f"the model has {self._model.config.num_labels} labels, and text-ranking takes one that has a single "
                "label: the score of a text; serve it with HF_TASK=text-classification"
            )
        self._activation = _activation(self._model.config)

    def items(self, data: Any) -> list[Item]:
        """An item for each pair of a query and a text."""
        inputs, parameters = _read(data)
        chosen = parse(Parameters, parameters, self._options)
        return [
            self._item(asked.query, text, place, chosen)
            for asked in _asked(inputs)
            for text, place in zip(asked.texts, asked.places, strict=True)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The score of each pair."""
        rows = self._model([item.data for item in items])
        return [
            float(row[0]) if item.parameters["raw_scores"] else self._activation(float(row[0]))
            for row, item in zip(rows, items, strict=True)
        ]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """Texts in the order of their scores for a query, a score for a pair; a list of those for a list of inputs."""
        inputs, parameters = _read(data)
        chosen = parse(Parameters, parameters)
        scores = iter(results)
        answers = [_answer(asked, scores, chosen) for asked in _asked(inputs)]
        return answers if _many(inputs) else answers[0]

    def _item(self, query: str, text: str, place: str, chosen: Parameters) -> Item:
        encoded, cut = self._encode(query, text, longest=chosen.max_length)
        if cut and not (chosen.truncation and chosen.truncate):
            raise too_long(place, min(chosen.max_length or self._encode.limit, self._encode.limit))
        wanted = {"raw_scores": chosen.raw_scores}
        return Item(encoded, wanted, "text", len(encoded["input_ids"]), place if cut else "")


def _read(data: Any) -> tuple[Any, Mapping[str, Any]]:
    """Inputs and parameters; a query may have its parameters beside it."""
    inputs, parameters = parts(data)
    if not isinstance(inputs, dict) or "query" not in inputs:
        return inputs, parameters
    own = {name: value for name, value in inputs.items() if name in {"query", *TEXTS}}
    return own, {**{name: value for name, value in inputs.items() if name not in own}, **parameters}


def _many(inputs: Any) -> bool:
    """A list is many inputs, but two strings are a pair."""
    return isinstance(inputs, list) and not (len(inputs) == 2 and all(isinstance(each, str) for each in inputs))


def _asked(inputs: Any) -> list[Asked]:
    if not _many(inputs):
        return [_one(inputs, "inputs")]
    return [_one(each, f"inputs[{i}]") for i, each in enumerate(inputs)]


def _one(value: Any, place: str) -> Asked:
    if isinstance(value, list) and len(value) == 2:
        query, text = strings(value, place)
        return Asked(query, [text], [place], alone=True)
    if isinstance(value, dict) and "text" in value:
        query, text = named(value, place, ("text", "text_pair"), TAKES)
        return Asked(string(query, f"{place}.text"), [string(text, f"{place}.text_pair")], [place], alone=True)
    name = one_of(value, TEXTS)
    query, texts = named(value, place, ("query", name), TAKES)
    told = strings(texts, f"{place}.{name}")
    return Asked(string(query, f"{place}.query"), told, [f"{place}.{name}[{i}]" for i in range(len(told))], alone=False)


def _answer(asked: Asked, scores: Iterator[float], chosen: Parameters) -> Any:
    found = [next(scores) for _ in asked.texts]
    if asked.alone:
        return found[0]
    order = sorted(range(len(found)), key=lambda i: -found[i])[: chosen.top_k or chosen.top_n]
    told = chosen.return_text or chosen.return_documents
    return [{"index": i, "score": found[i], **({"text": asked.texts[i]} if told else {})} for i in order]


def _activation(config: Any) -> Callable[[float], float]:
    """What sentence-transformers saved as the model's activation, a sigmoid where it saved none."""
    about = getattr(config, "sentence_transformers", None) or {}
    named = about.get("activation_fn") or getattr(config, "sbert_ce_default_activation_function", None) or "Sigmoid"
    name = str(named).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise LoadError(f"config.json has the activation {name}; there are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


_ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "Sigmoid": _sigmoid,
    "Identity": lambda logit: logit,
    "Tanh": math.tanh,
    "ReLU": lambda logit: max(logit, 0.0),
}
