"""Which device a worker computes on, how many threads it may use, and what its errors mean."""

import contextlib
import math
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hfserve.errors import LoadError, SettingsError

if TYPE_CHECKING:
    import torch

    from hfserve.settings import Options

DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""What a GPU's driver shows: NVIDIA's, its Jetsons', AMD's, and Windows' for either.

Without one of them torch need not be asked."""

AMPERE = 8
"""The first generation of NVIDIA's GPUs that computes in bfloat16; a T4 is of generation 7."""


class AtOnce(NamedTuple):
    """How much a worker runs at once where the settings do not say: lanes, and of a batch items and tokens."""

    lanes: int
    max_batch: int
    max_batch_tokens: int


ON_CPU = (32, 256)
"""A batch stays in the caches of a core."""

ON_CUDA = AtOnce(2, 64, 4096)
"""While one lane starts kernels or makes answers, the other's run; a batch fills a pass (runtimes/torch.py)."""

CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
)
"""Version 2 and 1: the directory, the limit, what is used, and how much of that is files nobody needs any more."""

MOST_LANES = 8
"""Lanes that one process has: more of them wait for Python's lock more than they gain."""

_mine = threading.local()
_shared = 1
"""How many workers there are, each with its share of this machine."""


def divide(workers: int) -> None:
    """Let this process have its share only of the cores and the memory, as one of so many workers."""
    global _shared
    _shared = workers


def processes(wanted: str) -> int:
    """How many workers suit a machine: one per GPU, unless a device is named; on CPU more where lanes stop scaling."""
    if wanted in {"auto", "cuda"} and (graphics := gpus()):
        return graphics
    return math.ceil(cores() / MOST_LANES) if wanted in {"auto", "cpu"} else 1


def at_once(device: str) -> AtOnce:
    """What suits a device: a lane a core on CPU, two on a GPU, elsewhere one, for no more has been tried there."""
    if device == "cpu":
        return AtOnce(cores(), *ON_CPU)
    return ON_CUDA if device.startswith("cuda") else ON_CUDA._replace(lanes=1)


def cores() -> int:
    """Cores this process may use: its affinity, cut by the cgroup's CPU quota (contract row 44), and its share."""
    usable = len(os.sched_getaffinity(0))
    quota = _quota_v2(Path("/sys/fs/cgroup")) or _quota_v1(Path("/sys/fs/cgroup/cpu"))
    return max(1, (min(usable, math.ceil(quota)) if quota else usable) // _shared)


def choose(wanted: str, slot: int) -> str:
    """The torch device of worker number `slot`: a GPU in turn where there is one and none is named."""
    if wanted not in {"auto", "cuda"}:
        return wanted
    if wanted == "auto" and not any(Path(node).exists() for node in DRIVERS):
        return "cpu"
    import torch

    if wanted == "auto" and not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{slot % max(1, torch.cuda.device_count())}"


def check(device: str) -> None:
    """Raise SettingsError when torch cannot compute on the device."""
    if device == "cpu":
        return
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


def precision(options: "Options") -> "torch.dtype":
    """The same for a model that torch alone can run; raises LoadError when OpenVINO is asked for."""
    if options.runtime == "openvino":
        raise LoadError(
            "HFSERVE_RUNTIME=openvino is for text encoders; unset it (and HFSERVE_DTYPE=int8) for this model"
        )
    return dtype(options.dtype, options.device)


def put(tensor: "torch.Tensor", place: "torch.device") -> "torch.Tensor":
    """A tensor of the host on a device; nobody waits for a GPU, whose stream keeps the order.

    Pinned memory is handed out anew only when the copy is through, which torch sees to.
    """
    return tensor.pin_memory().to(place, non_blocking=True) if place.type == "cuda" else tensor.to(place)


def lane(place: "torch.device") -> contextlib.AbstractContextManager[object]:
    """The calling thread's own stream on a GPU, so that no lane waits for another's kernels; elsewhere nothing.

    It begins after what the default stream was given, where weights are loaded and cast. What is computed inside may
    leave as copies on the host only: memory of a stream is used again in its order, and no other's.
    """
    if place.type != "cuda":
        return contextlib.nullcontext()
    import torch

    streams: dict[torch.device, torch.cuda.Stream] = vars(_mine).setdefault("streams", {})
    if place not in streams:
        streams[place] = torch.cuda.Stream(place)  # type: ignore[no-untyped-call]
    stream = streams[place]
    stream.wait_stream(torch.cuda.default_stream(place))
    return torch.cuda.stream(stream)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let the calling lane use `count` threads for what it computes with torch, if anything."""
    if (torch := _torch()) and torch.get_num_threads() != count:
        torch.set_num_threads(count)
    yield


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, the GPU's or the machine's."""
    return isinstance(error, MemoryError) or bool((torch := _torch()) and isinstance(error, torch.OutOfMemoryError))


def broken(error: BaseException) -> bool:
    """Whether the error leaves the GPU unusable for this process (a sticky CUDA error; contract row 12)."""
    return bool((torch := _torch()) and isinstance(error, torch.AcceleratorError))


def _torch() -> Any:
    """Torch where it is in use: user code may do without, which spares a second and 170 MiB."""
    module = sys.modules.get("torch")
    return module if hasattr(module, "AcceleratorError") else None  # another thread may just be importing it


def gpus() -> int:
    """GPUs of this machine, counted without loading torch."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def free_memory(*, with_files: bool = False) -> int:
    """Bytes of memory that this machine has left, or the cgroup's limit leaves; of these a worker's share.

    `with_files` counts what the cgroup holds of files that nobody needs any more as left.
    """
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    for place, limit, used, files in CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no limit, or no such cgroup
            group = Path(place)
            left = int((group / limit).read_text()) - int((group / used).read_text())
            free = min(free, left + (_unneeded(group, files) if with_files else 0))
    return max(free, 0) // _shared


def _unneeded(group: Path, files: str) -> int:
    stat = (group / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in stat if line.startswith(files)), 0)


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
