"""Which device a worker computes on, and how many threads it may use."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hfserve.errors import LoadError, SettingsError

if TYPE_CHECKING:
    import torch

AMPERE = 8
"""The first generation of NVIDIA's GPUs that computes in bfloat16; a T4 is of generation 7."""


def cores() -> int:
    """Cores this process may use: its affinity, cut by the cgroup's CPU quota (contract row 44)."""
    usable = len(os.sched_getaffinity(0))
    quota = _quota_v2(Path("/sys/fs/cgroup")) or _quota_v1(Path("/sys/fs/cgroup/cpu"))
    return max(1, min(usable, math.ceil(quota))) if quota else usable


def choose(wanted: str, slot: int) -> str:
    """The torch device of worker number `slot`: a GPU in turn where there is one and none is named."""
    import torch

    if wanted not in {"auto", "cuda"}:
        return wanted
    if wanted == "auto" and not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{slot % max(1, torch.cuda.device_count())}"


def check(device: str) -> None:
    """Raise SettingsError when torch cannot compute on the device."""
    import torch

    try:
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises many kinds for a device that is not there
        raise SettingsError(
            f"HFSERVE_DEVICE: torch cannot use {device} here: {str(error).partition(chr(10))[0]}"
        ) from error


def dtype(wanted: str, device: str) -> "torch.dtype":
    """The precision of a model on a device: `auto` is float32 on CPU, and the half a GPU is quick in.

    Raises LoadError for float16 on CPU, which has no fast way to compute in it.
    """
    import torch

    if device == "cpu" and wanted == "float16":
        raise LoadError("HFSERVE_DTYPE=float16 is for GPUs; on CPU take float32, or bfloat16 for speed")
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= AMPERE else torch.float16


def gpus() -> int:
    """GPUs of this machine, counted without loading torch."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def _quota_v2(root: Path) -> float | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(root: Path) -> float | None:
    try:
        quota = int((root / "cpu.cfs_quota_us").read_text())
        period = int((root / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
