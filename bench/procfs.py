"""What /proc tells of a tree of processes, and of the machine around it: CPU time, and memory as PSS."""

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024
"""KiB, which is how /proc counts memory."""

SAMPLE_EVERY = 2.0
"""Seconds between two looks at the memory."""


class Meter:
    """CPU and peak memory of a tree of processes, this process's CPU, and everybody else's, while inside `with`.

    PSS divides a page among the processes that share it, so that the sum over a tree counts each page once. The kernel
    takes many milliseconds to tell it, so a thread of its own asks, and no answer waits for that to be noticed. Without
    a tree only this process is told from everybody else.
    """

    def __init__(self, root: int | None = None) -> None:
        self._root = root
        self._peak = 0.0
        self._stopped = threading.Event()
        self.figures: dict[str, float] = {}
        """Cores used on average, and the peak of the memory in MiB."""

    def __enter__(self) -> Self:
        pids = self._pids()
        self._sampler = threading.Thread(target=self._sample, args=(pids,), daemon=True)
        self._sampler.start()
        self._before = _each_cpu(pids)
        self._busy, self._own, self._clock = busy_seconds(), own_seconds(), time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        seconds = time.perf_counter() - self._clock
        own = own_seconds() - self._own
        busy = busy_seconds() - self._busy
        pids = self._pids()
        server = sum(used - self._before.get(pid, 0.0) for pid, used in _each_cpu(pids).items())
        self._stopped.set()
        self._sampler.join()
        self.figures = {
            "server_cores": round(server / seconds, 3), "own_cores": round(own / seconds, 3),
            "foreign_cores": round(max(0.0, busy - own - server) / seconds, 3),
            "peak_mib": round(max(self._peak, pss(pids)), 1),
        }  # fmt: skip

    def _sample(self, pids: list[int]) -> None:
        while not self._stopped.wait(SAMPLE_EVERY):
            self._peak = max(self._peak, pss(pids))

    def _pids(self) -> list[int]:
        return tree(self._root) if self._root else []


def tree(root: int) -> list[int]:
    """A process and all its descendants, itself first."""
    children: dict[int, list[int]] = {}
    for pid in (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()):
        if fields := _stat(pid):
            children.setdefault(int(fields[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that the processes have used so far."""
    return sum(_each_cpu(pids).values())


def pss(pids: Iterable[int], part: str = "Pss") -> float:
    """Memory of the processes in MiB, or a part of it, as the kernel names it: `Pss_Anon` is in no file."""
    return sum(_pss(pid, part) for pid in pids) / MIB


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def busy_seconds() -> float:
    """CPU time of the whole machine that was not idle, time stolen by the hypervisor included."""
    line = (PROC / "stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def own_seconds() -> float:
    """CPU time of this process."""
    times = os.times()
    return times.user + times.system


def machine() -> dict[str, str | int | float]:
    """The machine, for the report."""
    models = [line.partition(":")[2].strip() for line in _lines("cpuinfo") if line.startswith("model name")]
    memory = next(int(line.split()[1]) for line in _lines("meminfo") if line.startswith("MemTotal"))
    return {
        "cpu": models[0] if models else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / MIB**2, 1),
    }


def _each_cpu(pids: Iterable[int]) -> dict[int, float]:
    stats = {pid: _stat(pid) for pid in pids}
    return {pid: (int(fields[11]) + int(fields[12])) / TICKS for pid, fields in stats.items() if fields}


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; none when the process has ended. Its name may hold anything."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _pss(pid: int, part: str) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{part}:")), 0)


def _lines(name: str) -> list[str]:
    return (PROC / name).read_text().splitlines()
