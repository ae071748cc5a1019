"""How much each worker of a server holds, in memory that they share, so that a busy one passes a request on."""

import mmap
import os
from pathlib import Path

SIZE = 8
AWAY = 0
"""What stands for a worker that has not begun, or takes no more; one that holds nothing has a 1."""


class Loads:
    """A number for each worker: the tokens of all items that it holds, and one."""

    def __init__(self, run_dir: Path, slot: int, workers: int) -> None:
        descriptor = os.open(run_dir / "loads", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(descriptor, workers * SIZE)
        self._all = memoryview(mmap.mmap(descriptor, workers * SIZE)).cast("q")
        os.close(descriptor)
        self._slot = slot
        self._held = 0
        self._away = False
        self.add(0)

    def add(self, tokens: int) -> None:
        """Hold so many tokens more; fewer where the number is negative."""
        self._held += tokens
        self._all[self._slot] = AWAY if self._away else self._held + 1

    def leave(self) -> None:
        """Be passed nothing any more."""
        self._away = True
        self.add(0)

    def idler(self, batch: int) -> int | None:
        """The worker that had better take the next request, None for this one.

        Another takes it when it has nothing to do and this one has, or when this one holds more than a batch more.
        """
        others = ((told - 1, slot) for slot, told in enumerate(self._all) if told != AWAY and slot != self._slot)
        tokens, slot = min(others, default=(0, None))
        return slot if self._away or self._held - tokens > (batch if tokens else 0) else None
