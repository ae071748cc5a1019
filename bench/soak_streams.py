"""Many streams to one server, of which about half leave in the middle: whether the others get their whole, right text,
all room is given back, and the memory stays flat; exits 1 when not.
"""

import argparse
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import generation
import procfs
import soak
import targets
import workload

PROMPTS = 24
"""Different ones; each is asked for as a whole first."""

LEAVING = 0.5
"""Of the streams, the share that leaves."""


def main() -> None:
    """Serve, soak, judge."""
    parser = argparse.ArgumentParser(prog="bench/soak_streams.py", description=__doc__)
    parser.add_argument("--streams", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=32, help="default: %(default)s")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    case = workload.Case(generation.TASK, (1,), generation._bodies, b"generated_text", lambda answer: {})
    workload.CASES[generation.TASK] = case
    model, target = generation.build_model(targets.CACHE / "generation"), generation.SERVERS["hfserve"]
    with targets.started(target, model, generation.TASK) as server:
        problems = _soak(server, target, given)
    print("; ".join(problems) or "all is as it should be")
    sys.exit(1 if problems else 0)


def _soak(server: targets.Server, target: targets.Target, given: argparse.Namespace) -> list[str]:
    chance, base = random.Random(generation.SEED), server.url.removesuffix(target.path)
    asked = [replace(each, tokens=chance.randint(8, 64)) for each in generation.requests(PROMPTS)]
    whole = [generation.ask(server.url, target, each).text for each in asked]
    order = [chance.randrange(PROMPTS) for _ in range(given.streams)]
    leave = [chance.randint(1, 8) if chance.random() < LEAVING else float("inf") for _ in order]
    send = partial(generation.ask, server.url, target, streams=True)
    began = time.perf_counter()
    with soak.Watch(server.pid, 2.0) as watch, ThreadPoolExecutor(given.clients) as clients:
        told = list(clients.map(lambda one, after: send(asked[one], leave_after=after), order, leave))
    seconds = time.perf_counter() - began
    stayed = [(each.text, whole[one]) for each, one, after in zip(told, order, leave, strict=True) if after > 64]
    wrong, errors = sum(text != right for text, right in stayed), sum(bool(each.error) for each in told)
    blocks = generation._settled(base)["blocks"]
    grown = soak.growth(watch.since(began + seconds / 2))
    print(f"{len(told)} streams in {seconds:.0f} s, {len(told) - len(stayed)} left in the middle; {errors} errors")
    print(f"{wrong} of the {len(stayed)} others differ from the text asked for as a whole; {blocks:.0f} blocks taken")
    print(f"memory {procfs.pss(procfs.tree(server.pid)):.0f} MiB, over the last half grown by {grown:.2%}")
    return [
        sentence
        for found, sentence in (
            (errors, "there were errors"), (wrong, "texts differ"), (blocks, "room is not given back"),
            (grown > soak.MOST_GROWTH, "memory is not flat"),
        )
        if found
    ]  # fmt: skip


if __name__ == "__main__":
    main()
