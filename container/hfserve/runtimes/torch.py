"""How a transformers model is loaded and run with torch."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from hfserve.errors import LoadError, OutOfMemory, first_line
from hfserve.runtimes import device, packing
from hfserve.settings import Options

MOST_TOKENS = 4096
"""Tokens of one pass at most, whatever one item holds: its memory is bounded."""

MOST_PADDED = 4
"""Places of a packed pass over its tokens at most, in what goes in and comes out."""

MOST_PADDING = 1.25
"""Padded tokens over real ones at most: padding costs more than running apart once it passes a quarter."""


def load(auto_class: Any, model_dir: Path, options: Options, dtype: torch.dtype | None = None) -> Any:
    """A model in evaluation mode on its device, in a precision of its own or the settings'; raises LoadError."""
    pickled = only_pickles(model_dir, options)
    dtype = dtype or device.precision(options)
    try:
        model = auto_class.from_pretrained(
            str(model_dir), trust_remote_code=options.trust_remote_code, local_files_only=True, weights_only=True,
            use_safetensors=not pickled, dtype=dtype,
        )  # fmt: skip
    except Exception as error:
        raise LoadError(f"the model did not load: {first_line(error)}") from error
    return model.eval().to(options.device)


def cast(model: Any, dtype: torch.dtype) -> None:
    """Give a model another precision as loading would: tables made in float32, of rotations, stay so."""
    fine = model._keep_in_fp32_modules or () if dtype == torch.float16 else ()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() and not set(fine) & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)


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


def passes(lengths: Sequence[int], most: int = MOST_TOKENS) -> list[list[int]]:
    """Positions of sequences in their order, cut where a packed pass would hold more than `most` tokens.

    What goes into the model and comes out is padded, so that is bounded too.
    """
    found: list[list[int]] = []
    tokens = longest = 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if not found or tokens + length > most or longest * (len(found[-1]) + 1) > MOST_PADDED * most:
            found.append([])
            tokens, longest = 0, length
        found[-1].append(i)
        tokens += length
    return found


def forward(
    model: Any, encoded: Sequence[dict[str, list[int]]], pad: dict[str, int], *,
    output: Callable[[Any], Any] = lambda answer: answer.logits, per_token: bool = False, only: int | None = None,
) -> list[Any]:  # fmt: skip
    """What the model says of each sequence, float32 on the CPU.

    `encoded` holds the model's inputs by name, `pad` what fills each of them up. `output` picks a tensor of shape
    (sequences, …) from the model's answer; with `per_token` its second axis is the tokens, and is cut to the real ones.
    With `only` it is cut to the tokens of that id, and a packed model computes nothing beyond its encoder for the rest.
    """
    rows: list[Any] = [None] * len(encoded)
    with torch.inference_mode(), memory_guard(), packing.only(only), device.lane(model.device):
        for group in _batches(model, [len(each["input_ids"]) for each in encoded]):
            batch = [encoded[i] for i in group]
            inputs = _padded(batch, pad, model.device)
            answers = output(model(**inputs))
            if only is not None and not packing.is_packed(model):
                answers = answers[inputs["input_ids"] == only][None]
            for i, row in zip(group, _rows(answers.float().cpu(), batch, per_token=per_token, only=only), strict=True):
                rows[i] = row
    return rows


def _batches(model: Any, lengths: Sequence[int]) -> list[list[int]]:
    packed = packing.packed(model)
    if packed:
        return passes(lengths, packed.most_tokens or MOST_TOKENS)
    # Decoders that classify find the last token by the padding; without one they take a sequence at a time.
    alone = getattr(model.config, "pad_token_id", None) is None
    return [[i] for i in range(len(lengths))] if alone else groups(lengths)


def _padded(batch: Sequence[dict[str, list[int]]], pad: dict[str, int], place: Any) -> dict[str, torch.Tensor]:
    longest = max(len(each["input_ids"]) for each in batch)
    columns = {
        name: torch.tensor([each[name] + [pad[name]] * (longest - len(each[name])) for each in batch])
        for name in batch[0]
    }
    return {name: device.put(column, place) for name, column in columns.items()}


def _rows(answers: Any, batch: Sequence[dict[str, list[int]]], *, per_token: bool, only: int | None) -> list[Any]:
    ids = [each["input_ids"] for each in batch]
    if only is not None:
        return list(answers[0].split([each.count(only) for each in ids]))
    return [row[: len(each)] if per_token else row for row, each in zip(answers, ids, strict=True)]
