"""Requests/s and p99 against the number of clients, as a PNG."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfserve.bench.errors import BenchError

PANELS = (("requests_per_s", "requests/s"), ("p99_ms", "p99, ms"))


def check() -> None:
    """Raise BenchError when nothing can be drawn."""
    if not find_spec("matplotlib"):
        raise BenchError("a picture needs matplotlib, which is missing: pip install 'hfserve[bench]'")


def draw(path: Path, servers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """The rows of each server, by its name."""
    check()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    counts = sorted({row["clients"] for rows in servers.values() for row in rows})
    for panel, (measure, title) in zip(panels, PANELS, strict=True):
        for name, rows in servers.items():
            known = [row for row in rows if row[measure] is not None]
            panel.plot([row["clients"] for row in known], [row[measure] for row in known], marker="o", label=name)
        panel.set_xscale("log", base=2)
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.set(xlabel="clients", title=title, ylim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
