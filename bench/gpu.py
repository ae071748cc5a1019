"""hfserve on a GPU against the same model alone in a process and transformers' pipeline with batching.

Writes gpu.json, and gpu.md with the table. On a machine without a GPU it can be tried with `--device cpu --quick`.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Self

import procfs
import targets
import workload

from hfserve.bench import bodies, size
from hfserve.bench.load import Bound, Sockets, measure
from hfserve.boot.workers import HUGE_PAGES, PRIMITIVES
from hfserve.runtimes import device

CASE = workload.CASES["text-classification"]
CLIENTS = (1, 8, 32, 128)
PIPELINE_BATCH = 32
LIMIT, PIPELINE = "the model alone", f"pipeline(batch_size={PIPELINE_BATCH})"
ENGINES = {"asgi": "hfserve, nginx alone", "mms": "hfserve, nginx + MMS"}
LOOK_EVERY = 0.5
"""Seconds between two looks at the memory."""

NO_GPU = "torch finds no GPU here: run this where there is one, or try it with --device cpu --quick"

Row = dict[str, Any]


def main() -> None:
    """Measure, write."""
    given = _parser().parse_args()
    if given.device.startswith("cuda") and not _has_gpu():
        sys.exit(NO_GPU)
    if given.quick:
        given.rounds, given.seconds, given.warmup = 1, 5.0, 1.0
    folder = given.out or (targets.CACHE / "quick" if given.quick else targets.HERE)
    folder.mkdir(parents=True, exist_ok=True)
    model = workload.build_model(CASE.name, targets.CACHE / CASE.name)
    rows = [
        {"round": turn, "precision": precision, **row}
        for turn in range(1, given.rounds + 1)
        for precision in given.precisions or precisions(given.device)
        for row in _rows(model, precision, given)
    ]
    results = {
        "date": datetime.date.today().isoformat(), "machine": {**procfs.machine(), "device": _name(given.device)},
        "versions": targets.versions(targets.TARGETS["hfserve"]),
        "settings": {"rounds": given.rounds, "seconds": given.seconds, "warmup": given.warmup}, "rows": rows,
    }  # fmt: skip
    text = markdown(results)
    (folder / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "gpu.md").write_text(text + "\n")
    print(text)
    if wrong := sum(sum(row["errors"].values()) for row in rows):
        sys.exit(f"{wrong} requests went wrong")


def precisions(place: str) -> tuple[str, ...]:
    """Those that a device is quick in."""
    if not place.startswith("cuda"):
        return "float32", "bfloat16"
    import torch

    return ("float16", "bfloat16") if torch.cuda.get_device_capability(place)[0] >= device.AMPERE else ("float16",)


def _rows(model: Path, precision: str, given: argparse.Namespace) -> Iterator[Row]:
    """One round: the limit, the pipeline, each engine at each number of clients."""
    at_once = device.at_once(given.device)
    batch = at_once.max_batch if given.device != "cpu" else 8
    yield _alone(LIMIT, model, precision, given, way="lanes", batch=batch)
    yield _alone(PIPELINE, model, precision, given, way="pipeline", batch=PIPELINE_BATCH)
    for engine in given.engines:
        yield from _served(engine, model, precision, given)


def _alone(what: str, model: Path, precision: str, given: argparse.Namespace, *, way: str, batch: int) -> Row:
    """The model in a process of its own, with nothing around it."""
    argv = [sys.executable, str(targets.HERE / "limit.py"), str(model), "--way", way, "--batch", str(batch)]
    argv += ["--device", given.device, "--seconds", str(given.seconds), "--warmup", str(given.warmup)]
    environment = {**HUGE_PAGES, **targets.clean_environment(), **PRIMITIVES, "HFSERVE_DTYPE": precision}
    with Peak(_memory(given.device)) as peak:
        done = subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    row = {
        "what": what, "clients": None, "requests_per_s": figures.pop("sequences_per_s"), "p50_ms": None, "p99_ms": None,
        "errors": {}, **figures, "peak_mib": peak.mib,
    }  # fmt: skip
    _say(precision, row)
    return row


def _served(engine: str, model: Path, precision: str, given: argparse.Namespace) -> list[Row]:
    """One life of a server; the peak of its memory is that of its life."""
    target = targets.ours(
        ENGINES[engine], HFSERVE_ENGINE=engine, HFSERVE_DEVICE=given.device, HFSERVE_DTYPE=precision,
        HFSERVE_WORKERS="1",
    )  # fmt: skip
    sent = bodies.of(CASE.bodies())
    ruler = size.ruler(model, asked=True)
    rows = []
    with Peak(_memory(given.device)) as peak, targets.started(target, model, CASE.name) as server:
        for clients in given.clients:
            crowd = Sockets(server.url, sent, clients, must_hold=CASE.must_hold)
            tally = measure(crowd, Bound(seconds=given.seconds), warmup=Bound(seconds=given.warmup))
            rows.append({"what": target.name, "clients": clients, **tally.figures(), **ruler.figures(tally, sent)})
            _say(precision, rows[-1])
    return [{**row, "peak_mib": peak.mib} for row in rows]


class Peak:
    """The most memory in use while inside `with`, over what was in use before."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.mib = 0.0

    def __enter__(self) -> Self:
        self._before = self._read()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_EVERY):
            self.mib = round(max(self.mib, self._read() - self._before), 1)


def _memory(place: str) -> Callable[[], float]:
    """MiB in use on the GPU, as its driver tells it; on a CPU by the children of this process."""
    if not place.startswith("cuda"):
        return lambda: procfs.pss(procfs.tree(os.getpid())[1:])
    import torch

    def used() -> float:
        free, total = torch.cuda.mem_get_info(place)
        return (total - free) / (1 << 20)

    return used


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _name(place: str) -> str:
    if not place.startswith("cuda"):
        return place
    import torch

    return torch.cuda.get_device_name(place)


HEAD = (
    "precision", "what", "clients", "requests/s", "of the model alone", "× pipeline", "p50 ms", "p99 ms", "tokens/s",
    "peak memory MiB", "errors",
)  # fmt: skip
FIGURES = ("p50_ms", "p99_ms", "tokens_per_s", "peak_mib")

Key = tuple[str, str, int | None]
"""Precision, what, clients."""


def markdown(results: Row) -> str:
    """The table: medians over the rounds, of errors the sum."""
    machine, versions, settings = results["machine"], results["versions"], results["settings"]
    groups: dict[Key, list[Row]] = {}
    for row in results["rows"]:
        groups.setdefault((row["precision"], row["what"], row["clients"]), []).append(row)
    return "\n".join([
        f"{results['date']}, {machine['device']} (memory is its own); {machine['cpu']}, {machine['cores']} cores; "
        f"torch {versions['torch']}, transformers {versions['transformers']}. Rounds: {settings['rounds']}; "
        f"{settings['seconds']:g} s a row after {settings['warmup']:g} s of warm-up.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (HEAD, ("---",) * len(HEAD))),
        *(f"| {' | '.join(_cells(key, groups))} |" for key in groups),
    ])  # fmt: skip


def _cells(key: Key, groups: Mapping[Key, Sequence[Row]]) -> list[str]:
    precision, what, clients = key
    rate, *others = (
        _median(groups.get(each, ()), "requests_per_s")
        for each in (key, (precision, LIMIT, None), (precision, PIPELINE, None))
    )
    shares = [_ratio(rate, other) for other in others]
    figures = [_form(_median(groups[key], name)) for name in FIGURES]
    errors = sum(sum(row["errors"].values()) for row in groups[key])
    return [precision, what, str(clients or "–"), _form(rate), *shares, *figures, str(errors)]


def _median(rows: Sequence[Row], name: str) -> float | None:
    known = [row[name] for row in rows if row.get(name) is not None]
    return median(known) if known else None


def _ratio(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if ours is not None and theirs else "–"


def _form(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _say(precision: str, row: Row) -> None:
    clients = f", c={row['clients']}" if row["clients"] else ""
    print(f"{precision}, {row['what']}{clients}: {row['requests_per_s']} requests/s", file=sys.stderr, flush=True)


def _some(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/gpu.py", description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="default: cuda:0; cpu to try it")
    parser.add_argument("--rounds", type=int, default=3, help="lives of each server (default: 3)")
    parser.add_argument("--seconds", type=float, default=15.0, help="measured a row (default: 15)")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds before that (default: 3)")
    parser.add_argument(
        "--clients", type=lambda text: [int(each) for each in text.split(",")], default=list(CLIENTS),
        help=f"default: {','.join(map(str, CLIENTS))}",
    )  # fmt: skip
    parser.add_argument("--engines", type=_some(tuple(ENGINES)), default=["asgi"], help="asgi, mms (default: asgi)")
    parser.add_argument(
        "--precisions", type=_some(("float32", "bfloat16", "float16")), help="default: those the device is quick in"
    )
    parser.add_argument("--out", type=Path, help="folder of what is written (default: bench/)")
    parser.add_argument("--quick", action="store_true", help="one short round, to try it; for bench/.cache/quick")
    return parser


if __name__ == "__main__":
    main()
