"""The worker processes: started, heard, replaced when they die or hang."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hfserve.boot.nursery import Nursery
from hfserve.boot.processes import Child, Processes, describe
from hfserve.errors import LoadError
from hfserve.health import Health
from hfserve.metrics import SupervisorMetrics, forget
from hfserve.settings import Settings, child_environment

log = logging.getLogger(__name__)

SILENT = 10.0
"""Seconds without a heartbeat after which /ping no longer vouches for a worker."""

MOST_FAILURES = 3
"""Loads in a row that may fail after the first success before the server gives up."""


HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Asks the kernel for pages of 2 MiB, where it gives them on request: a lone short text is a walk through all weights,
and is answered up to a tenth sooner."""


MANNERS = {"OMP_WAIT_POLICY": "passive"}
"""Where models share the cores: threads that wait for each other leave them to another model's, and do not spin."""


PRIMITIVES = {"DNNL_PRIMITIVE_CACHE_CAPACITY": "64"}
"""How many of its prepared operations oneDNN keeps; its own default is 1024, and 100 MB."""


@dataclass(frozen=True, slots=True)
class Means:
    """What workers are started with, whichever model they are of.

    `home` is the run directory of the server, `many` says whether it has many models.
    """

    home: Path
    processes: Processes
    metrics: SupervisorMetrics
    many: bool = False
    tcp: int | None = None
    nursery: Nursery | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What their environment says, and that of the process they are forked from."""
        return HUGE_PAGES | (MANNERS if self.many else {}) | child_environment(
            PROMETHEUS_MULTIPROC_DIR=str(self.home / "metrics"), PYTHONUNBUFFERED="1",
            TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", TQDM_DISABLE="1",
            **PRIMITIVES,
        )  # fmt: skip


class WorkerProcess:
    """Slot number n of a model: one worker process at a time.

    Workers of one model of many listen on a socket that they share, too.
    """

    def __init__(
        self, slot: int, run_dir: Path, settings: Settings, means: Means, *,
        changed: Callable[[], None], name: str = "worker", shared: int | None = None,
    ) -> None:  # fmt: skip
        self.slot = slot
        self.pid = 0
        self.task = ""
        self.out_of_memory = False
        self._name = f"{name}-{slot}"
        self._run_dir = run_dir
        self._settings = settings
        self._means = means
        self._shared = shared
        self._changed = changed
        self._health = Health("starting", "the worker has not been started")
        self._heard = time.monotonic()
        self._child: Child | None = None
        self._was_ready = False
        self._stopping = False
        self._killed = False

    @property
    def health(self) -> Health:
        """What the worker last said, unless it has fallen silent since."""
        silence = time.monotonic() - self._heard
        if self._health.ok and silence > SILENT:
            return Health("starting", f"worker {self.slot} has been silent for {silence:.0f} s")
        return self._health

    async def live(self) -> None:
        """Keep a worker in this slot; raises StartError when its model cannot be loaded."""
        failures = 0
        ever_ready = False
        while True:
            began = time.monotonic()
            status = await self._one_life()
            if self._stopping:
                return
            was_ready = self._was_ready
            ever_ready = ever_ready or was_ready
            failures = 0 if was_ready else failures + 1
            failed = self._health.state == "failed"
            reason = self._health.reason if failed else f"worker {self.slot} ended: {describe(status)}"
            self.out_of_memory = self.out_of_memory or (self._was_killed(status) and not failed)
            if not was_ready and (not ever_ready or failures >= MOST_FAILURES):
                raise LoadError(reason if failed else f"{reason} while {self._health.reason}")
            self._means.metrics.restarts.labels("worker").inc()
            self._set(Health("starting", f"{reason}; it is being replaced"))
            log.error("%s; it is being replaced", reason, extra={"pid": self.pid})
            await asyncio.sleep(0 if time.monotonic() - began > 10 else min(failures, 5))

    async def stop(self, patience: float) -> None:
        """Let it end what it holds, then end it."""
        self._stopping = True
        if self._child:
            await self._child.end(signal.SIGTERM, patience)

    async def _one_life(self) -> int:
        self._was_ready = False
        self.out_of_memory = False
        self._killed = False
        reading, writing = os.pipe()
        try:
            self._child = child = await self._start(writing)
        finally:
            os.close(writing)
        self.pid = child.pid
        self._heard = time.monotonic()
        listening = asyncio.ensure_future(self._listen(reading, child))
        try:
            if self._stopping:
                child.kill_session()
            status = await asyncio.shield(child.ended)
            await listening
            return status
        finally:
            listening.cancel()
            child.kill_session()
            forget(self._means.home / "metrics", self.pid)

    async def _start(self, report: int) -> Child:
        """Fork it where that goes, else start it by itself."""
        means = self._means
        if means.nursery and self._shared is not None:
            forked = await means.nursery.fork(self._name, self._run_dir, self.slot, report=report, shared=self._shared)
            if forked:
                return forked
        argv = [
            sys.executable, "-m", "hfserve.doors.worker", "--run-dir", str(self._run_dir), "--slot", str(self.slot),
            "--name", self._name, "--report", str(report),
        ]  # fmt: skip
        passed = [report]
        for option, descriptor in (("--tcp", means.tcp), ("--shared", self._shared)):
            if descriptor is not None:
                argv += [option, str(descriptor)]
                passed.append(descriptor)
        return means.processes.start(self._name, argv, environment=means.environment, pass_fds=passed)

    def kill(self) -> None:
        """End it at once."""
        self._killed = True
        if self._child:
            self._child.kill_session()

    def _was_killed(self, status: int) -> bool:
        """Whether someone else killed it, as the kernel does when memory runs out."""
        return status == -signal.SIGKILL and not self._killed

    async def _listen(self, descriptor: int, child: Child) -> None:
        """Hear reports until the worker ends; kill it when it hangs."""
        reader = asyncio.StreamReader()
        pipe = os.fdopen(descriptor, "rb", 0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        born = time.monotonic()
        while True:
            loading = self._health.state == "starting"
            patience = (
                max(0.1, born + self._settings.startup_timeout_s - time.monotonic())
                if loading
                else self._settings.hang_s
            )
            try:
                line = await asyncio.wait_for(reader.readline(), patience)
            except TimeoutError:
                if not loading:
                    log.error("worker %d has been silent for %g s and is killed", self.slot, patience)
                    self.kill()
                    return
                line = b""
            if loading and time.monotonic() - born > self._settings.startup_timeout_s:
                self._set(
                    Health("failed", f"the model took longer than {self._settings.startup_timeout_s:g} s to load")
                )
                self.kill()
                return
            if not line:
                return
            self._hear(json.loads(line))

    def _hear(self, report: dict[str, object]) -> None:
        self._heard = time.monotonic()
        self.task = str(report.get("task", self.task))
        self.out_of_memory = bool(report.get("out_of_memory", self.out_of_memory))
        if "state" in report:
            self._set(Health(report["state"], str(report["reason"])))  # type: ignore[arg-type]
        overdue = report.get("overdue", 0)
        if isinstance(overdue, int | float) and overdue > self._settings.hang_s:
            log.error("worker %d hangs: a batch is %.0f s past its deadline; killed", self.slot, overdue)
            self.kill()

    def _set(self, health: Health) -> None:
        self._health = health
        self._was_ready = self._was_ready or health.ok
        self._changed()
