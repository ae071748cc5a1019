"""multiple-choice: which of several choices answers a question, or ends a text, best."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hfserve.messages import Item, Outcome
from hfserve.runtimes.encoder import EncoderModel
from hfserve.runtimes.tokenizing import or_fail
from hfserve.settings import Options
from hfserve.tasks.base import Task
from hfserve.tasks.forms import parse, string, too_long
from hfserve.tasks.objects import named, one_of, strings
from hfserve.tasks.requests import parts
from hfserve.tasks.schemas.pairs import MultipleChoiceParameters as Parameters
from hfserve.tasks.scores import softmax

QUESTIONS = ("question", "prompt", "text")
"""Names of what is asked."""

CLOSE = 1e-5
"""Scores that differ by less are equal, and the first of them is the answer: company must not decide it."""

TAKES = 'multiple-choice takes {"question": "…", "choices": ["…", "…"]}'


class MultipleChoice:
    """A model that scores a question with one choice; the scores of all choices are compared here."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        self.task = task
        self._options = options
        with or_fail():
            self._model = EncoderModel(_ChoiceByChoice, model_dir, options)
        self._encode = self._model.encode

    def items(self, data: Any) -> list[Item]:
        """An item for each question: the question encoded with every choice."""
        inputs, parameters = parts(data)
        chosen = parse(Parameters, parameters, self._options)
        if not isinstance(inputs, list):
            return [self._item(inputs, "inputs", chosen)]
        return [self._item(each, f"inputs[{i}]", chosen) for i, each in enumerate(inputs)]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The best choice of each item, with the scores of all."""
        rows = iter(self._model([pair for item in items for pair in item.data[1]]))
        return [
            _best(choices, np.array([float(next(rows)[0]) for _ in pairs]))
            for choices, pairs in (item.data for item in items)
        ]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """An object for a question, a list of those for a list."""
        inputs, _ = parts(data)
        return list(results) if isinstance(inputs, list) else results[0]

    def _item(self, value: Any, place: str, chosen: Parameters) -> Item:
        question, choices = _read(value, place)
        pairs = [self._encode(question, choice, longest=chosen.max_length) for choice in choices]
        cut = any(cut for _, cut in pairs)
        if cut and not chosen.truncation:
            raise too_long(place, min(chosen.max_length or self._encode.limit, self._encode.limit))
        encoded = [encoded for encoded, _ in pairs]
        cost = sum(len(each["input_ids"]) for each in encoded)
        return Item((choices, encoded), {}, "text", cost, place if cut else "")


class _ChoiceByChoice:
    """Loads models for which every row is a question of a single choice.

    They take rows of (choices, tokens), which only questions of equally many choices could share; and a choice is
    scored without a look at the others.
    """

    @staticmethod
    def from_pretrained(*arguments: Any, **options: Any) -> Any:
        from transformers import AutoModelForMultipleChoice

        model = AutoModelForMultipleChoice.from_pretrained(*arguments, **options)
        takes = signature(model.forward).parameters.keys()

        def one_choice(_: Any, inputs: Any, named: dict[str, torch.Tensor]) -> Any:
            # What a model does not name it hands to its encoder with the choices still apart
            return inputs, {name: tensor.unsqueeze(1) for name, tensor in named.items() if name in takes}

        model.register_forward_pre_hook(one_choice, with_kwargs=True)
        return model


def _read(value: Any, place: str) -> tuple[str, list[str]]:
    """A question and its choices."""
    name = one_of(value, QUESTIONS)
    question, choices = named(value, place, (name, "choices"), TAKES)
    return string(question, f"{place}.{name}"), strings(choices, f"{place}.choices")


def _best(choices: Sequence[str], logits: "np.ndarray[Any, Any]") -> dict[str, Any]:
    scores = softmax(logits)
    best = int((scores > scores.max() - CLOSE).argmax())
    return {"choice": choices[best], "index": best, "scores": scores.tolist()}
