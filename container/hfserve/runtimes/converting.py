"""Pickled weights as safetensors: read without running anything they hold, a file at a time."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from hfserve.errors import ArtifactError


def to_safetensors(pickled: Path, target: Path) -> None:
    """Write the same tensors under the same names; raises ArtifactError for a pickle that holds anything else."""
    try:
        found = torch.load(pickled, map_location="cpu", weights_only=True, mmap=_is_zip(pickled))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ArtifactError(f"{pickled.name} cannot be read as weights only, and is not converted: {reason}") from None
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ArtifactError(f"{pickled.name} holds more than tensors by name, and is not converted")
    save_file(_apart(found), target, metadata={"format": "pt"})


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What shares memory is copied for each name: which of them a model ties is for the model to say."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        whole = tensor.contiguous()
        place = whole.untyped_storage().data_ptr()
        apart[name] = whole.clone() if place in seen else whole
        seen.add(place)
    return apart


def _is_zip(path: Path) -> bool:
    """The form that torch has written since 1.6, which alone can be mapped into memory."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"
