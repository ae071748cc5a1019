"""`make bench`: hfserve against the baseline, in turns; writes results.json, plot.png and the README's table."""

import argparse
import datetime
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import loadgen
import procfs
import report
import targets
import workload

CLIENTS = (1, 8, 32)
COMPARED = 50
"""Texts whose answers must be the same from both."""

TOLERANCE = 1e-4


def main() -> None:
    """Measure, compare, write."""
    given = _parser().parse_args()
    if given.quick:
        given.rounds, given.seconds, given.warmup, given.idle = 1, 4.0, 1.0, 2.0
    folder = given.out or (targets.CACHE / "quick" if given.quick else targets.HERE)
    folder.mkdir(parents=True, exist_ok=True)

    model = workload.build_model(targets.CACHE / "distilbert")
    compared = [targets.hfserve(model), targets.fastapi(model)]
    sessions = [
        session(target, turn, seconds=given.seconds, warmup=given.warmup, idle=given.idle)
        for turn in range(given.rounds)
        for target in compared
    ]
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": procfs.machine(),
        "versions": {target.name: targets.versions(target) for target in compared},
        "settings": {"rounds": given.rounds, "seconds": given.seconds, "warmup": given.warmup},
        "answers": agreement(*(_of(sessions, target.name)[0]["answers"] for target in compared)),
        "sessions": [{name: value for name, value in each.items() if name != "answers"} for each in sessions],
    }
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    text = report.markdown(results)
    print(text)
    report.rewrite(folder / "README.md", text)
    report.plot(results, folder / "plot.png")
    if results["answers"]["different"]:
        sys.exit("the two servers do not give the same answers")


def session(target: targets.Target, turn: int, *, seconds: float, warmup: float, idle: float) -> dict[str, Any]:
    """One life of a server: its start, its answers, the load at each concurrency, and its rest."""
    say(f"round {turn + 1}: {target.name} starts")
    texts = workload.texts()
    bodies = loadgen.bodies(texts)
    with targets.started(target) as server:
        say(f"  up after {server.startup_s:.1f} s")
        with ThreadPoolExecutor(8) as askers:  # together, so that a fault of batching would show
            answers = list(askers.map(lambda text: answer(server, text), texts[:COMPARED]))
        rows = []
        for clients in CLIENTS:
            row = loadgen.load(
                server.invocations, bodies, clients=clients, seconds=seconds, warmup=warmup, pid=server.pid
            )
            rows.append(row)
            say(f"  {report.line(row)}")
        return {
            "target": target.name, "round": turn + 1, "startup_s": round(server.startup_s, 2),
            "rows": rows, "rest": rest(server, idle), "answers": answers,
        }  # fmt: skip


def rest(server: targets.Server, seconds: float) -> dict[str, float]:
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


def answer(server: targets.Server, text: str) -> dict[str, Any]:
    """The label and score of one text."""
    content = targets.call(server.invocations, {"inputs": text})
    return json.loads(content)[0] if content else {"label": None, "score": 0.0}


def agreement(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float | int]:
    """How far the answers of the two are apart."""
    differences = [abs(a["score"] - b["score"]) for a, b in zip(ours, theirs, strict=True)]
    wrong = [a["label"] != b["label"] or a["label"] is None for a, b in zip(ours, theirs, strict=True)]
    different = sum(w or d > TOLERANCE for w, d in zip(wrong, differences, strict=True))
    return {"compared": len(ours), "different": different, "largest_difference": max(differences)}


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def _of(sessions: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [each for each in sessions if each["target"] == name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="lives of each server (default: 3)")
    parser.add_argument("--seconds", type=float, default=15.0, help="measured at each concurrency (default: 15)")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds before that (default: 3)")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of rest that are measured (default: 10)")
    parser.add_argument("--out", type=Path, help="folder of what is written (default: bench/)")
    parser.add_argument("--quick", action="store_true", help="one short round, to try it; for bench/.cache/quick")
    return parser


if __name__ == "__main__":
    main()
