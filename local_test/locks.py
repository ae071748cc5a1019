"""Locks on files: who holds one lives, for it ends with the process."""

import fcntl
import time
from typing import IO


def take(file: IO[str], patience: float = 0, *, shared: bool = False) -> bool:
    """Whether the lock was to be had in time; it is held until the file is closed, by all who inherited it."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
