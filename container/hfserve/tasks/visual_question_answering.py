"""visual-question-answering: answers to questions about pictures, as transformers 4's pipeline gave them.

Some models choose among the answers that they were trained on, others write the answer.
"""

from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import Encoder
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import cuts, parse, string, too_long
from hfserve.tasks.image_to_text import after_picture
from hfserve.tasks.objects import named
from hfserve.tasks.pictures import Pictures, Tensors, Writer, in_passes, on_device, rows
from hfserve.tasks.requests import parts
from hfserve.tasks.schemas.generation import Generation
from hfserve.tasks.schemas.vision import VisualQuestionAnsweringParameters

FIELDS, TAKES = ("image", "question"), 'visual-question-answering takes {"image", "question"}'
USUAL_ANSWERS = 5
MOST_PAIRS = 10_000
"""Questions times pictures, where each of one list is asked about each of the other."""


class VisualQuestionAnswering:
    """A model of pictures and questions."""

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForVisualQuestionAnswering

        self.task = task
        self._options = options
        self._model = runtime.load(AutoModelForVisualQuestionAnswering, model_dir, options)
        self._pictures = Pictures(model_dir, options)
        self._encode = Encoder(model_dir, self._model.config.get_text_config(), options)
        self._names = signature(self._model.forward).parameters.keys()
        self._writer = Writer(self._model, self._encode, task.name, options) if self._model.can_generate() else None
        self.concurrent = self._writer is None or self._writer.sharing

    def items(self, data: Any) -> list[Item]:
        """An item for each question about each picture."""
        inputs, parameters = parts(data)
        chosen = parse(VisualQuestionAnsweringParameters, parameters, self._options)
        told, key = self._told(chosen)
        return [
            self._item(picture, question, place, chosen, told, key) for picture, question, place in self._asked(inputs)
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The answers to each question, best first."""
        return in_passes(items, self._prepared, self._answers)

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: answers to a lone question stand alone, those to a list are a list."""
        inputs, _ = parts(data)
        fields = inputs.values() if isinstance(inputs, dict) else [inputs]
        return list(results) if any(isinstance(value, list) for value in fields) else results[0]

    def _told(self, chosen: VisualQuestionAnsweringParameters) -> tuple[dict[str, Any], Any]:
        """What the items carry, and who may share a pass."""
        if self._writer:
            return self._writer.told(chosen, but=frozenset({"top_k"}))
        given = {name for name in Generation.model_fields if getattr(chosen, name) is not None} - {"top_k"}
        if given:
            raise InvalidInput(f"parameters.{min(given)}: this model chooses among answers, and writes none")
        return {"top_k": USUAL_ANSWERS if chosen.top_k is None else chosen.top_k}, "question"

    def _asked(self, inputs: Any) -> Iterator[tuple[Image.Image, str, str]]:
        """Each picture with its question, and the question's place."""
        if isinstance(inputs, list):
            for i, each in enumerate(inputs):
                picture, question = named(each, f"inputs[{i}]", FIELDS, TAKES)
                place = f"inputs[{i}].question"
                yield self._pictures.read(picture, f"inputs[{i}].image"), string(question, place), place
        else:
            pictures, questions = named(inputs, "inputs", FIELDS, TAKES)
            _check_number(pictures, questions)
            read = [self._pictures.read(picture, place) for picture, place in _each(pictures, "inputs.image")]
            for question, place in _each(questions, "inputs.question"):
                yield from ((picture, string(question, place), place) for picture in read)

    def _item(self, picture: Image.Image, question: str, place: str, chosen: Any, told: Any, key: Any) -> Item:
        encoded, cut = self._encode(question, None)
        if cut and not cuts(chosen.truncation):
            raise too_long(place, self._encode.limit)
        encoded = {name: ids for name, ids in encoded.items() if name in self._names}
        return Item((picture, after_picture(encoded, self._model.config)), told, key, cut=place if cut else "")

    def _prepared(self, items: Sequence[Item]) -> list[Tensors]:
        """The model's inputs for each item; a picture of several questions is prepared once."""
        pictures = {id(item.data[0]): item.data[0] for item in items}
        features = {name: self._pictures(picture) for name, picture in pictures.items()}
        longest = max((len(item.data[1]["input_ids"]) for item in items), default=0)
        return [{**self._text(item.data[1], longest), **features[id(item.data[0])]} for item in items]

    def _text(self, encoded: dict[str, list[int]], longest: int) -> Tensors:
        """A question, filled up to the longest for models that mask; those that write read what fills it up."""
        if self._writer:
            return rows(encoded)
        pad = self._encode.pad
        return rows({name: ids + [pad[name]] * (longest - len(ids)) for name, ids in encoded.items()})

    def _answers(self, items: Sequence[Item], inputs: Tensors) -> list[Outcome]:
        if self._writer:
            return self._writer.outcomes(inputs, items[0], lambda text: {"answer": text.strip()})
        with torch.inference_mode(), runtime.memory_guard():
            scores = self._model(**on_device(inputs, self._model)).logits.float().sigmoid().cpu()
        return [self._best(row, item.parameters["top_k"]) for row, item in zip(scores, items, strict=True)]

    def _best(self, scores: torch.Tensor, top_k: int) -> list[dict[str, Any]]:
        best, places = scores.topk(min(top_k, self._model.config.num_labels))
        labels = self._model.config.id2label
        return [{"score": score, "answer": labels[i]} for score, i in zip(best.tolist(), places.tolist(), strict=True)]


def _each(value: Any, place: str) -> Iterator[tuple[Any, str]]:
    """Each of a list, or the value alone, with its place in the request."""
    if isinstance(value, list):
        yield from ((each, f"{place}[{i}]") for i, each in enumerate(value))
    else:
        yield value, place


def _check_number(pictures: Any, questions: Any) -> None:
    """Two short lists could make millions of pairs."""
    lengths = [len(value) if isinstance(value, list) else 1 for value in (pictures, questions)]
    if lengths[0] * lengths[1] > MOST_PAIRS:
        raise InvalidInput(
            f"inputs.question: {lengths[1]} questions about {lengths[0]} pictures are more than {MOST_PAIRS} pairs"
        )
