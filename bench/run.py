"""`make bench`: hfserve against what one would use instead, in turns; writes results.json, plot.png and the tables."""

import argparse
import contextlib
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import procfs
import report
import targets
import workload
from targets import Target
from workload import Case

from hfserve.bench import bodies
from hfserve.bench.load import Bound, Sockets, measure
from hfserve.boot.workers import HUGE_PAGES, PRIMITIVES

COMPARED = 50
"""Requests whose answers must be the same from all."""

LIMITED = "text-classification"
"""The case of which the limit is measured too."""


def main() -> None:
    """Measure, compare, write."""
    given = _parser().parse_args()
    if given.quick:
        given.rounds, given.seconds, given.warmup, given.idle = 1, 3.0, 1.0, 2.0
    folder = given.out or (targets.CACHE / "quick" if given.quick else targets.HERE)
    folder.mkdir(parents=True, exist_ok=True)
    workload.write_calibration(targets.CALIBRATION)
    failed: dict[str, str] = {}
    chosen, left_out = _measurable(given.targets, given.cases)
    chosen = [key for key in chosen if _made(key, failed)]
    models = {case: workload.build_model(case, targets.CACHE / case) for case in given.cases}

    sessions: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    for turn in range(1, given.rounds + 1):
        for case in given.cases:
            for key in [key for key in chosen if case in targets.TARGETS[key].cases]:
                with _may_fail(f"{key} at {case}", failed) as goes_on:
                    if goes_on:
                        sessions.append(_session(key, workload.CASES[case], models[case], turn, given))
        if LIMITED in given.cases:
            with _may_fail("the limit", failed) as goes_on:
                if goes_on:
                    limits.append({"round": turn, **_limit(models[LIMITED], given)})
                    say(f"round {turn}: in one process, nothing around it: {limits[-1]['sequences_per_s']} sequences/s")

    results = {
        "date": datetime.date.today().isoformat(), "machine": procfs.machine(),
        "targets": {key: {"name": targets.TARGETS[key].name, **targets.versions(targets.TARGETS[key])}
                    for key in chosen},
        "baseline": targets.BASELINE, "left_out": {**left_out, **failed},
        "settings": {"rounds": given.rounds, "seconds": given.seconds, "warmup": given.warmup},
        "answers": _agreements(sessions), "limits": limits,
        "sessions": [{name: value for name, value in each.items() if name != "answers"} for each in sessions],
    }  # fmt: skip
    _write(folder, results)
    wrong = [
        f"answers of {each['target']} differ at {each['case']}" for each in results["answers"] if each["different"]
    ]
    if wrong or failed:
        sys.exit("; ".join([*wrong, *(f"{what} failed" for what in failed)]))


@contextlib.contextmanager
def _may_fail(what: str, failed: dict[str, str]) -> Iterator[bool]:
    """A measurement that others do not depend on; what failed once is not tried again."""
    try:
        yield what not in failed
    except (targets.NotStarted, subprocess.CalledProcessError) as error:
        failed[what] = str(error).partition("\n")[0].rstrip(":")
        say(f"FAILED: {what}: {error}")


def _measurable(keys: Sequence[str], cases: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The targets of these cases that can be measured, and why the others cannot."""
    keys = [key for key in keys if not set(cases).isdisjoint(targets.TARGETS[key].cases)]
    left_out = {key: reason for key in keys if (reason := targets.missing(targets.TARGETS[key]))}
    for key, reason in left_out.items():
        say(f"LEFT OUT: {targets.TARGETS[key].name}: {reason}")
    return [key for key in keys if key not in left_out], left_out


def _made(key: str, failed: dict[str, str]) -> bool:
    """Whether the target's environment is there, made now or before."""
    with _may_fail(what := f"the environment of {key}", failed):
        if venv := targets.TARGETS[key].venv:
            venv.make()
    return what not in failed


def _session(key: str, case: Case, model: Path, turn: int, given: argparse.Namespace) -> dict[str, Any]:
    """One life of a server: its start, its answers, the load at each concurrency, and its rest."""
    target = targets.TARGETS[key]
    say(f"round {turn}, {case.name}: {target.name} starts")
    asked = [target.body(body) for body in case.bodies()]
    with targets.started(target, model, case.name) as server:
        say(f"  up after {server.startup_s:.1f} s")
        with ThreadPoolExecutor(8) as askers:  # together, so that a fault of batching would show
            answers = list(askers.map(lambda body: _answer(server, target, case, body), asked[:COMPARED]))
        rows = []
        for clients in case.clients:
            rows.append(_row(server, case, bodies.of(asked), clients, given))
            say(f"  {report.line(rows[-1])}")
        return {
            "case": case.name, "target": key, "round": turn, "startup_s": round(server.startup_s, 2), "rows": rows,
            "rest": _rest(server, given.idle) if case.rests else None, "answers": answers,
        }  # fmt: skip


def _row(
    server: targets.Server, case: Case, sent: Sequence[bytes], clients: int, given: argparse.Namespace
) -> dict[str, Any]:
    """The load of so many clients, with what it cost."""
    crowd = Sockets(server.url, sent, clients, must_hold=case.must_hold)
    meter = procfs.Meter(server.pid)
    tally = measure(crowd, Bound(seconds=given.seconds), warmup=Bound(seconds=given.warmup), during=meter)
    return {"clients": clients, **tally.figures(), **meter.figures}


def _rest(server: targets.Server, seconds: float) -> dict[str, float]:
    """What the server costs while nobody asks it anything, after the load; its first process apart."""
    time.sleep(1)
    everything, first = procfs.tree(server.pid), [server.pid]
    before = [procfs.cpu_seconds(pids) for pids in (everything, first)]
    time.sleep(seconds)
    used = [procfs.cpu_seconds(pids) - start for pids, start in zip((everything, first), before, strict=True)]
    return {
        "cores": round(used[0] / seconds, 4), "first_process_cores": round(used[1] / seconds, 4),
        "mib": round(procfs.pss(everything), 1), "first_process_mib": round(procfs.pss(first), 1),
    }  # fmt: skip


def _limit(model: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Sequences per second of the model alone, in a process of its own."""
    argv = [sys.executable, str(targets.HERE / "limit.py"), str(model)]
    argv += ["--seconds", str(given.seconds), "--warmup", str(given.warmup)]
    environment = {**HUGE_PAGES, **targets.clean_environment(), **PRIMITIVES}  # as a worker of ours has it
    done = subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _answer(server: targets.Server, target: Target, case: Case, body: dict[str, Any]) -> dict[str, float]:
    """The scores of one request by their names; none when it was not answered."""
    content = targets.call(server.url, body)
    return case.scores(target.answer(json.loads(content))) if content else {}


def _agreements(sessions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How far the answers of each target are from the baseline's, in the first round of each case."""
    first = {(each["case"], each["target"]): each["answers"] for each in sessions if each["round"] == 1}
    return [
        {"case": case, "target": key, **_agreement(answers, theirs, targets.TARGETS[key].tolerance)}
        for (case, key), answers in first.items()
        if key != targets.BASELINE and (theirs := first.get((case, targets.BASELINE)))
    ]


def _agreement(
    ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]], tolerance: float
) -> dict[str, float | int]:
    """A name that only one of the two has differs by its whole score; an answer that is not there, by one."""
    apart = [
        max(abs(a.get(name, 0.0) - b.get(name, 0.0)) for name in {*a, *b}) if a and b else 1.0
        for a, b in zip(ours, theirs, strict=True)
    ]
    different = sum(each > tolerance for each in apart)
    return {"compared": len(apart), "different": different, "largest_difference": max(apart), "tolerance": tolerance}


def _write(folder: Path, results: dict[str, Any]) -> None:
    """Figures, plot, table."""
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = report.markdown(results)
    print(text)
    report.rewrite(folder / "README.md", text)
    report.plot(results, folder / "plot.png")


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = list(known) if text == "all" else text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def _parser() -> argparse.ArgumentParser:
    cases, known = list(workload.CASES), list(targets.TARGETS)
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="lives of each server (default: 3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured at each concurrency (default: 10)")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before that (default: 2)")
    parser.add_argument("--idle", type=float, default=8.0, help="seconds of rest that are measured (default: 8)")
    parser.add_argument(
        "--targets", type=_names(known), default=list(targets.STANDARD),
        help=f"of {', '.join(known)}; or all (default: {','.join(targets.STANDARD)})",
    )  # fmt: skip
    parser.add_argument("--cases", type=_names(cases), default=cases, help=f"of {', '.join(cases)} (default: all)")
    parser.add_argument("--out", type=Path, help="folder of what is written (default: bench/)")
    parser.add_argument("--quick", action="store_true", help="one short round, to try it; for bench/.cache/quick")
    return parser


if __name__ == "__main__":
    main()
