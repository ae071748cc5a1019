"""Whether the server can answer: starting · ready · draining · failed, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "ready", "draining", "failed"]


@dataclass(frozen=True, slots=True)
class Health:
    """A state and its reason, in a sentence fit for an operator."""

    state: State
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether /ping answers 200 (contract row 12)."""
        return self.state == "ready"


def combine(parts: Sequence[Health]) -> Health:
    """The health of the whole: that of its worst part, since requests reach every part."""
    order: list[State] = ["failed", "draining", "starting"]
    for state in order:
        for part in parts:
            if part.state == state:
                return part
    return Health("ready") if parts else Health("starting", "nothing has been started yet")
