"""`make soak`: many requests to one server, and whether its memory stays flat; exits 1 when it does not."""

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from typing import Self

import procfs
import targets
import workload

from hfserve.bench import bodies
from hfserve.bench.load import Bound, Sockets, Tally

CASE = "text-classification"
MOST_GROWTH = 0.01
"""Of the memory, by how much it may grow over the last half of the run."""

PARTS = 10

Sample = tuple[float, float, float]
"""When, and the memory then in MiB: all of it, and what is the processes' own."""


class Watch:
    """Looks at the memory of a tree of processes every few seconds, while inside `with`."""

    def __init__(self, root: int, every: float) -> None:
        self.samples: list[Sample] = []
        self._root = root
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._thread.join()

    def since(self, when: float) -> list[Sample]:
        """The samples from then on."""
        return [sample for sample in self.samples if sample[0] >= when]

    def _look(self) -> None:
        while not self._stopped.wait(self._every):
            pids = procfs.tree(self._root)
            self.samples.append((time.perf_counter(), procfs.pss(pids), procfs.pss(pids, "Pss_Anon")))


def growth(samples: Sequence[Sample]) -> float:
    """By what share the processes' own memory grew, along the straight line through the samples.

    Pages of files are left out: how they are shared depends on whatever else runs on the machine.
    """
    if len(samples) < 2:
        return 0.0
    times, own = [sample[0] for sample in samples], [sample[2] for sample in samples]
    slope = statistics.linear_regression(times, own).slope
    return slope * (times[-1] - times[0]) / statistics.mean(own)


def soak(server: targets.Server, given: argparse.Namespace) -> tuple[float, int]:
    """Send the requests, show each tenth of them; the growth over the last half, and how many errors there were."""
    case = workload.CASES[CASE]
    print("requests  requests/s   p50 ms   p99 ms   memory MiB   own MiB   errors", flush=True)
    errors = 0
    crowd = Sockets(server.url, bodies.of(case.bodies()), given.clients, must_hold=case.must_hold)
    with Watch(server.pid, given.every) as watch, crowd:
        for part in range(1, PARTS + 1):
            began = time.perf_counter()
            if part == PARTS // 2 + 1:
                half = began
            tally = crowd.run(Bound(requests=given.requests // PARTS))
            errors += tally.errors.total()
            print(line(given.requests * part // PARTS, tally, watch.since(began) or watch.samples[-1:]), flush=True)
        errors += crowd.drain().total()
    return growth(watch.since(half)), errors


def line(count: int, tally: Tally, samples: Sequence[Sample]) -> str:
    """A tenth of the run: its speed, and the most memory in it."""
    memory, own = (max((sample[i] for sample in samples), default=0.0) for i in (1, 2))
    return (
        f"{count:8}  {tally.requests_per_s:10.1f}  {tally.percentile(0.5) or 0:7.0f}  "
        f"{tally.percentile(0.99) or 0:7.0f}  {memory:11.0f}  {own:8.0f}  {tally.errors.total():7}"
    )


def main() -> None:
    """Serve, soak, judge."""
    parser = argparse.ArgumentParser(prog="bench/soak.py", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two looks (default: %(default)s)")
    parser.add_argument("--target", choices=targets.TARGETS, default="hfserve", help="default: %(default)s")
    given = parser.parse_args()
    model = workload.build_model(CASE, targets.CACHE / CASE)
    with targets.started(targets.TARGETS[given.target], model, CASE) as server:
        print(f"{targets.TARGETS[given.target].name}, up after {server.startup_s:.1f} s", flush=True)
        before = procfs.cpu_seconds(procfs.tree(server.pid))
        grown, errors = soak(server, given)
        used = procfs.cpu_seconds(procfs.tree(server.pid)) - before
    print(f"{used / given.requests * 1000:.1f} ms of CPU a request; {errors} errors")
    print(f"over the last half, memory grew by {grown:.2%}")
    if errors or grown > MOST_GROWTH:
        sys.exit("memory is not flat" if grown > MOST_GROWTH else "there were errors")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
