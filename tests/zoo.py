"""A tiny model for every task of the table, gathered from where they are built."""

import tiny
import tiny_diffusion
import tiny_pairs
import tiny_seeing
import tiny_vision
import tiny_wrapped

HOMES = (tiny, tiny_vision, tiny_pairs, tiny_wrapped, tiny_seeing)


def named(name, path):
    """Save the tiny model of a name into a directory, and return the directory."""
    return next(home for home in HOMES if name in home.NAMES).build(name, path)


def build(task, path):
    """Save a model of the task into a directory, and return the directory."""
    if task == "text-to-image":
        return tiny_diffusion.build(path)
    if task == "sentence-similarity":
        return tiny.build("feature-extraction-sentences", path)
    names = [name for home in HOMES for name in home.NAMES]
    return named(next(name for name in names if name == task or name.startswith(f"{task}-")), path)
