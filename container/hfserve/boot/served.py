"""One model that is served: its files, its worker processes, and how they are."""

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfserve import artifacts
from hfserve.boot.processes import describe
from hfserve.boot.workers import Means, WorkerProcess
from hfserve.errors import ArtifactError, StartError
from hfserve.health import Health, combine
from hfserve.settings import Settings, child_environment

log = logging.getLogger(__name__)


class Served:
    """A model with a directory of its own, where its settings, its artifact and its workers' sockets lie."""

    def __init__(
        self, settings: Settings, run_dir: Path, means: Means, *, count: int, name: str = "worker",
        changed: Callable[[], None],
    ) -> None:  # fmt: skip
        self.settings = settings
        self.run_dir = run_dir
        self.workers: list[WorkerProcess] = []
        self._means = means
        self._count = count
        self._name = name
        self._changed = changed
        self._found = Health("starting", "the model's files are being found")

    @property
    def health(self) -> Health:
        """That of its worst part."""
        return combine([self._found, *(worker.health for worker in self.workers)])

    @property
    def ready(self) -> int:
        """How many of its workers can answer."""
        return sum(worker.health.ok for worker in self.workers)

    @property
    def task(self) -> str:
        """What its workers say that it does."""
        return next((worker.task for worker in self.workers), "")

    @property
    def out_of_memory(self) -> bool:
        """Whether a worker ended for want of memory."""
        return any(worker.out_of_memory for worker in self.workers)

    def open(self) -> None:
        """Make its directory what workers expect to find."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.settings.save(self.run_dir, run_dir=self._means.home, workers=self._count)
        self.changed()

    async def find(self) -> None:
        """Find the model; unpack or download it in a process of its own, so that this one stays small and awake."""
        if at_hand := artifacts.at_hand(self.settings):
            artifacts.save(at_hand, self.run_dir)
        else:
            await self._resolve()

    async def live(self, shared: int | None = None) -> None:
        """Keep its workers; raises StartError when one cannot be loaded."""
        means = self._means
        if shared is not None and artifacts.load(self.run_dir).python_path:
            means = replace(means, nursery=None)  # what it requires must come before what is imported there
        self.workers = [
            WorkerProcess(
                slot, self.run_dir, self.settings, means, changed=self.changed, name=self._name, shared=shared
            )
            for slot in range(self._count)
        ]
        self._found = Health("ready")
        await asyncio.gather(*(worker.live() for worker in self.workers))

    async def stop(self, patience: float) -> None:
        """Let its workers answer what they hold, and end them."""
        await asyncio.gather(*(worker.stop(patience) for worker in self.workers))

    def kill(self) -> None:
        """End its workers at once."""
        for worker in self.workers:
            worker.kill()

    def changed(self) -> None:
        """Tell nginx by a file whether nobody is ready."""
        if self.ready:
            (self.run_dir / "unready").unlink(missing_ok=True)
        else:
            (self.run_dir / "unready").touch()
        self._changed()

    async def _resolve(self) -> None:
        said: list[dict[str, Any]] = []
        child = self._means.processes.start(
            "artifacts",
            [sys.executable, "-m", "hfserve.artifacts", str(self.run_dir)],
            environment=child_environment(PYTHONUNBUFFERED="1", HF_HUB_DISABLE_TELEMETRY="1"),
            terminal=sys.stderr.isatty(),
            hear=said.append,
        )
        try:
            status = await asyncio.shield(child.ended)
            await asyncio.wait([child.heard], timeout=1)
        finally:
            child.kill_session()
        if status == StartError.exit_status:
            raise Told(next((str(event["event"]) for event in reversed(said) if event["level"] == "error"), ""))
        if status:
            raise ArtifactError(f"finding the model ended with {describe(status)}")


class Told(ArtifactError):
    """What is wrong with the model's files, and is in the log already."""
