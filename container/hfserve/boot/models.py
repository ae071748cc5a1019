"""Many models: loaded, listed, described and unloaded while the server runs (contract rows 29 to 31)."""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hfserve import artifacts
from hfserve.boot import memory, mms, processes
from hfserve.boot.catalogue import Catalogue
from hfserve.boot.served import Served
from hfserve.boot.workers import Means
from hfserve.errors import (
    Conflict,
    LoadError,
    ModelError,
    NotFound,
    NotReady,
    OutOfMemory,
    Overloaded,
    ServeError,
    StartError,
)
from hfserve.metrics import ModelsMetrics
from hfserve.runtimes import device
from hfserve.settings import MIB, Settings

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
"""A model's name stands in an address, and in the name of a socket."""

PAGE = 100
"""Models on a page of the list."""

SPARE = 32 * MIB
"""Bytes that a load leaves free; it ends before the machine is out of memory."""

WATCH = 0.2
"""Seconds between two looks at the memory while a model loads."""

State = Literal["loading", "loaded", "leaving"]


@dataclass(eq=False)
class Entry:
    """A model in the list."""

    name: str
    url: str
    on_demand: bool
    served: Served
    listener: socket.socket
    state: State = "loading"
    need: int = 0
    memory: int = 0
    users: int = 0
    used: float = 0.0
    short: bool = False
    living: "asyncio.Future[None] | None" = None
    loading: "asyncio.Task[None] | None" = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    backend: mms.Registration | None = None

    @property
    def run_dir(self) -> Path:
        """Where its sockets are."""
        return self.served.run_dir

    @property
    def broken(self) -> bool:
        """Whether its workers ended for good."""
        return self.state == "loaded" and self.living is not None and self.living.done()

    @property
    def status(self) -> str:
        """How it is, in a word."""
        if self.state != "loaded":
            return "Loading" if self.state == "loading" else "Unloading"
        return "Healthy" if self.served.health.ok else "Unhealthy" if self.broken else "Recovering"


class Models:
    """The models of a server, by name."""

    def __init__(self, settings: Settings, means: Means, metrics: ModelsMetrics, *, behind_mms: bool) -> None:
        self._settings = settings
        self._means = means
        self._metrics = metrics
        self._behind_mms = behind_mms
        self._catalogue = Catalogue(settings.models) if settings.models else None
        self._entries: dict[str, Entry] = {}
        self._measured: dict[tuple[str, str], int] = {}
        self._gate = asyncio.Semaphore(device.cores())
        self._number = 0
        self._stopping = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Make the directories of models and of their names, without what an earlier server left there."""
        for name in ("models", "names"):
            (self._means.home / name).mkdir(exist_ok=True)
        for left in (self._means.home / "models").iterdir():
            if left.name.isdigit():
                shutil.rmtree(left, ignore_errors=True)
        for left in (self._means.home / "names").iterdir():
            if left.is_symlink():
                left.unlink()

    # What can be asked

    async def load(self, name: str, url: str) -> Entry:
        """Load a model, and return when it can answer."""
        if not _exists(url):
            raise NotFound(f"there is no {url[:1000]} here")
        if name in self._entries:
            state = "being loaded" if self._entries[name].state == "loading" else "loaded already"
            raise Conflict(f"{name} is {state}, from {self._entries[name].url}")
        entry = self._add(name, url)
        await self._loaded(entry)
        return entry

    async def unload(self, name: str) -> Entry:
        """Unload a model, and return when its memory is free."""
        entry = self.find(name)
        if entry.state == "loading":
            raise Conflict(f"{name} is being loaded; unload it when it is")
        if entry.state == "loaded":
            entry.state = "leaving"
            self._begin(self._unload(entry))
        await entry.gone.wait()
        return entry

    def find(self, name: str) -> Entry:
        """A model by its name."""
        if name not in self._entries:
            raise NotFound(f"no model is loaded under the name {name[:100]}")
        return self._entries[name]

    def invoked(self, name: str) -> Entry:
        """A model that is to answer."""
        entry = self._entries.get(name)
        if entry is None or entry.state != "loaded":
            raise NotFound(f"no model is loaded under the name {name[:100]}")
        if not entry.served.ready:
            raise NotReady(f"{name} has no worker that is ready: {entry.served.health.reason}")
        return entry

    def page(self, after: str) -> dict[str, object]:
        """Names and places of the loaded models, by name, `PAGE` of them at a time."""
        names = sorted(name for name, entry in self._entries.items() if entry.state != "loading" and name > after)
        listed: dict[str, object] = {
            "models": [{"modelName": name, "modelUrl": self._entries[name].url} for name in names[:PAGE]]
        }
        return {**listed, "nextPageToken": names[PAGE - 1]} if len(names) > PAGE else listed

    def describe(self, name: str) -> dict[str, object]:
        """What is known of a model."""
        entry = self.find(name)
        served = entry.served
        return {
            "modelName": name, "modelUrl": entry.url, "status": entry.status, "reason": served.health.reason,
            "task": served.task, "workers": len(served.workers), "readyWorkers": served.ready,
            "pids": [worker.pid for worker in served.workers], "memoryBytes": entry.memory, "onDemand": entry.on_demand,
        }  # fmt: skip

    @contextlib.asynccontextmanager
    async def use(self, name: str, task: str | None) -> AsyncIterator[Entry]:
        """A model that stays while it is used; one that is not there is loaded when HFSERVE_MODELS allows it."""
        entry = await self._at_hand(name, task)
        entry.users += 1
        try:
            yield entry
        finally:
            entry.users -= 1
            entry.used = time.monotonic()

    async def measure(self, *entries: Entry) -> None:
        """Bring the memory of these models up to date, of all when none is named."""
        entries = entries or tuple(entry for entry in self._entries.values() if entry.state == "loaded")
        leaders = [[worker.pid for worker in entry.served.workers] for entry in entries]
        sizes = await asyncio.to_thread(_held, leaders, processes.private_memory)
        for entry, size in zip(entries, sizes, strict=True):
            if entry.state == "loaded":
                entry.memory = size
                self._metrics.memory.labels(entry.name).set(size)

    def names(self) -> list[str]:
        """The models that are loaded."""
        return sorted(name for name, entry in self._entries.items() if entry.state == "loaded")

    def pids(self) -> list[int]:
        """The leaders of the workers' sessions."""
        return [worker.pid for entry in self._entries.values() for worker in entry.served.workers]

    def refuse(self) -> None:
        """Load nothing any more; who waits for a load is told so."""
        self._stopping = True
        for entry in self._entries.values():
            if entry.loading and not entry.loading.done():
                entry.loading.cancel()

    async def stop(self, patience: float) -> None:
        """End all models."""
        for entry in self._entries.values():
            if entry.backend:
                entry.backend.let_go()
        await asyncio.gather(*(entry.served.stop(patience) for entry in list(self._entries.values())))
        for task in self._tasks:
            task.cancel()

    # Loading

    def _add(self, name: str, url: str, *, task: str | None = None, on_demand: bool = False) -> Entry:
        """A model that begins to load."""
        if self._stopping:
            raise NotReady("the server is stopping; load the model in another one")
        entry = self._entry(name, url, task, on_demand=on_demand)
        self._entries[name] = entry
        entry.loading = self._begin(self._bring_up(entry))
        return entry

    async def _loaded(self, entry: Entry) -> None:
        """Wait for a load, whoever began it."""
        assert entry.loading
        await asyncio.wait({entry.loading})
        if entry.loading.cancelled():
            raise NotReady("the server is stopping; load the model in another one")
        if error := entry.loading.exception():
            raise error

    def _entry(self, name: str, url: str, task: str | None, *, on_demand: bool) -> Entry:
        self._number += 1
        run_dir = self._means.home / "models" / str(self._number)
        changes: dict[str, object] = {"model": url, "submit_directory": None, "device": self._device()}
        settings = self._settings.model_copy(update=changes | ({"task": task} if task else {}))
        served = Served(
            settings, run_dir, self._means, count=self._settings.workers or 1, name=name, changed=self._changed
        )
        return Entry(name, url, on_demand, served, socket.socket(socket.AF_UNIX))

    def _device(self) -> str:
        """The GPU with the fewest models, where there are several."""
        if (count := device.gpus()) < 2 or self._settings.device not in {"auto", "cuda"}:
            return self._settings.device
        taken = [entry.served.settings.device for entry in self._entries.values()]
        return min((f"cuda:{number}" for number in range(count)), key=taken.count)

    async def _bring_up(self, entry: Entry) -> None:
        """From its name to an answer; whatever goes wrong leaves nothing behind."""
        started = time.monotonic()
        watching: asyncio.Task[None] | None = None
        log.info("loading a model", extra={"model": entry.name, "url": entry.url})
        try:
            entry.served.open()
            entry.listener.bind(str(entry.run_dir / "http.sock"))
            entry.listener.listen(1024)
            entry.listener.setblocking(False)
            await entry.served.find()
            async with self._gate:
                await self._make_room(entry)
                watching = self._begin(self._watch(entry))
                await self._start(entry)
                if await self._left() < SPARE:
                    entry.short = True
                    raise LoadError("what is left when it is loaded is too little")
            if self._behind_mms:
                entry.backend = mms.Registration(self._means.home, entry.name, entry.run_dir, self._settings)
                await entry.backend.join()
            (self._means.home / "names" / entry.name).symlink_to(entry.run_dir)
        except BaseException as error:
            await asyncio.shield(self._forget(entry, 0))
            if isinstance(error, asyncio.CancelledError):
                raise
            failure = self._failure(entry, error)
            self._metrics.loads.labels(str(failure.status)).inc()
            log.warning("a model did not load: %s", failure, extra={"model": entry.name, "status": failure.status})
            raise failure from error
        finally:
            entry.need = 0
            if watching:
                watching.cancel()
        entry.state, entry.used = "loaded", time.monotonic()
        await self.measure(entry)
        self._measured[entry.url, entry.served.settings.task or ""] = entry.memory
        self._metrics.loads.labels("200").inc()
        self._count()
        seconds = round(time.monotonic() - started, 2)
        said = {"model": entry.name, "seconds": seconds, "memory_mb": round(entry.memory / MIB)}
        log.info("loaded a model", extra=said)

    async def _start(self, entry: Entry) -> None:
        """Start its workers; returns when all are ready, and raises StartError when one cannot be."""
        living = entry.living = asyncio.ensure_future(entry.served.live(entry.listener.fileno()))
        living.add_done_callback(lambda done: self._ended(entry, None if done.cancelled() else done.exception()))
        while not entry.served.health.ok:
            await asyncio.wait({living}, timeout=0.01)
            if living.done():
                living.result()

    def _ended(self, entry: Entry, error: BaseException | None) -> None:
        if error and entry.state == "loaded":
            log.error("a model cannot be kept: %s", error, extra={"model": entry.name})

    @staticmethod
    def _failure(entry: Entry, error: BaseException) -> ServeError:
        if isinstance(error, ServeError):
            return error
        if entry.short or entry.served.out_of_memory:
            return OutOfMemory(f"{entry.name} does not fit into the memory: {error}")
        if not isinstance(error, StartError):
            log.error("a load failed unexpectedly", exc_info=error)
        return ModelError(f"{entry.name} did not load: {error}")

    # Memory

    async def _make_room(self, entry: Entry) -> None:
        """Wait for what can be unloaded; raises OutOfMemory when the model will not fit."""
        artifact = artifacts.load(entry.run_dir)
        count, alone = self._settings.workers or 1, bool(artifact.python_path) or self._means.nursery is None
        need = self._measured.get((entry.url, entry.served.settings.task or ""), 0)
        need = need or await asyncio.to_thread(memory.needed, artifact.model_dir, workers=count, alone=alone)
        while need + SPARE > (left := await self._left() - sum(other.need for other in self._entries.values())):
            if not (entry.on_demand and await self._unload_one()):
                raise OutOfMemory(
                    f"{entry.name} needs about {need // MIB} MiB of memory and {max(0, left // MIB)} MiB are left; "
                    "unload another model first"
                )
        entry.need = need

    async def _left(self) -> int:
        """Bytes that may still be used."""
        left = device.free_memory(with_files=True)
        if self._settings.memory_mb:
            [used] = await asyncio.to_thread(_held, [self._means.processes.pids()], processes.memory)
            left = min(left, self._settings.memory_mb * MIB - used - processes.memory(os.getpid()))
        return left

    async def _watch(self, entry: Entry) -> None:
        """End a load that takes what others need."""
        while await self._left() > SPARE:
            await asyncio.sleep(WATCH)
        entry.short = True
        entry.served.kill()

    # Unloading

    async def _unload(self, entry: Entry) -> None:
        held = entry.memory
        log.info("unloading a model", extra={"model": entry.name})
        (entry.run_dir / "leaving").touch()
        await self._forget(entry, self._settings.drain_s)
        self._metrics.unloads.inc()
        log.info("unloaded a model", extra={"model": entry.name, "memory_mb": round(held / MIB)})

    async def _forget(self, entry: Entry, patience: float) -> None:
        """End all that is of a model, and then its name is free."""
        if patience:
            await entry.served.stop(patience)
        entry.served.kill()
        if entry.living:
            entry.living.cancel()
            await asyncio.wait({entry.living})
        if entry.backend:
            await entry.backend.leave()
        entry.listener.close()
        (self._means.home / "names" / entry.name).unlink(missing_ok=True)
        await asyncio.to_thread(shutil.rmtree, entry.run_dir, ignore_errors=True)
        del self._entries[entry.name]
        with contextlib.suppress(KeyError):
            self._metrics.memory.remove(entry.name)
        self._count()
        entry.gone.set()

    async def _unload_one(self) -> bool:
        """Unload what was loaded on demand and has not been used for the longest; False when all are in use."""
        idle = [
            entry for entry in self._entries.values() if entry.on_demand and entry.state == "loaded" and not entry.users
        ]
        if not idle:
            return False
        await self.unload(min(idle, key=lambda entry: entry.used).name)
        return True

    # On demand

    async def _at_hand(self, name: str, task: str | None) -> Entry:
        while True:
            key, url = self._key(name, task)
            entry = self._entries.get(key)
            if entry is None:
                if url is None:
                    raise NotFound(f"no model is loaded under the name {name[:100]}")
                await self._make_place()
                if key in self._entries or self._full():
                    continue
                entry = self._add(key, url, task=task, on_demand=True)
            if entry.state == "loading":
                entry.users += 1
                try:
                    await self._loaded(entry)
                finally:
                    entry.users -= 1
            elif entry.state == "leaving" or (entry.broken and entry.on_demand):
                await self.unload(key)
                continue
            if entry.state == "loaded":
                if not entry.served.ready:
                    raise NotReady(f"{name} has no worker that is ready: {entry.served.health.reason}")
                return entry

    def _key(self, name: str, task: str | None) -> tuple[str, str | None]:
        """Under which name a model is to be found, and from where it may be loaded."""
        loaded = self._entries.get(name)
        if loaded and not loaded.on_demand:
            return name, None
        found = self._catalogue.find(name) if self._catalogue else None
        if found is None:
            known = ", ".join(list(self._catalogue.names())[:10]) if self._catalogue else ""
            raise NotFound(f"there is no model {name[:100]} here" + (f"; there are {known}" if known else ""))
        key, url = found
        plain = self._entries.get(key)
        if task is None or (plain and plain.state == "loaded" and plain.served.task == task):
            return key, url
        return f"{key}--{task}", url

    def _full(self) -> bool:
        most = self._settings.max_models
        return most is not None and sum(entry.on_demand for entry in self._entries.values()) >= most

    async def _make_place(self) -> None:
        """Let there be fewer models than HFSERVE_MAX_MODELS."""
        while self._full():
            leaving = [entry for entry in self._entries.values() if entry.on_demand and entry.state == "leaving"]
            if leaving:
                await leaving[0].gone.wait()
            elif not await self._unload_one():
                raise Overloaded(f"{self._settings.max_models} models are loaded and all are in use; retry later")

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_seen)
        return task

    def _changed(self) -> None:
        self._means.metrics.workers_ready.set(sum(entry.served.ready for entry in self._entries.values()))

    def _count(self) -> None:
        self._metrics.loaded.set(sum(entry.state == "loaded" for entry in self._entries.values()))


def _exists(url: str) -> bool:
    try:
        return Path(url).expanduser().exists()
    except (OSError, RuntimeError):  # no name that a file can have, or nobody's home
        return False


def _seen(task: "asyncio.Task[None]") -> None:
    """Whoever waits for a task is told of its error; of what nobody expects, the log."""
    error = None if task.cancelled() else task.exception()
    if error and not isinstance(error, ServeError):
        log.error("what a model needs failed unexpectedly", exc_info=error)


def _held(leaders: list[list[int]], by: Callable[[int], int]) -> list[int]:
    """Bytes that the sessions hold, of each list of their leaders."""
    found = processes.sessions()
    return [sum(by(pid) for leader in each for pid in found.get(leader, ())) for each in leaders]
