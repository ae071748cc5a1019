"""Items that are made token by token by a runtime's engine: one text each, or as many as were asked for."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hfserve.errors import InvalidInput, first_line
from hfserve.messages import Item, Outcome
from hfserve.runtimes import device
from hfserve.runtimes.generation import Engine, Text, Token


@dataclass(frozen=True, slots=True)
class Ended:
    """How a text ended: why, of how many tokens, and the seconds to its first token and to its last."""

    finish: str
    tokens: int
    prompt: int
    seed: int | None = None
    first_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What is told of a text while it is made: its next token, and of the last one how the text ended.

    The first one may have what stood before the text, where that decides how it is read.
    """

    token: Token
    ended: Ended | None = None
    context: Sequence[int] = ()


@dataclass(slots=True, eq=False)
class _Started:
    """An item under way with its texts."""

    item: Item
    texts: list[Text] = field(default_factory=list)


class Steps:
    """The items of a task on an engine, each with what is `wanted` of it; `answer` says what its texts amount to."""

    def __init__(self, engine: Engine, answer: Callable[[Item, list[Text]], Any]) -> None:
        self._engine = engine
        self._answer = answer
        self._owners: dict[Text, _Started] = {}
        self.tokens = 0

    @property
    def room(self) -> tuple[int, int]:
        """Blocks that are taken, and all there are."""
        return self._engine.pool.used, self._engine.pool.blocks

    def start(self, item: Item) -> _Started | None:
        """Let all texts of an item join, or none."""
        started = _Started(item)
        for wanted in item.parameters["wanted"]:
            text = self._engine.start(wanted)
            if text is None:
                self.stop(started)
                return None
            started.texts.append(text)
            self._owners[text] = started
        return started

    def stop(self, started: _Started) -> None:
        """Let the texts of an item leave that have not ended."""
        for text in started.texts:
            self._owners.pop(text, None)
            if not text.finish and not text.failure:
                self._engine.stop(text)

    def step(self, threads: int) -> list[tuple[_Started, Outcome]]:
        """A token for each text; the items all of whose texts have ended."""
        ended = []
        with device.threads(threads):
            advanced = self._engine.step()
        for text in advanced:
            self.tokens += 1
            started = self._owners.get(text)
            if not started:
                continue
            if text.failure:
                self.stop(started)
                ended.append((started, unfit(text.failure)))
                continue
            if started.item.feed.tell:
                started.item.feed.tell(Piece(text.made[-1], told(text) if text.finish else None))
            if text.finish:
                del self._owners[text]
                if not any(each in self._owners for each in started.texts):
                    ended.append((started, self._outcome(started)))
        return ended

    def _outcome(self, started: _Started) -> Outcome:
        try:
            return self._answer(started.item, started.texts)
        except Exception as error:
            return error


def unfit(failure: Exception) -> Exception:
    """What `generate()` and its parts raise as a ValueError is about what was asked for."""
    if not isinstance(failure, ValueError):
        return failure
    reason = first_line(failure).partition(": ")[2]
    return InvalidInput(f"the parameters do not go together: {reason}")


def told(text: Text) -> Ended:
    """How a text ended."""
    wanted, now = text.wanted, time.monotonic()
    first = (text.first or now) - text.began
    return Ended(text.finish, len(text.made), len(wanted.source or wanted.prompt), wanted.seed, first, now - text.began)
