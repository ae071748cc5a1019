"""What the model does in one process with nothing around it: no server, no tokenizing, no waiting.

As many lanes as suit the device (cores, and one thread each, on a CPU), batches of texts in the order of arrival,
through hfserve's own runtimes with the settings of the environment; or transformers' pipeline over the same texts,
which tokenizes too. Prints a line of JSON.
"""

import argparse
import itertools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import workload
from procfs import Meter

BATCH = 8


class Lanes:
    """Threads that take the next batch as soon as they are through with one; `done` counts sequences and tokens."""

    def __init__(self, model: Any, batches: list[list[Any]], count: int) -> None:
        self._model = model
        self._batches = itertools.cycle(batches)
        self._lock = threading.Lock()
        self._stopped = False
        self.done = (0, 0)
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]

    def __enter__(self) -> "Lanes":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def run(self, seconds: float) -> tuple[int, int]:
        """How many sequences and tokens are computed in that time."""
        before = self.done
        time.sleep(seconds)
        sequences, tokens = self.done
        return sequences - before[0], tokens - before[1]

    def _work(self) -> None:
        from hfserve.runtimes.device import threads

        with threads(1):
            while not self._stopped:
                with self._lock:
                    batch = next(self._batches)
                self._model(batch)
                with self._lock:
                    sequences, tokens = self.done
                    self.done = sequences + len(batch), tokens + sum(len(each["input_ids"]) for each in batch)


def in_lanes(model_dir: Path, given: argparse.Namespace) -> dict[str, float]:
    """Through hfserve's runtimes."""
    from transformers import AutoModelForSequenceClassification

    from hfserve.runtimes import device
    from hfserve.runtimes.encoder import EncoderModel
    from hfserve.settings import Settings

    lanes = given.lanes or device.at_once(given.device).lanes
    model = EncoderModel(AutoModelForSequenceClassification, model_dir, Settings.read().options(given.device))
    encoded = [model.encode(text, None)[0] for text in workload.texts()]
    batches = [encoded[start : start + given.batch] for start in range(0, len(encoded), given.batch)]
    with Lanes(model, batches, lanes) as running:
        return {**_rates(running.run, given), "lanes": lanes, "batch": given.batch}


def in_pipeline(model_dir: Path, given: argparse.Namespace) -> dict[str, float]:
    """Through transformers' pipeline with its batching, in the precision of the settings."""
    from transformers import pipeline

    from hfserve.runtimes import device
    from hfserve.settings import Settings

    dtype = device.dtype(Settings.read().dtype, given.device)
    pipe = pipeline("text-classification", model=str(model_dir), device=given.device, dtype=dtype)
    lengths = [len(ids) for ids in pipe.tokenizer(workload.texts())["input_ids"]]
    answers = pipe((text for text in itertools.cycle(workload.texts())), batch_size=given.batch)
    answered = zip(itertools.cycle(lengths), answers, strict=False)

    def run(seconds: float) -> tuple[int, int]:
        done: list[int] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            done += (length for length, _ in itertools.islice(answered, given.batch))
        return len(done), sum(done)

    return {**_rates(run, given), "batch": given.batch}


def _rates(run: Callable[[float], tuple[int, int]], given: argparse.Namespace) -> dict[str, float]:
    """What is computed per second after the warm-up, and what else the machine did meanwhile."""
    run(given.warmup)
    with Meter() as meter:
        began = time.perf_counter()
        sequences, tokens = run(given.seconds)
        passed = time.perf_counter() - began
    return {
        "sequences_per_s": round(sequences / passed, 2), "tokens_per_s": round(tokens / passed, 1),
        "foreign_cores": meter.figures["foreign_cores"],
    }  # fmt: skip


WAYS = {"lanes": in_lanes, "pipeline": in_pipeline}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--way", choices=WAYS, default="lanes")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 … (default: cpu)")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--lanes", type=int, help="default: what hfserve takes on the device")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"texts of a batch (default: {BATCH})")
    given = parser.parse_args()
    print(json.dumps(WAYS[given.way](given.model, given)))


if __name__ == "__main__":
    main()
