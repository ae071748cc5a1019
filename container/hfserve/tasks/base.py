"""What a task is, and what a loaded one can do."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hfserve.messages import Item, Outcome
from hfserve.settings import Options
from hfserve.tasks.schemas.base import Schema


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the table of tasks.

    `takes` and `gives` name the kinds of the request and the answer (TEXT, IMAGE, LABELS …), `example` is a request
    that any model of the task can answer, `native` the "module:class" that runs it, None for the pipeline wrapper,
    `schema` the types of requests and answers; `streams` whether a text is told token by token.
    """

    name: str
    takes: str
    gives: str
    example: Any
    aliases: tuple[str, ...] = ()
    native: str | None = None
    schema: Schema = field(default=Schema(Any, Any), repr=False)
    streams: bool = False


def native(task: Task, model_dir: Path, options: Options) -> "TaskRunner":
    """The task run by its own code; raises LoadError."""
    assert task.native
    place, _, name = task.native.partition(":")
    runner: TaskRunner = getattr(importlib.import_module(place), name)(task, model_dir, options)
    return runner


class TaskRunner(Protocol):
    """A task with its model loaded. `items`, `run` and `result` may be called from several threads at once."""

    task: Task
    concurrent: bool
    """Whether several threads may be in `run` at once."""

    def items(self, data: Any) -> list[Item]:
        """The items of one decoded request (`{"inputs", "parameters"}`, or bare inputs); raises InvalidInput."""

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """One shared pass over items of equal `batch_key`: an outcome for each. Raises when the whole pass fails."""

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """The answer to `data` from the results of its items, in the shape of transformers' pipeline."""


class Events(Protocol):
    """The pieces of one text as events, in their order."""

    def of(self, piece: Any) -> dict[str, Any]:
        """The event of a piece: its `token` with the `text` it adds; the last one has `details`."""


@runtime_checkable
class Telling(Protocol):
    """A task that can tell its texts while they are made: its items hand pieces to their feed."""

    def told(self, item: Item) -> Item:
        """The item as it runs when it is told; raises InvalidInput for one that cannot be told."""

    def events(self, item: Item) -> Events:
        """What tells the pieces of such an item."""
