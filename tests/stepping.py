"""Drives the steps of a task as a lane does, so that a test says who joins when."""

from collections.abc import Collection, Sequence
from typing import Any

from hfserve.messages import Item, Outcome


def stepped(runner: Any, items: Sequence[Item], *, late: Collection[int] = ()) -> list[Outcome]:
    """The outcomes of items on a task's first engine; some of them join only after a few steps."""
    places = {}
    outcomes = {}

    def start(number: int) -> None:
        places[runner.steps[0].start(items[number])] = number

    for number in range(len(items)):
        if number not in late:
            start(number)
    steps = 0
    while places or len(outcomes) < len(items):
        for started, outcome in runner.steps[0].step(1):
            outcomes[places.pop(started)] = outcome
        steps += 1
        if steps == 3:
            for number in late:
                start(number)
    assert runner.steps[0].room[0] == 0
    return [outcomes[number] for number in range(len(items))]
