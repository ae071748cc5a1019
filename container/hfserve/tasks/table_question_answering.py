"""table-question-answering: the cells of a table that answer a question, or the answer that a model writes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hfserve.errors import InvalidInput
from hfserve.messages import Item, Outcome
from hfserve.runtimes import torch as runtime
from hfserve.runtimes.tokenizing import load_tokenizer
from hfserve.settings import Options
from hfserve.tasks.base import Task, TaskRunner
from hfserve.tasks.forms import cuts, kind, parse, string, too_long
from hfserve.tasks.objects import named, strings
from hfserve.tasks.requests import parts
from hfserve.tasks.schemas.pairs import TableQuestionAnsweringParameters as Parameters
from hfserve.tasks.tapas import Table, TableEncoder
from hfserve.tasks.text2text import Text2Text

TAKES = 'table-question-answering takes {"query": "…", "table": {"City": ["Rome"], "Sales": ["7"]}}'
THRESHOLD = 0.5
"""How likely a cell has to be part of the answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The questions about a table."""

    queries: Sequence[str]
    table: Table
    place: str


@dataclass(frozen=True, slots=True)
class Turns:
    """A table with its questions, encoded; each of them is told the answer to the one before."""

    table: Table
    encoded: Sequence[dict[str, Any]]


def load(task: Task, model_dir: Path, options: Options) -> TaskRunner:
    """TAPAS chooses cells; any other model of the task writes its answer."""
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(model_dir, trust_remote_code=options.trust_remote_code, local_files_only=True)
    return Tapas(task, model_dir, options) if found.model_type == "tapas" else Tapex(task, model_dir, options)


class Tapas:
    """A model that says of each cell whether it is part of the answer, and what to do with the cells."""

    concurrent = True

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        from transformers import AutoModelForTableQuestionAnswering

        self.task = task
        self._options = options
        self._model = runtime.load(AutoModelForTableQuestionAnswering, model_dir, options)
        config = self._model.config
        self._encode = TableEncoder(model_dir, config, options)
        self._functions = config.aggregation_labels if config.num_aggregation_labels else None
        self._no_function = config.no_aggregation_label_index

    def items(self, data: Any) -> list[Item]:
        """An item for each question; questions that belong together are one."""
        inputs, parameters = parts(data)
        chosen = parse(Parameters, parameters, self._options)
        return [
            self._item(turns, asked, chosen)
            for asked in _asked(inputs)
            for turns in _turns(asked.queries, sequential=bool(chosen.sequential))
        ]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The answers to each item, a list; the first questions of all share passes, then the second ones."""
        answers: list[list[Any]] = [[] for _ in items]
        for turn in range(max((len(item.data.encoded) for item in items), default=0)):
            now = [i for i, item in enumerate(items) if turn < len(item.data.encoded)]
            encoded = [_told(items[i].data.encoded[turn], answers[i][-1:]) for i in now]
            rows = runtime.forward(self._model, encoded, self._encode.pad, output=_logits, per_token=True)
            for i, inputs, row in zip(now, encoded, rows, strict=True):
                answers[i].append(self._answer(items[i].data.table, inputs, row.numpy()))
        return answers

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: the answer to a lone question stands alone, even when it came in a list."""
        inputs, parameters = parts(data)
        sequential = bool(parse(Parameters, parameters).sequential)
        each = iter(results)
        return _shaped([
            [answer for _ in _turns(asked.queries, sequential=sequential) for answer in next(each)]
            for asked in _asked(inputs)
        ])  # fmt: skip

    def _item(self, queries: Sequence[str], asked: Asked, chosen: Parameters) -> Item:
        read = [self._encode(query, asked.table, asked.place) for query in queries]
        place = f"{asked.place}.table"
        cut = any(cut for _, cut in read)
        if cut and not cuts(chosen.truncation):
            raise too_long(place, self._encode.limit)
        encoded = [encoded for encoded, _ in read]
        cost = sum(len(each["input_ids"]) for each in encoded)
        return Item(Turns(asked.table, encoded), {}, "table", cost, place if cut else "")

    def _answer(self, table: Table, inputs: dict[str, Any], logits: "np.ndarray[Any, Any]") -> dict[str, Any]:
        coordinates = _chosen(inputs, logits[:, 0])
        cells = [table.rows[row][column] for row, column in coordinates]
        found = {"coordinates": coordinates, "cells": cells}
        if not self._functions:
            return {"answer": ", ".join(cells), **found}
        best = int(logits[0, 1:].argmax())
        function = self._functions[best]
        prefix = "" if best == self._no_function else f"{function} > "
        return {"answer": prefix + ", ".join(cells), **found, "aggregator": function}


class Tapex(Text2Text):
    """A model that reads a table as a text and writes the answer, as TAPEX does."""

    def __init__(self, task: Task, model_dir: Path, options: Options) -> None:
        super().__init__(replace(task, name="text2text-generation"), model_dir, options)
        self.task = task
        self._defaults["num_beams"] = self._model.generation_config.num_beams or 1
        tokenizer = load_tokenizer(model_dir, options)
        self._lower = bool(tokenizer.init_kwargs.get("do_lower_case", True))
        self._longest_cell = int(tokenizer.init_kwargs.get("max_cell_length", 15))
        self._limit = int(min(tokenizer.model_max_length, self._model.config.max_position_embeddings))
        self._pieces = tokenizer.backend_tokenizer
        self._pieces.no_truncation()

    def items(self, data: Any) -> list[Item]:
        """An item for each question."""
        inputs, parameters = parts(data)
        chosen = parse(Parameters, parameters, self._options)
        return [self._read(query, asked, chosen) for asked in _asked(inputs) for query in asked.queries]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """As the pipeline shapes it: the answer to a lone question stands alone, even when it came in a list."""
        inputs, _ = parts(data)
        texts = iter(results)
        return _shaped([
            [{"answer": text["generated_text"]} for _ in asked.queries for text in next(texts)]
            for asked in _asked(inputs)
        ])  # fmt: skip

    def _read(self, query: str, asked: Asked, chosen: Parameters) -> Item:
        place = f"{asked.place}.table"
        text, cut = self._text(query, asked)
        if cut and not cuts(chosen.truncation):
            raise too_long(place, self._limit)
        (item,) = super().items({"inputs": text})
        return replace(item, cut=place if cut else "")

    def _text(self, query: str, asked: Asked) -> tuple[str, bool]:
        """Question and table as one text with as many rows as fit, and whether something was left out."""
        rows = [[self._cell(cell) for cell in row] for row in asked.table.rows[: self._limit]]
        header = f"{query} col : {' | '.join(asked.table.names)}"
        lines = [f"row {i} : {' | '.join(row)}" for i, row in enumerate(rows, 1)]
        least, most = 0, len(lines)
        while least < most:
            middle = (least + most + 1) // 2
            fits = len(self._pieces.encode(self._joined(header, lines[:middle])).ids) <= self._limit
            least, most = (middle, most) if fits else (least, middle - 1)
        if not least:
            raise InvalidInput(
                f"{asked.place}.query and the names of the columns leave no room for a row in the {self._limit} tokens "
                "that the model takes; shorten them"
            )
        return self._joined(header, lines[:least]), rows[:least] != [list(row) for row in asked.table.rows]

    def _joined(self, header: str, lines: Sequence[str]) -> str:
        text = " ".join([header, *lines]).strip()
        return text.lower() if self._lower else text

    def _cell(self, cell: str) -> str:
        """A cell's first tokens, as text."""
        encoding = self._pieces.encode(cell, add_special_tokens=False)
        if not cell.strip() or len(encoding.ids) < self._longest_cell:
            return cell
        return str(self._pieces.decode(encoding.ids[: self._longest_cell]))


# Requests


def _asked(inputs: Any) -> list[Asked]:
    if isinstance(inputs, list):
        return [_one(each, f"inputs[{i}]") for i, each in enumerate(inputs)]
    return [_one(inputs, "inputs")]


def _one(value: Any, place: str) -> Asked:
    query, table = named(value, place, ("query", "table"), TAKES)
    queries = strings(query, f"{place}.query") if isinstance(query, list) else [string(query, f"{place}.query")]
    if "" in queries:
        raise InvalidInput(f"{place}.query is empty")
    return Asked(queries, _table(table, f"{place}.table"), place)


def _table(value: Any, place: str) -> Table:
    if isinstance(value, list):
        names, rows = _from_rows(value, place)
    elif isinstance(value, dict):
        names, rows = _from_columns(value, place)
    else:
        raise InvalidInput(f"{place} is {kind(value)}; it has to be an object of columns, or a list of rows")
    if not names or not rows:
        raise InvalidInput(f"{place} is empty; a table has a column and a row at least")
    return Table(names, [[_cell(cell, f"{place}[{i}]") for cell in row] for i, row in enumerate(rows)])


def _from_columns(value: dict[str, Any], place: str) -> tuple[list[str], list[Sequence[Any]]]:
    columns = {name: column if isinstance(column, list) else [column] for name, column in value.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in list(lengths.items())[:5])
        raise InvalidInput(f"{place} has columns of unequal length: {told}")
    return list(columns), list(zip(*columns.values(), strict=True))


def _from_rows(value: list[Any], place: str) -> tuple[list[str], list[Sequence[Any]]]:
    """Rows name their cells; a name that a row does not have is an empty cell there."""
    for i, row in enumerate(value):
        if not isinstance(row, dict):
            raise InvalidInput(f"{place}[{i}] is {kind(row)}; a row is an object of columns and cells")
    names = list(dict.fromkeys(name for row in value for name in row))
    return names, [[row.get(name) for name in names] for row in value]


def _cell(value: Any, place: str) -> str:
    """A cell as text, which is all that models of tables read."""
    if isinstance(value, list | dict):
        raise InvalidInput(f"{place} has {kind(value)} for a cell; a cell is a string or a number")
    return "" if value is None else str(value)


def _turns(queries: Sequence[str], *, sequential: bool) -> list[Sequence[str]]:
    """Questions that are asked one after another, in one list."""
    return [queries] if sequential else [[query] for query in queries]


# Answers


def _logits(answer: Any) -> torch.Tensor:
    """(sequences, tokens, 1 + functions): how well each token answers, and beside each how well each function does."""
    logits: torch.Tensor = answer.logits[..., None]
    if answer.logits_aggregation is None:
        return logits
    functions = answer.logits_aggregation[:, None].expand(-1, logits.shape[1], -1)
    return torch.cat([logits, functions], dim=-1)


def _cells(inputs: dict[str, Any]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Each token of a cell, with the row and the column."""
    for token, (_, column, row, *_) in enumerate(inputs["token_type_ids"]):
        if column and row:
            yield token, (row - 1, column - 1)


def _chosen(inputs: dict[str, Any], logits: "np.ndarray[Any, Any]") -> list[list[int]]:
    """Rows and columns of the cells that are likely, on the average of their tokens."""
    probabilities = 1 / (1 + np.exp(-logits.clip(-88)))
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for token, cell in _cells(inputs):
        found[cell].append(float(probabilities[token]))
    return [list(cell) for cell, likely in sorted(found.items()) if np.mean(likely) > THRESHOLD]


def _told(inputs: dict[str, Any], answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The inputs with the cells of the answer before marked, when there is one."""
    if not answers:
        return inputs
    before = {tuple(cell) for cell in answers[0]["coordinates"]}
    types = [list(each) for each in inputs["token_type_ids"]]
    for token, cell in _cells(inputs):
        types[token][3] = int(cell in before)
    return {**inputs, "token_type_ids": types}


def _shaped(answers: Sequence[Sequence[Any]]) -> Any:
    """Lists of one stand for what is in them."""
    each = [answer[0] if len(answer) == 1 else list(answer) for answer in answers]
    return each[0] if len(each) == 1 else each
