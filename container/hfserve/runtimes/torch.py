"""How a transformers model is loaded and run with torch."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import LoadError, OutOfMemory
from hfserve.runtimes import packing
from hfserve.settings import Options

MOST_TOKENS = 4096
"""Tokens of one pass at most, whatever one item holds: its memory is bounded."""

MOST_PADDING = 1.25
"""Padded tokens over real ones at most: padding costs more than running apart once it passes a quarter."""


def load(auto_class: Any, model_dir: Path, options: Options) -> Any:
    """A model in evaluation mode on its device; raises LoadError with what is wrong with the files."""
    pickled = only_pickles(model_dir, options)
    try:
        model = auto_class.from_pretrained(
            str(model_dir), trust_remote_code=options.trust_remote_code, local_files_only=True, weights_only=True,
            use_safetensors=not pickled, dtype="auto" if options.device != "cpu" else torch.float32,
        )  # fmt: skip
    except Exception as error:
        raise LoadError(f"the model did not load: {first_line(error)}") from error
    return model.eval().to(options.device)


def only_pickles(model_dir: Path, options: Options) -> bool:
    """Whether the weights are pickles and nothing else; raises LoadError when those are not allowed."""
    pickles = [] if any(model_dir.glob("*.safetensors")) else sorted(model_dir.glob("*.bin"))
    if pickles and not options.allow_pickle:
        raise LoadError(
            f"{pickles[0].name} is a pickle, which can run code when it is loaded; convert it to safetensors, "
            "or set HFSERVE_ALLOW_PICKLE=1 to load its weights only"
        )
    return bool(pickles)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let the calling lane use `count` threads for what it computes."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)
    yield


@contextlib.contextmanager
def memory_guard() -> Iterator[None]:
    """Turn torch's out-of-memory errors into ours, with the cache given back."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise OutOfMemory(f"out of GPU memory: {first_line(error)}") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise OutOfMemory(f"out of memory: {first_line(error)}") from error


def broken(error: BaseException) -> bool:
    """Whether the error leaves the GPU unusable for this process (a sticky CUDA error; contract row 12)."""
    return isinstance(error, torch.AcceleratorError)


def groups(lengths: Sequence[int], most_padding: float = MOST_PADDING) -> list[list[int]]:
    """Positions of sequences that are padded together, by length, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    found: list[list[int]] = []
    real = 0
    for i in order:
        padded = lengths[i] * (len(found[-1]) + 1) if found else 0
        if found and padded <= min(most_padding * (real + lengths[i]), MOST_TOKENS):
            found[-1].append(i)
            real += lengths[i]
        else:
            found.append([i])
            real = lengths[i]
    return found


def passes(lengths: Sequence[int]) -> list[slice]:
    """Sequences in their order, cut where a packed pass would hold more than `MOST_TOKENS`."""
    bounds, tokens = [0], 0
    for i, length in enumerate(lengths):
        if tokens and tokens + length > MOST_TOKENS:
            bounds.append(i)
            tokens = 0
        tokens += length
    return [slice(start, end) for start, end in pairwise([*bounds, len(lengths)])] if lengths else []


def forward(
    model: Any, encoded: Sequence[dict[str, list[int]]], pad: dict[str, int], *,
    output: Callable[[Any], Any] = lambda answer: answer.logits, per_token: bool = False,
) -> list[Any]:  # fmt: skip
    """What the model says of each sequence, float32 on the CPU; sequences of like length share a padded pass.

    `encoded` holds the model's inputs by name, `pad` what fills each of them up. `output` picks a tensor of shape
    (sequences, …) from the model's answer; with `per_token` its second axis is the tokens, and is cut to the real ones.
    """
    rows: list[Any] = [None] * len(encoded)
    with torch.inference_mode(), memory_guard():
        if packing.is_packed(model):
            parts = passes([len(each["input_ids"]) for each in encoded])
            return [row for part in parts for row in packing.forward(model, encoded[part], output, per_token=per_token)]
        lengths = [len(each["input_ids"]) for each in encoded]
        # Decoders that classify find the last token by the padding; without one they take a sequence at a time.
        alone = getattr(model.config, "pad_token_id", None) is None
        for group in [[i] for i in range(len(encoded))] if alone else groups(lengths):
            longest = max(len(encoded[i]["input_ids"]) for i in group)
            inputs = {
                name: torch.tensor(
                    [encoded[i][name] + [pad[name]] * (longest - len(encoded[i][name])) for i in group]
                ).to(model.device)
                for name in encoded[group[0]]
            }
            answers = output(model(**inputs)).float().cpu()
            for i, row in zip(group, answers, strict=True):
                rows[i] = row[: len(encoded[i]["input_ids"])] if per_token else row
    return rows


def first_line(error: BaseException) -> str:
    """What went wrong, in a line."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text[:500]}"
