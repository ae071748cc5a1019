"""How much memory a model will need."""

from pathlib import Path

from hfserve.artifacts.weights import PICKLED, SAFE
from hfserve.settings import MIB

OVERHEAD = 64 * MIB
"""What a worker takes beside its weights when it shares its libraries with others."""

ALONE = 192 * MIB
"""What it takes more when it does not."""

GROWTH = 1.2
"""What weights grow by when they are loaded."""


def needed(model_dir: Path, *, workers: int, alone: bool) -> int:
    """What a model will take at a guess: its weights, of the format that it is loaded from, and each worker's own."""
    sizes = dict.fromkeys((SAFE, *PICKLED), 0)
    for file in model_dir.rglob("*"):
        if file.suffix in sizes and file.is_file():
            sizes[file.suffix] += file.stat().st_size
    weights = sizes[SAFE] or max(sizes.values())
    return workers * (int(weights * GROWTH) + OVERHEAD + (ALONE if alone else 0))
