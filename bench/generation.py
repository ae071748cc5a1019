"""`make bench-generation`: texts made by hfserve, by what one would use instead, and by the model alone, in turns.

Writes generation.json and the tables of GENERATION.md. The model's weights are random, as speed does not depend on what
it has learnt; each word is one token, and no token ends a text before the length that was asked for.
"""

import argparse
import datetime
import http.client
import json
import math
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import procfs
import report
import targets
import workload
from report import Goal
from targets import Target, Venv

from hfserve.boot.workers import HUGE_PAGES, PRIMITIVES

TASK, SEED = "text-generation", 7
COUNT, FEW = 48, 16
"""Requests, and those of a quick run and of a warm-up."""

CLIENTS = 16
PROMPTS, OUTPUTS = (10, 64), (8, 128)
"""Fewest and most tokens, all lengths between them equally often: 37 and 68 on average."""

VOCABULARY, SPECIAL = 16_000, ("<pad>", "</s>", "<unk>")
PATIENCE = 120.0
LEAVERS, STAYERS, LEAVE_AFTER, LONG = 200, 4, 2, 128
"""Clients that leave a stream and that stay, after how many events they leave, and the tokens of a stream."""

ONE_BY_ONE = 20
"""Clients that leave with nobody else there, so that each one's tokens can be counted."""

Row = dict[str, Any]
SERVE = Venv("transformers-serve", ((targets.OURS[0], targets.OURS[1].replace("==", "[serving]==")),))


def _generates(key: str) -> Target:
    return replace(targets.TARGETS[key], answer=lambda answer: answer[0]["generated_text"])


SERVERS = {
    "hfserve": _generates("hfserve"),
    "toolkit": _generates("toolkit"),
    "transformers": Target(
        "transformers serve, continuous batching",
        lambda model: [
            str(Path(SERVE.python).with_name("transformers")), "serve", str(model), "--continuous-batching",
            "--host", "127.0.0.1", "--port", "0", "--cb-block-size", "32", "--cb-num-blocks", "256",
            "--cb-max-batch-tokens", "256",
        ],
        r"running on http://127\.0\.0\.1:(\d+)", {}, SERVE, path="/v1/completions",
        body=lambda body: {"prompt": body["inputs"], "max_tokens": body["parameters"]["max_new_tokens"]},
        answer=lambda answer: answer["choices"][0]["text"],
    ),
}  # fmt: skip

STREAMS = {"hfserve-stream": "hfserve"}
"""Whose answers are asked for as streams, by what is measured."""

ALONE = {"alone-16": CLIENTS, "alone-48": COUNT}
"""The model in a process with nothing around it: how many texts are under way at once."""

NAMES = {
    "hfserve": "hfserve, nginx + MMS", "hfserve-stream": "hfserve, streams",
    "toolkit": SERVERS["toolkit"].name, "transformers": SERVERS["transformers"].name,
    "alone-16": "in one process, 16 texts at once", "alone-48": "in one process, all at once",
}  # fmt: skip


def main() -> None:
    """Measure, compare, write."""
    given = _parser().parse_args()
    given.rounds = 1 if given.quick else given.rounds
    workload.CASES[TASK] = workload.Case(TASK, (CLIENTS,), _bodies, b"generated_text", lambda answer: {})
    model = build_model(targets.CACHE / "generation")
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for turn in range(1, given.rounds + 1):
        for row in _round(model, given, failed):
            rows.append({"round": turn, **row})
            say(json.dumps({name: value for name, value in rows[-1].items() if name != "texts"}))
    if not given.drops:
        results = {
            "date": datetime.date.today().isoformat(), "machine": procfs.machine(),
            "versions": targets.versions(SERVERS["hfserve"]), "failed": failed, "same": same_texts(rows),
            "settings": {"rounds": given.rounds, "requests": FEW if given.quick else COUNT, "clients": CLIENTS},
            "rows": [{name: value for name, value in row.items() if name != "texts"} for row in rows],
        }  # fmt: skip
        _write(given.out or (targets.CACHE / "quick" if given.quick else targets.HERE), results)
    wrong = [row["target"] for row in rows if row["errors"]]
    if failed or wrong:
        sys.exit("; ".join([*(f"{key} failed" for key in failed), *(f"{key} had errors" for key in wrong)]))


def _write(folder: Path, results: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "generation.json").write_text(json.dumps(results, indent=1) + "\n")
    print(text := markdown(results))
    report.rewrite(folder / "GENERATION.md", text)


# The workload


@dataclass(frozen=True)
class Asked:
    """A prompt, and how many tokens are to follow it."""

    prompt: str
    tokens: int

    @property
    def body(self) -> Row:
        """In SageMaker's words."""
        told = {"max_new_tokens": self.tokens, "do_sample": False, "return_full_text": False}
        return {"inputs": self.prompt, "parameters": told}


def requests(count: int = COUNT, seed: int = SEED) -> list[Asked]:
    """What is asked, the same every time."""
    chance, known = random.Random(seed), words()
    prompts, outputs = (_spread(*ends, count, chance) for ends in (PROMPTS, OUTPUTS))
    return [
        Asked(" ".join(chance.choices(known, k=length)), tokens)
        for length, tokens in zip(prompts, outputs, strict=True)
    ]


def words() -> list[str]:
    """All that the model knows but for the special tokens."""
    common = list(dict.fromkeys(workload.COMMON.split()))
    return [*common, *(f"w{i}" for i in range(VOCABULARY - len(SPECIAL) - len(common)))]


def _spread(least: int, most: int, count: int, chance: random.Random) -> list[int]:
    lengths = [round(least + (most - least) * i / (count - 1)) for i in range(count)]
    chance.shuffle(lengths)
    return lengths


def _bodies() -> list[Row]:
    return [asked.body for asked in requests(FEW, SEED + 1)]


def build_model(path: Path) -> Path:
    """The model's directory, made at first use: 97 million weights."""
    if path.exists():
        return path
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    torch.manual_seed(SEED)
    hf.logging.disable_progress_bar()
    ends: Row = {"bos_token_id": None, "pad_token_id": 0, "eos_token_id": 1}
    config = hf.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=2048,
        max_position_embeddings=2048, tie_word_embeddings=True, **ends,
    )  # fmt: skip
    model = hf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight[: len(SPECIAL)] = 0  # their logits are 0, and never the largest
        for name, weight in model.named_parameters():
            weight *= 2 if "proj" in name else 1  # or it would say the same word again and again
    model.generation_config = hf.GenerationConfig(do_sample=False, **ends)
    model.save_pretrained(unfinished)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *words()])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(unfinished / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048, "clean_up_tokenization_spaces": False,
        "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
        "chat_template": "{% for message in messages %}{{ message['content'] }} {% endfor %}",
    }  # fmt: skip
    (unfinished / "tokenizer_config.json").write_text(json.dumps(about))
    return unfinished.rename(path)


# The load


@dataclass
class Told:
    """An answer: when its request was sent, when each of its pieces came, its text, or what went wrong."""

    asked: Asked
    sent: float
    heard: list[float] = field(default_factory=list)
    text: str = ""
    error: str = ""

    @property
    def is_right(self) -> bool:
        """Whether it has as many words as were asked for."""
        return not self.error and len(self.text.split()) == self.asked.tokens


def ask(url: str, target: Target, asked: Asked, *, streams: bool = False, leave_after: float = math.inf) -> Told:
    """One request on a connection of its own."""
    parts = urlsplit(url)
    body = json.dumps({**target.body(asked.body), **({"stream": True} if streams else {})})
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    told = Told(asked, time.perf_counter())
    try:
        connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            if response.status != 200:
                told.error = f"status {response.status}"
            elif streams:
                listen(response, told, leave_after)
            else:
                content = response.read()
                told.heard.append(time.perf_counter())
                told.text = target.answer(json.loads(content))
    except (OSError, http.client.HTTPException) as error:
        told.error = type(error).__name__
    finally:
        connection.close()
    return told


def listen(lines: Iterable[bytes], told: Told, leave_after: float = math.inf) -> None:
    """Hear events until their end, or until the client leaves."""
    for line in lines:
        if not line.startswith(b"data: {"):
            continue
        told.heard.append(time.perf_counter())
        event = json.loads(line[6:])
        told.error = "error in the stream" if "error" in event else ""
        told.text = event.get("generated_text") or ""
        if told.error or len(told.heard) >= leave_after:
            return


def figures(told: Sequence[Told], seconds: float) -> Row:
    """What the answers amount to: tokens that were asked for and came, and when."""
    right = [each for each in told if each.is_right]
    streams = [each for each in right if len(each.heard) > 1]
    whole = [each.heard[-1] - each.sent for each in right]
    first = [each.heard[0] - each.sent for each in streams]
    gaps = [after - before for each in streams for before, after in pairwise(each.heard)]
    return {
        "tokens_per_s": round(sum(each.asked.tokens for each in right) / seconds, 1), "seconds": round(seconds, 2),
        "p50_ms": _ms(whole, 0.5), "p99_ms": _ms(whole, 0.99), "first_p50_ms": _ms(first, 0.5),
        "gap_p50_ms": _ms(gaps, 0.5), "gap_p99_ms": _ms(gaps, 0.99),
        "errors": dict(Counter(each.error or "wrong length" for each in told if not each.is_right)),
    }  # fmt: skip


def _ms(seconds: Sequence[float], share: float) -> float | None:
    """A percentile by the nearest rank."""
    ordered = sorted(seconds)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2) if ordered else None


def _round(model: Path, given: argparse.Namespace, failed: dict[str, str]) -> Iterator[Row]:
    """One life of each server, and the model alone; what failed once is not tried again."""
    wanted = ["hfserve-stream"] if given.drops else given.targets
    for key in [*SERVERS, *ALONE]:
        asked = [each for each in wanted if STREAMS.get(each, each) == key]
        if asked and key not in failed:
            say(f"{key} starts")
            try:
                yield from _alone(model, key, given) if key in ALONE else _life(model, key, asked, given)
            except (targets.NotStarted, subprocess.CalledProcessError) as error:
                failed[key] = str(error).partition("\n")[0].rstrip(":")
                say(f"FAILED: {key}: {error}")


def _life(model: Path, key: str, wanted: Sequence[str], given: argparse.Namespace) -> Iterator[Row]:
    """All requests by all clients, in each way that is wanted, and then the clients that leave."""
    target = SERVERS[key]
    if target.venv:
        target.venv.make()
    with targets.started(target, model, TASK) as server:
        for each in () if given.drops else wanted:
            send = partial(ask, server.url, target, streams=each in STREAMS)
            with ThreadPoolExecutor(CLIENTS) as clients:
                list(clients.map(send, requests(FEW, SEED + 1)))
                with procfs.Meter(server.pid) as meter:
                    began = time.perf_counter()
                    told = list(clients.map(send, requests(FEW if given.quick else COUNT)))
                    seconds = time.perf_counter() - began
            yield {"target": each, **figures(told, seconds), **meter.figures, "texts": [one.text for one in told]}
        if not STREAMS.keys().isdisjoint(wanted):
            yield {"target": "drops", **_dropped(server.url, target, server.pid)}


def _alone(model: Path, key: str, given: argparse.Namespace) -> Iterator[Row]:
    """The same requests through transformers' own continuous batching, in a process of its own."""
    count = FEW if given.quick else COUNT
    argv = [sys.executable, str(targets.HERE / "generation_limit.py"), str(model), str(count), str(ALONE[key])]
    environment = {**HUGE_PAGES, **targets.clean_environment(), **PRIMITIVES}  # as a worker of ours has it
    done = subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    yield {"target": key, **json.loads(done.stdout.splitlines()[-1])}


# Clients that leave


def _dropped(url: str, target: Target, pid: int) -> Row:
    """Many open a stream and leave it, first in a crowd that others stay in, then one by one."""
    base, stream = url.removesuffix(target.path), partial(ask, url, target, streams=True)
    prompts = [replace(each, tokens=LONG) for each in requests(STAYERS + LEAVERS, SEED + 2)]
    stay, leave = prompts[:STAYERS], prompts[STAYERS:]
    texts = [ask(url, target, each).text for each in stay]
    before, memory = _settled(base), procfs.pss(procfs.tree(pid))
    gone = threading.Event()
    with ThreadPoolExecutor(STAYERS) as staying, ThreadPoolExecutor(LEAVERS) as leaving:
        stayed = [staying.submit(_again, partial(stream, each), gone) for each in stay]
        left = list(leaving.map(partial(stream, leave_after=LEAVE_AFTER), leave))
        gone.set()
        whole = [(told, text) for each, text in zip(stayed, texts, strict=True) for told in each.result()]
    after, memory_after = _settled(base), procfs.pss(procfs.tree(pid))
    heard = sum(len(told.heard) for told in [*left, *(told for told, _ in whole)])
    alone = [_tokens_more(base, partial(stream, each)) for each in leave[:ONE_BY_ONE]]
    return {
        "leavers": len(left), "cancelled": after["cancelled"] - before["cancelled"], "blocks_left": after["blocks"],
        "tokens_more": round((after["tokens"] - before["tokens"] - heard) / len(left), 2),
        "most_tokens_more": max(alone), "whole": len(whole), "whole_and_right": sum(t.text == s for t, s in whole),
        "mib_before": round(memory, 1), "mib_after": round(memory_after, 1),
        "errors": dict(Counter(each.error for each in left if each.error)),
    }  # fmt: skip


def _again(stream: Callable[[], Told], gone: threading.Event) -> list[Told]:
    """Whole streams one after the other, until all who leave have left."""
    told = [stream()]
    while not gone.is_set():
        told.append(stream())
    return told


def _tokens_more(base: str, stream: Callable[..., Told]) -> float:
    """How many tokens were made for a client after those that it heard."""
    before, told = _settled(base), stream(leave_after=LEAVE_AFTER)
    return _settled(base)["tokens"] - before["tokens"] - len(told.heard)


def _settled(base: str) -> dict[str, float]:
    """What the server counts once no room is taken, or after some seconds."""
    end = time.monotonic() + 10
    while (counted := counts(targets.call(f"{base}/metrics") or b""))["blocks"] and time.monotonic() < end:
        time.sleep(0.02)
    return counted


def counts(metrics: bytes) -> dict[str, float]:
    """Tokens that were made, texts that were cancelled, and blocks of keys and values that are taken."""
    told = dict(line.rsplit(" ", 1) for line in metrics.decode().splitlines() if not line.startswith("#"))
    names = {"tokens": "generated_tokens_total", "cancelled": "generation_cancelled_total", "blocks": "kv_blocks_used"}
    return {key: float(told.get(f"hfserve_{name}", 0)) for key, name in names.items()}


# The report

Found = Mapping[str, Row]


def found(rows: Sequence[Row]) -> Found:
    """By target: medians over the rounds; of what should be small the worst, of errors the sum."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["target"], []).append(row)
    return {
        key: {name: _combined(name, [row[name] for row in group]) for name in group[0] if name != "target"}
        for key, group in groups.items()
    }


def _combined(name: str, values: Sequence[Any]) -> Any:
    if name == "errors":
        return sum(sum(each.values()) for each in values)
    known = [each for each in values if isinstance(each, int | float)]
    worst = name in ("foreign_cores", "tokens_more", "most_tokens_more")
    return (max if worst else median)(known) if known else None


def same_texts(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """How many texts of the first round are the baseline's, word by word, and of how many."""
    texts = {row["target"]: [text.split() for text in row["texts"]] for row in rows[::-1] if "texts" in row}
    theirs = texts.pop(targets.BASELINE, [])
    return {key: (sum(map(list.__eq__, ours, theirs)), len(theirs)) for key, ours in texts.items() if theirs}


def _ratio(key: str, to: str, name: str = "tokens_per_s", of: str = "") -> Callable[[Found], float | None]:
    """A figure, as a share of another's or of another one of its own."""

    def figure(found: Found) -> float | None:
        ours, theirs = found.get(key, {}).get(name), found.get(to, {}).get(of or name)
        return ours / theirs if ours is not None and theirs else None

    return figure


STREAM = "hfserve-stream"
GOALS = (
    Goal("tokens/s ÷ toolkit", 4.0, None, _ratio("hfserve", "toolkit")),
    Goal("tokens/s ÷ transformers serve", 1.3, None, _ratio("hfserve", "transformers")),
    *(Goal(f"tokens/s ÷ {NAMES[key]}", 0.9, None, _ratio("hfserve", key)) for key in ALONE),
    Goal("tokens/s of streams ÷ of whole answers", 0.9, None, _ratio(STREAM, "hfserve")),
    Goal("time to the first token ÷ to the last, p50", None, 0.25, _ratio(STREAM, STREAM, "first_p50_ms", "p50_ms")),
    Goal("gaps between two events, p99 ÷ p50", None, 3.0, _ratio(STREAM, STREAM, "gap_p99_ms", "gap_p50_ms")),
    Goal("share of those who left that was cancelled", 1.0, None, _ratio("drops", "drops", "cancelled", "leavers")),
    Goal("tokens more for each who left", None, 2.0, lambda found: found.get("drops", {}).get("tokens_more")),
    Goal("at most, for one alone", None, 2.0, lambda found: found.get("drops", {}).get("most_tokens_more")),
)

COLUMNS = (
    ("tokens/s", "tokens_per_s", ".1f"), ("answer p50 ms", "p50_ms", ".0f"), ("p99 ms", "p99_ms", ".0f"),
    ("first token p50 ms", "first_p50_ms", ".0f"), ("gap p50 ms", "gap_p50_ms", ".1f"),
    ("gap p99 ms", "gap_p99_ms", ".1f"), ("peak memory MiB", "peak_mib", ".0f"), ("its CPU", "server_cores", ".2f"),
    ("foreign CPU", "foreign_cores", ".2f"), ("errors", "errors", "d"),
)  # fmt: skip


def markdown(results: Mapping[str, Any]) -> str:
    """Everything between the markers."""
    combined, machine = found(results["rows"]), results["machine"]
    settings, versions = results["settings"], results["versions"]
    worst = max((row.get("foreign_cores") or 0.0 for row in combined.values()), default=0.0)
    disturbed = [f"- **Disturbed:** other work took up to {worst:.2f} cores; run it again when the machine is quiet."]
    return "\n".join([
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; torch "
        f"{versions['torch']}, transformers {versions['transformers']}. {settings['requests']} requests by "
        f"{settings['clients']} clients; rounds: {settings['rounds']}.",
        "",
        *_table(["what", "to reach", "measured", "reached"], (goal.cells(combined) for goal in GOALS)),
        "",
        *_table(["", *(title for title, _, _ in COLUMNS)], (_cells(key, combined) for key in NAMES if key in combined)),
        "",
        *(f"- {NAMES[key]}: {same} of {of} texts are the baseline's." for key, (same, of) in results["same"].items()),
        *(_told_of_drops(row) for row in results["rows"] if row["target"] == "drops"),
        *(f"- Left out: {key}: {reason}." for key, reason in results["failed"].items()),
        *(disturbed if worst > report.DISTURBED else ()),
    ])  # fmt: skip


def _told_of_drops(row: Row) -> str:
    return (
        f"- {row['leavers']} clients left after {LEAVE_AFTER} events of {LONG}: {row['cancelled']:g} were cancelled, "
        f"after {row['tokens_more']:g} tokens more on average ({row['most_tokens_more']:g} at most for one alone), and "
        f"{row['blocks_left']:g} blocks stayed taken. Of {row['whole']} streams of {STAYERS} that stayed, "
        f"{row['whole_and_right']} were whole and right. Memory {row['mib_before']:.0f} MiB before, "
        f"{row['mib_after']:.0f} after; errors {row['errors'] or 'none'}."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _cells(key: str, found: Found) -> list[str]:
    figures = [(found[key].get(name), form) for _, name, form in COLUMNS]
    return [NAMES[key], *("–" if value is None else format(value, form) for value, form in figures)]


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/generation.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="lives of each server (default: 3)")
    parser.add_argument("--targets", type=_names, default=list(NAMES), help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--out", type=Path, help="folder of what is written (default: bench/)")
    parser.add_argument("--quick", action="store_true", help="one short round, to try it; for bench/.cache/quick")
    parser.add_argument("--drops", action="store_true", help="only the clients that leave; nothing is written")
    return parser


if __name__ == "__main__":
    main()
