"""What a worker counts, and how the supervisor adds it up.

Workers count into memory-mapped files in the run directory (prometheus-client's multiprocess mode), so that sums
survive a worker that was replaced. The mode is chosen by PROMETHEUS_MULTIPROC_DIR when a worker starts.
"""

import threading
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from hfserve.messages import Batch, Step

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OF_THE_DEAD = 0
"""Stands for the number of a process in the names of files."""

_files = threading.Lock()
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class WorkerMetrics:
    """The counters of one worker process."""

    def __init__(self, task: str, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.task = task
        self.requests = Counter(
            "hfserve_requests", "Requests answered, by task and status.", ["task", "status"], registry=registry
        )
        self.in_flight = Gauge(
            "hfserve_requests_in_flight", "Requests being answered.", registry=registry, multiprocess_mode="livesum"
        )
        self.request_seconds = Histogram(
            "hfserve_request_seconds", "Seconds from arrival to answer.", registry=registry, buckets=SECONDS
        )
        self.queue_seconds = Histogram(
            "hfserve_queue_seconds", "Seconds an item waited for a lane.", registry=registry, buckets=SECONDS
        )
        self.batch_items = Histogram("hfserve_batch_items", "Items run together.", registry=registry, buckets=ITEMS)
        self.batch_tokens = Histogram("hfserve_batch_tokens", "Tokens run together.", registry=registry, buckets=TOKENS)
        self.forward_seconds = Histogram(
            "hfserve_forward_seconds", "Seconds a batch ran.", registry=registry, buckets=SECONDS
        )

        self.tokens = Counter("hfserve_generated_tokens", "Tokens of texts made side by side.", registry=registry)
        self.cancelled = Counter(
            "hfserve_generation_cancelled", "Texts ended early: their client went, or it was time.", registry=registry
        )
        self.step_seconds = Histogram(
            "hfserve_step_seconds", "Seconds of a step: a token for each text.", registry=registry, buckets=SECONDS
        )
        self.texts = Gauge(
            "hfserve_texts_running",
            "Requests whose texts are being made.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.blocks = Gauge(
            "hfserve_kv_blocks_used", "Blocks of keys and values that are taken.", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.all_blocks = Gauge(
            "hfserve_kv_blocks", "Blocks of keys and values there are.", registry=registry, multiprocess_mode="livesum"
        )

    def observe_step(self, step: Step) -> None:
        """Count a step of texts made side by side."""
        self.tokens.inc(step.tokens)
        self.cancelled.inc(step.cancelled)
        if step.running:
            self.step_seconds.observe(step.seconds)
        self.texts.set(step.left)
        self.blocks.set(step.used)
        self.all_blocks.set(step.blocks)

    def observe(self, batch: Batch) -> None:
        """Count a batch that was run."""
        self.batch_items.observe(batch.items)
        self.batch_tokens.observe(batch.tokens)
        self.forward_seconds.observe(batch.seconds)
        for wait in batch.waits:
            self.queue_seconds.observe(wait)


class SupervisorMetrics:
    """What the supervisor knows of its processes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.restarts = Counter(
            "hfserve_restarts", "Processes replaced after they died, by kind.", ["process"], registry=self.registry
        )
        self.workers_ready = Gauge("hfserve_workers_ready", "Workers that can answer.", registry=self.registry)
        self.memory = Gauge(
            "hfserve_memory_bytes", "Proportional set size by kind of process.", ["process"], registry=self.registry
        )


class ModelsMetrics:
    """What the supervisor knows of many models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loaded = Gauge("hfserve_models_loaded", "Models that are loaded.", registry=registry)
        self.memory = Gauge(
            "hfserve_model_memory_bytes", "What unloading it would free, by model.", ["model"], registry=registry
        )
        self.loads = Counter(
            "hfserve_model_loads", "Loads by the status they ended with.", ["status"], registry=registry
        )
        self.unloads = Counter("hfserve_model_unloads", "Models unloaded.", registry=registry)


def exposition(supervisor: SupervisorMetrics, directory: Path) -> bytes:
    """The text of /metrics: the supervisor's own, and the workers' summed."""
    workers = CollectorRegistry()
    MultiProcessCollector(workers, path=str(directory))  # type: ignore[no-untyped-call]
    with _files:
        return generate_latest(supervisor.registry) + generate_latest(workers)


def forget(directory: Path, pid: int) -> None:
    """Drop the gauges of a process that died, and add what it counted to what all dead ones did."""
    with _files:
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        for kind in ("counter", "histogram"):
            left = directory / f"{kind}_{pid}.db"
            if left.exists():
                _add(left, directory / f"{kind}_{OF_THE_DEAD}.db")
                left.unlink()


def _add(counted: Path, total: Path) -> None:
    sums = MmapedDict(str(total))  # type: ignore[no-untyped-call]
    for key, value, _, _ in MmapedDict.read_all_values_from_file(str(counted)):  # type: ignore[no-untyped-call]
        sums.write_value(key, sums.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
    sums.close()  # type: ignore[no-untyped-call]
