"""sentence-similarity: how near each of several sentences is to one, by the cosine of their vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hfserve.messages import Item, Outcome
from hfserve.runtimes.tokenizing import or_fail
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, string
from hfserve.tasks.objects import named, strings
from hfserve.tasks.requests import parts
from hfserve.tasks.schemas.pairs import SentenceSimilarityParameters as Parameters
from hfserve.tasks.sentences import TextVectors, unit

TAKES = 'sentence-similarity takes {"source_sentence": "…", "sentences": ["…"]}'

Text = tuple[str, str]
"""A text, and its place in the request."""


class SentenceSimilarity:
    """A model without a head, which makes one vector of a sentence."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        self.task = task
        self._options = options
        with or_fail():
            self._texts = TextVectors(model_dir, options)

    def items(self, data: Any) -> list[Item]:
        """An item for each sentence of each input; what an input says twice is read once."""
        inputs, parameters = parts(data)
        chosen = parse(Parameters, parameters, self._options)
        pooling = chosen.pooling or (None if self._texts.own(None) else "mean")
        return [
            self._item(text, place, pooling, chosen)
            for source, sentences in _asked(inputs)
            for text, place in _once(source, sentences).items()
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The vector of each sentence, of length 1."""
        rows = self._texts([item.data for item in items])
        return [
            unit(self._texts.pooled(row, item.parameters["pooling"], None))
            for row, item in zip(rows, items, strict=True)
        ]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """The similarity of each sentence, in order; a list of those for a list of inputs."""
        inputs, _ = parts(data)
        vectors = iter(results)
        answers = [
            _similarities(source, sentences, {text: next(vectors) for text in _once(source, sentences)})
            for source, sentences in _asked(inputs)
        ]
        return answers if isinstance(inputs, list) else answers[0]

    def _item(self, text: str, place: str, pooling: str | None, chosen: Parameters) -> Item:
        cutting = chosen.tokenize_kwargs
        encoded, cut = self._texts.encode(
            text, place, pooling, longest=cutting.max_length, truncation=chosen.truncation and cutting.truncation
        )
        return Item(encoded, {"pooling": pooling}, "text", len(encoded["input_ids"]), place if cut else "")


def _asked(inputs: Any) -> list[tuple[Text, list[Text]]]:
    """Each input: its source sentence, and those to compare."""
    if isinstance(inputs, list):
        return [_one(each, f"inputs[{i}]") for i, each in enumerate(inputs)]
    return [_one(inputs, "inputs")]


def _one(value: Any, place: str) -> tuple[Text, list[Text]]:
    source, sentences = named(value, place, ("source_sentence", "sentences"), TAKES)
    told = strings(sentences, f"{place}.sentences")
    named_source = f"{place}.source_sentence"
    return (string(source, named_source), named_source), [(t, f"{place}.sentences[{i}]") for i, t in enumerate(told)]


def _once(source: Text, sentences: Sequence[Text]) -> dict[str, str]:
    """Every text of an input once, with the place where it stands first."""
    found: dict[str, str] = {}
    for text, place in [source, *sentences]:
        found.setdefault(text, place)
    return found


def _similarities(source: Text, sentences: Sequence[Text], vectors: dict[str, torch.Tensor]) -> list[float]:
    others = torch.stack([vectors[text] for text, _ in sentences])
    found: list[float] = (others @ vectors[source[0]]).tolist()
    return found
