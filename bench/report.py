"""Turns the results into the README's table and the plot."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

BEGIN, END = "<!-- results: written by bench/run.py -->", "<!-- end of results -->"
DISTURBED = 0.15
"""Cores used by others above which a row says little."""

Rows = dict[tuple[str, int], dict[str, Any]]


def markdown(results: dict[str, Any]) -> str:
    """Everything between the markers."""
    names = list(results["versions"])
    rows = summary(results["sessions"])
    machine, settings = results["machine"], results["settings"]
    worst = max(row["foreign_cores"] for row in rows.values())
    lines = [
        f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        + "; ".join(_versions(name, found) for name, found in results["versions"].items())
        + f". Rounds: {settings['rounds']}; {settings['seconds']:g} s a row after {settings['warmup']:g} s of warm-up.",
        "",
        *_load(rows, names),
        "",
        *_ratios(rows, names),
        "",
        *_life(results["sessions"], names),
        "",
        _answers(results["answers"]),
        "",
        "![Requests/s and p99 against the number of clients](plot.png)",
    ]
    if worst > DISTURBED:
        lines += [
            "",
            f"**Disturbed:** other work on this machine took up to {worst:.2f} cores during some row, more than the "
            f"{DISTURBED} that leave the figures meaningful. Run it again when the machine is quiet.",
        ]
    return "\n".join(lines)


def summary(sessions: Iterable[dict[str, Any]]) -> Rows:
    """Each server at each concurrency: medians over the rounds; of foreign CPU the worst, of errors the sum."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for session in sessions:
        for row in session["rows"]:
            groups.setdefault((session["target"], row["clients"]), []).append(row)
    return {key: _combined(rows) for key, rows in groups.items()}


def rewrite(path: Path, text: str) -> None:
    """Put the text between the markers of a file; a file without them is left alone."""
    content = path.read_text() if path.exists() else ""
    before, found, rest = content.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if found and closed:
        path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def plot(results: dict[str, Any], path: Path) -> None:
    """Requests/s and p99 against concurrency."""
    try:
        import matplotlib
    except ImportError:
        print(f"{path.name} is not drawn: it needs matplotlib", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = summary(results["sessions"])
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for panel, measure, title in zip(panels, ("requests_per_s", "p99_ms"), ("requests/s", "p99, ms"), strict=True):
        for name in results["versions"]:
            points = [(clients, row[measure]) for (target, clients), row in rows.items() if target == name]
            panel.plot(*zip(*points, strict=True), marker="o", label=name)
        panel.set_xscale("log", base=2)
        panel.set_xticks([clients for clients, _ in points], [str(clients) for clients, _ in points])
        panel.set(xlabel="clients", title=title, ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def line(row: dict[str, Any]) -> str:
    """A row of the load generator, for people who wait."""
    return (
        f"c={row['clients']:<2} {row['requests_per_s']:6.1f} requests/s, p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms"
        f", {row['peak_mib']:.0f} MiB, foreign CPU {row['foreign_cores']:.2f} cores, errors {row['errors']}"
    )


MEASURES = ("requests_per_s", "p50_ms", "p99_ms", "peak_mib", "server_cores")


def _combined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{name: _median(row[name] for row in rows) for name in MEASURES},
        "foreign_cores": max(row["foreign_cores"] for row in rows),
        "errors": sum(sum(row["errors"].values()) for row in rows),
    }


def _load(rows: Rows, names: list[str]) -> list[str]:
    clients = sorted({clients for _, clients in rows})
    return _table(
        "clients | server | requests/s | p50 ms | p99 ms | peak memory MiB | its CPU | foreign CPU | errors",
        ([
            str(count), name, f"{row['requests_per_s']:.1f}", f"{row['p50_ms']:.0f}", f"{row['p99_ms']:.0f}",
            f"{row['peak_mib']:.0f}", f"{row['server_cores']:.2f}", f"{row['foreign_cores']:.2f}", str(row["errors"]),
        ] for count in clients for name in names for row in [rows[name, count]]),
    )  # fmt: skip


def _ratios(rows: Rows, names: list[str]) -> list[str]:
    ours, theirs = names
    clients = sorted({clients for _, clients in rows})
    return _table(
        f"{ours} ÷ {theirs} | requests/s | p50 | p99 | peak memory",
        (
            [f"at {count}", *(_ratio(rows[ours, count][m], rows[theirs, count][m]) for m in MEASURES[:4])]
            for count in clients
        ),
    )


LIFE: list[tuple[str, Callable[[dict[str, Any]], float], str]] = [
    ("start-up, s", lambda session: session["startup_s"], "{:.1f}"),
    ("memory at rest, MiB", lambda session: session["rest"]["mib"], "{:.0f}"),
    (
        "of it the first process, MiB",
        lambda session: session["rest"]["first_process_mib"],
        "{:.0f}",
    ),
    ("CPU at rest, thousandths of a core", lambda session: session["rest"]["cores"] * 1000, "{:.0f}"),
    ("of it the first process", lambda session: session["rest"]["first_process_cores"] * 1000, "{:.0f}"),
]


def _life(sessions: list[dict[str, Any]], names: list[str]) -> list[str]:
    def cells(take: Callable[[dict[str, Any]], float], form: str) -> list[str]:
        values = [median(take(session) for session in sessions if session["target"] == name) for name in names]
        return [*(form.format(value) for value in values), _ratio(*values)]

    head = f"besides | {' | '.join(names)} | ratio"
    return _table(head, ([title, *cells(take, form)] for title, take, form in LIFE))


def _answers(found: dict[str, Any]) -> str:
    """Whether the two computed the same."""
    good = found["compared"] - found["different"]
    return (
        f"Answers: {good} of {found['compared']} texts got the same label and score from both "
        f"(largest difference of a score {found['largest_difference']:.1e})."
    )


def _versions(name: str, found: dict[str, str]) -> str:
    return f"{name} on Python {found['python']}, torch {found['torch']}, transformers {found['transformers']}"


def _table(head: str, rows: Iterable[list[str]]) -> list[str]:
    rule = "|".join("---" for _ in head.split("|"))
    return [f"| {head} |", f"|{rule}|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def _median(values: Iterable[float | None]) -> float:
    """Of the rounds that have a value; a run without a single right answer has no latencies."""
    known = [value for value in values if value is not None]
    return median(known) if known else float("nan")


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if theirs else "–"
