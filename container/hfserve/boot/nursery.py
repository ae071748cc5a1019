"""Asks the process that forks workers of many models, and starts it again when it ends."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from hfserve.boot.processes import Child, Processes, describe
from hfserve.metrics import SupervisorMetrics

log = logging.getLogger(__name__)

MOST_FAILURES = 3
"""Ends in a row, each soon after its start, after which workers are started by themselves."""

SOON = 5.0


class Nursery:
    """Forks workers in a moment, which share the memory of what they import; None where it cannot."""

    def __init__(self, processes: Processes, metrics: SupervisorMetrics, environment: Mapping[str, str]) -> None:
        self.child: Child | None = None
        self.over = asyncio.Event()
        """Set when the first has imported all, or when there will be none."""
        self._processes = processes
        self._metrics = metrics
        self._environment = environment
        self._asking: socket.socket | None = None

    async def live(self) -> None:
        """Keep the process."""
        failures = 0
        while failures < MOST_FAILURES:
            began = time.monotonic()
            self._asking, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            argv = [sys.executable, "-m", "hfserve.doors.nursery", "--socket", str(theirs.fileno())]
            self.child = self._processes.start(
                "nursery", argv, environment=self._environment, pass_fds=[theirs.fileno()]
            )
            theirs.close()
            self._asking.setblocking(False)
            with contextlib.suppress(OSError):
                if await asyncio.get_running_loop().sock_recv(self._asking, 16):
                    self.over.set()
            status = await asyncio.shield(self.child.ended)
            self._asking.close()
            self._asking = None
            failures = failures + 1 if time.monotonic() - began < SOON else 0
            self._metrics.restarts.labels("nursery").inc()
            log.error("the process that workers are forked from ended with %s", describe(status))
        self.over.set()
        log.error("it is not started any more: every worker imports for itself, and takes longer to load")

    async def fork(self, name: str, run_dir: Path, slot: int, *, report: int, shared: int) -> Child | None:
        """A worker; None when it has to be started in another way."""
        if self._asking is None:
            return None
        reading, printed = os.pipe()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        request = {"name": name, "run_dir": str(run_dir), "slot": slot}
        try:
            with theirs:
                files = [printed, theirs.fileno(), report, shared]
                socket.send_fds(self._asking, [json.dumps(request).encode()], files)
            pid = int(await asyncio.get_running_loop().sock_recv(ours, 16))
            child = self._processes.adopt(name, pid, os.dup(reading))
            ours.send(b"!")
            return child
        except (OSError, ValueError) as error:
            log.warning("a worker could not be forked: %r", error)
            return None
        finally:
            ours.close()
            os.close(reading)
            os.close(printed)
