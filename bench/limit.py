"""What the model does in one process with nothing around it: no server, no tokenizing, no waiting.

As many lanes as cores, one thread each, batches of eight texts in the order of arrival, through hfserve's own runtimes
with the settings of the environment. Prints a line of JSON.
"""

import argparse
import itertools
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import workload
from procfs import Meter

BATCH = 8


class Lanes:
    """Threads that take the next batch as soon as they are through with one."""

    def __init__(self, model: Any, batches: list[list[Any]], count: int) -> None:
        self._model = model
        self._batches = itertools.cycle(batches)
        self._lock = threading.Lock()
        self._stopped = False
        self.done = 0
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]

    def __enter__(self) -> "Lanes":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        from hfserve.runtimes.torch import threads

        with threads(1):
            while not self._stopped:
                with self._lock:
                    batch = next(self._batches)
                self._model(batch)
                with self._lock:
                    self.done += len(batch)


def measure(model_dir: Path, *, seconds: float, warmup: float, lanes: int) -> dict[str, float]:
    """Sequences per second, and what else the machine did meanwhile."""
    from transformers import AutoModelForSequenceClassification

    from hfserve.runtimes.encoder import EncoderModel
    from hfserve.settings import Settings

    model = EncoderModel(AutoModelForSequenceClassification, model_dir, Settings.read().options("cpu"))
    encoded = [model.encode(text, None)[0] for text in workload.texts()]
    batches = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
    with Lanes(model, batches, lanes) as running:
        time.sleep(warmup)
        with Meter() as meter:
            before, began = running.done, time.perf_counter()
            time.sleep(seconds)
            rate = (running.done - before) / (time.perf_counter() - began)
    return {"sequences_per_s": round(rate, 2), "lanes": lanes, "foreign_cores": meter.figures["foreign_cores"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)))
    given = vars(parser.parse_args())
    print(json.dumps(measure(given.pop("model"), **given)))


if __name__ == "__main__":
    main()
