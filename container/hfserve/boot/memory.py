"""How much memory is left, and how much of it a model will need."""

import contextlib
from pathlib import Path

from hfserve.artifacts.weights import PICKLED, SAFE
from hfserve.settings import MIB

CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
)
"""Version 2 and 1: the directory, the limit, what is used, and how much of that is files nobody needs any more."""

OVERHEAD = 64 * MIB
"""What a worker takes beside its weights when it shares its libraries with others."""

ALONE = 192 * MIB
"""What it takes more when it does not."""

GROWTH = 1.2
"""What weights grow by when they are loaded."""


def free() -> int:
    """Bytes that this machine has left, or the cgroup's limit leaves."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    left = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    for place, limit, used, files in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no limit, or no such cgroup
            group = Path(place)
            most = int((group / limit).read_text())
            stat = (group / "memory.stat").read_text()
            unneeded = next((int(line.split()[1]) for line in stat.splitlines() if line.startswith(files)), 0)
            left = min(left, most - int((group / used).read_text()) + unneeded)
    return max(left, 0)


def needed(model_dir: Path, *, workers: int, alone: bool) -> int:
    """What a model will take at a guess: its weights, of the format that it is loaded from, and each worker's own."""
    sizes = dict.fromkeys((SAFE, *PICKLED), 0)
    for file in model_dir.rglob("*"):
        if file.suffix in sizes and file.is_file():
            sizes[file.suffix] += file.stat().st_size
    weights = sizes[SAFE] or max(sizes.values())
    return workers * (int(weights * GROWTH) + OVERHEAD + (ALONE if alone else 0))
