"""A tiny model for every task of the table, gathered from where they are built."""

import tiny
import tiny_diffusion
import tiny_pairs
import tiny_vision


def build(task, path):
    """Save a model of the task into a directory, and return the directory."""
    if task == "text-to-image":
        return tiny_diffusion.build(path)
    if task == "sentence-similarity":
        return tiny.build("feature-extraction-sentences", path)
    for module in (tiny, tiny_vision, tiny_pairs):
        for name in module.NAMES:
            if name == task or name.startswith(f"{task}-"):
                return module.build(name, path)
    raise LookupError(task)
