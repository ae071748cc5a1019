"""Turns the results into the README's tables and the plot."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hfserve.bench import picture
from hfserve.bench.errors import BenchError

BEGIN, END = "<!-- results: written by bench/run.py -->", "<!-- end of results -->"
DISTURBED = 0.15
"""Cores used by others above which a row says little."""

SHOWN = "text-classification"
"""The case that has all its figures in the tables, and the plot."""

CLASSES, ZERO_SHOT, QUESTIONS, MASKS = SHOWN, "zero-shot-classification", "question-answering", "fill-mask"
EMBEDDINGS = "feature-extraction"


class Found:
    """The results by name: medians over the rounds; of foreign CPU the worst, of errors the sum."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.targets: list[str] = list(results["targets"])
        self.baseline: str = results["baseline"]
        self._sessions = results["sessions"]
        self._limits = results["limits"]
        self.rows = self._combined()

    def ratio(self, case: str, clients: int, measure: str, key: str, to: str = "") -> float | None:
        """Of a target to another, the baseline if none is named."""
        theirs = self.value(case, clients, measure, to or self.baseline)
        return _divided(self.value(case, clients, measure, key), theirs)

    def value(self, case: str, clients: int, measure: str, key: str) -> float | None:
        """A figure of a row."""
        row = self.rows.get((case, key, clients))
        return row[measure] if row else None

    def share_of_limit(self, clients: int, key: str) -> float | None:
        """Of what the model does alone in a process."""
        limits = [each["sequences_per_s"] for each in self._limits]
        return _divided(self.value(SHOWN, clients, "requests_per_s", key), median(limits) if limits else None)

    def tail(self, clients: int, key: str) -> float | None:
        """p99 over p50."""
        return _divided(self.value(SHOWN, clients, "p99_ms", key), self.value(SHOWN, clients, "p50_ms", key))

    def peak(self, key: str) -> float | None:
        """The most memory of any row."""
        peaks = [row["peak_mib"] for (case, target, _), row in self.rows.items() if (case, target) == (SHOWN, key)]
        return max(peaks) if peaks else None

    def life(self, key: str, take: Callable[[Mapping[str, Any]], float]) -> float | None:
        """Something of a server's whole life."""
        return _median(take(each) for each in self._sessions if (each["case"], each["target"]) == (SHOWN, key))

    @property
    def shown(self) -> list[str]:
        """The targets that were measured at the case that has all its figures in the tables."""
        measured = {target for case, target, _ in self.rows if case == SHOWN}
        return [key for key in self.targets if key in measured]

    def limit(self) -> str:
        """A sentence on it."""
        if not self._limits:
            return ""
        rate, lanes = median(each["sequences_per_s"] for each in self._limits), self._limits[0]["lanes"]
        return (
            f"The limit, the same model in one process with nothing around it ({lanes} lanes, batches of 8 in order of "
            f"arrival): {rate:.1f} sequences/s (foreign CPU {max(each['foreign_cores'] for each in self._limits):.2f})."
        )

    @property
    def worst(self) -> float:
        """Foreign CPU of the row that was disturbed most."""
        return max((each["foreign_cores"] for each in [*self.rows.values(), *self._limits]), default=0.0)

    def _combined(self) -> dict[tuple[str, str, int], dict[str, Any]]:
        groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for session in self._sessions:
            for row in session["rows"]:
                groups.setdefault((session["case"], session["target"], row["clients"]), []).append(row)
        return {key: _combined(rows) for key, rows in groups.items()}


@dataclass(frozen=True)
class Goal:
    """Something to reach: a figure at least or at most so large."""

    what: str
    least: float | None
    most: float | None
    figure: Callable[[Found], float | None]

    def cells(self, found: Found) -> list[str]:
        """Its line of the table."""
        bound = f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"
        figure = self.figure(found)
        if figure is None:
            return [self.what, bound, "not measured", ""]
        met = figure >= self.least if self.least is not None else figure <= (self.most or 0.0)
        return [self.what, bound, f"{figure:.3g}", "yes" if met else "**no**"]


def _rate(case: str, clients: int, key: str, to: str = "") -> Callable[[Found], float | None]:
    return lambda found: found.ratio(case, clients, "requests_per_s", key, to)


GOALS = (
    *(
        Goal(f"requests/s ÷ baseline, {words}, c={clients}", least, None, _rate(CLASSES, clients, key))
        for key, words, least in (
            ("hfserve", "fp32", 2.9), ("hfserve-bf16", "bf16", 4.3), ("hfserve-int8", "int8", 5.0),
        )
        for clients in (8, 32)
    ),
    Goal("p50 ÷ baseline, c=1", None, 0.4, lambda found: found.ratio(CLASSES, 1, "p50_ms", "hfserve")),
    Goal("share of the limit, c=32, nginx + MMS", 0.9, None, lambda found: found.share_of_limit(32, "hfserve")),
    Goal("share of the limit, c=32, nginx alone", 0.94, None, lambda found: found.share_of_limit(32, "hfserve-asgi")),
    Goal("requests/s ÷ baseline, embeddings, c=32", 3.3, None, _rate(EMBEDDINGS, 32, "hfserve")),
    Goal("requests/s ÷ infinity-emb, embeddings, c=32", 4.5, None, _rate(EMBEDDINGS, 32, "hfserve", "infinity")),
    Goal("requests/s ÷ baseline, zero-shot with 10 labels, c=8", 3.0, None, _rate(ZERO_SHOT, 8, "hfserve")),
    Goal("requests/s ÷ baseline, question answering, c=32", 2.5, None, _rate(QUESTIONS, 32, "hfserve")),
    Goal("requests/s ÷ baseline, fill-mask, c=32", 2.5, None, _rate(MASKS, 32, "hfserve")),
    Goal("p99 ÷ p50, c=32", None, 2.0, lambda found: found.tail(32, "hfserve")),
    Goal("CPU at rest, of a core", None, 0.01, lambda found: found.life("hfserve", lambda each: each["rest"]["cores"])),
    Goal(
        "peak memory ÷ baseline", None, 1.0, lambda found: _divided(found.peak("hfserve"), found.peak(found.baseline))
    ),
)  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """Everything between the markers."""
    found = Found(results)
    names = {key: about["name"] for key, about in results["targets"].items()}
    machine, settings = results["machine"], results["settings"]
    lines = [
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        + "; ".join(_versions(about) for about in results["targets"].values())
        + f". Rounds: {settings['rounds']}; {settings['seconds']:g} s a row after {settings['warmup']:g} s of warm-up.",
        "",
        *_table("what | to reach | measured | reached", (goal.cells(found) for goal in GOALS)),
        "",
        *_load(found, names),
        "",
        *(_life(found, names) if found.shown else ()),
        "",
        found.limit(),
        "",
        *(_agreement(each, names) for each in results["answers"]),
        "",
        "![Requests/s and p99 against the number of clients](plot.png)" if found.shown else "",
        *(line for key, reason in results["left_out"].items() for line in ("", f"Left out: {key}: {reason}.")),
    ]
    if found.worst > DISTURBED:
        lines += [
            "",
            f"**Disturbed:** other work on this machine took up to {found.worst:.2f} cores during some row, more than "
            f"the {DISTURBED} that leave the figures meaningful. Run it again when the machine is quiet.",
        ]
    return "\n".join(lines)


def rewrite(path: Path, text: str) -> None:
    """Put the text between the markers of a file; a file without them is left alone."""
    content = path.read_text() if path.exists() else ""
    before, found, rest = content.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if found and closed:
        path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def plot(results: dict[str, Any], path: Path) -> None:
    """Requests/s and p99 against concurrency, where it can be drawn."""
    servers: dict[str, list[dict[str, Any]]] = {}
    for (case, key, clients), row in Found(results).rows.items():
        if case == SHOWN:
            servers.setdefault(results["targets"][key]["name"], []).append({"clients": clients, **row})
    if not servers:
        return
    try:
        picture.draw(path, servers)
    except BenchError as error:
        print(f"{path.name} is not drawn: {error}", file=sys.stderr)


def line(row: dict[str, Any]) -> str:
    """A row of the load, for people who wait."""
    return (
        f"c={row['clients']:<2} {row['requests_per_s']:6.1f} requests/s, p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms"
        f", {row['peak_mib']:.0f} MiB, foreign CPU {row['foreign_cores']:.2f} cores, errors {row['errors']}"
    )


MEASURES = ("requests_per_s", "p50_ms", "p99_ms", "peak_mib", "server_cores")
COMPARED = (("requests_per_s", "{:.1f}"), ("p50_ms", "{:.0f}"), ("p99_ms", "{:.0f}"), ("peak_mib", "{:.0f}"))


def _combined(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **{name: _median(row[name] for row in rows) for name in MEASURES},
        "foreign_cores": max(row["foreign_cores"] for row in rows),
        "errors": sum(sum(row["errors"].values()) for row in rows),
    }


def _load(found: Found, names: Mapping[str, str]) -> list[str]:
    """A figure, and in brackets how often it is the baseline's."""

    def cells(case: str, key: str, clients: int) -> list[str]:
        row = found.rows[case, key, clients]
        figures = [
            _with_ratio(form, row[measure], None if key == found.baseline else found.ratio(case, clients, measure, key))
            for measure, form in COMPARED
        ]
        cores = [_form("{:.2f}", row["server_cores"]), f"{row['foreign_cores']:.2f}"]
        return [case, str(clients), names[key], *figures, *cores, str(row["errors"])]

    order = list(names)
    cases = list(dict.fromkeys(case for case, _, _ in found.rows))
    keys = sorted(
        (key for key in found.rows if key[1] in names), key=lambda k: (cases.index(k[0]), k[2], order.index(k[1]))
    )
    return _table(
        "task | clients | server | requests/s | p50 ms | p99 ms | peak memory MiB | its CPU | foreign CPU | errors",
        (cells(*key) for key in keys),
    )


LIFE: list[tuple[str, Callable[[Mapping[str, Any]], float], str]] = [
    ("start-up, s", lambda session: session["startup_s"], "{:.1f}"),
    ("memory at rest, MiB", lambda session: session["rest"]["mib"], "{:.0f}"),
    ("of it the first process, MiB", lambda session: session["rest"]["first_process_mib"], "{:.0f}"),
    ("CPU at rest, thousandths of a core", lambda session: session["rest"]["cores"] * 1000, "{:.0f}"),
    ("of it the first process", lambda session: session["rest"]["first_process_cores"] * 1000, "{:.0f}"),
]


def _life(found: Found, names: Mapping[str, str]) -> list[str]:
    def cell(key: str, take: Callable[[Mapping[str, Any]], float], form: str) -> str:
        value, theirs = found.life(key, take), found.life(found.baseline, take)
        return _with_ratio(form, value, None if key == found.baseline else _divided(value, theirs))

    head = " | ".join(["besides", *(names[key] for key in found.shown)])
    return _table(head, ([title, *(cell(key, take, form) for key in found.shown)] for title, take, form in LIFE))


def _agreement(found: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Whether a server computed what the baseline did."""
    good = found["compared"] - found["different"]
    return (
        f"- {found['case']}: {good} of {found['compared']} answers of {names[found['target']]} are the baseline's "
        f"to {found['tolerance']:g} (largest difference of a score {found['largest_difference']:.1e})."
    )


def _versions(about: Mapping[str, str]) -> str:
    return f"{about['name']} on Python {about['python']}, torch {about['torch']}, transformers {about['transformers']}"


def _table(head: str, rows: Iterable[list[str]]) -> list[str]:
    rule = "|".join("---" for _ in head.split("|"))
    return [f"| {head} |", f"|{rule}|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def _with_ratio(form: str, value: float | None, ratio: float | None) -> str:
    return _form(form, value) + ("" if ratio is None else f" ({ratio:.2f}×)")


def _form(form: str, value: float | None) -> str:
    return "–" if value is None else form.format(value)


def _median(values: Iterable[float | None]) -> float | None:
    """Of the rounds that have a value; a run without a single right answer has no latencies."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _divided(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None
