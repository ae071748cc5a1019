"""The command: opens the door, sends the crowds one after another, and tells what came of it."""

import datetime
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from hfserve import __version__
from hfserve.bench import bodies, doors, picture, size
from hfserve.bench.doors import Door
from hfserve.bench.errors import BenchError
from hfserve.bench.load import Bound, measure
from hfserve.bench.table import Table, sentence


def run(
    target: str, clients: Sequence[int], texts: Path | None, seconds: float, warmup: float, requests: int | None,
    tokenizer: Path | None, json_file: Path | None, png: Path | None,
) -> int:  # fmt: skip
    """Exit status 0 when every answer was right, 1 when one was not or nothing could be measured."""
    out = sys.stderr if json_file == Path("-") else sys.stdout
    bound = Bound(requests=requests) if requests else Bound(seconds=seconds)
    try:
        if png:
            picture.check()
        sent = bodies.from_file(texts) if texts else []
        with doors.opened(target, max(clients)) as door:
            result = _measured(door, clients, sent, str(texts or ""), bound, warmup, tokenizer, out)
        if json_file:
            _write(json_file, json.dumps(result, indent=1) + "\n")
        if png:
            picture.draw(png, {door.name: result["rows"]})
    except BenchError as error:
        print(f"hfserve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if any(row["errors"] for row in result["rows"]) else 0


def _measured(
    door: Door, clients: Sequence[int], sent: list[bytes], source: str, bound: Bound, warmup: float,
    tokenizer: Path | None, out: TextIO,
) -> dict[str, Any]:  # fmt: skip
    """The whole result, its rows written as they come."""
    if not sent:
        sent, source = _own_bodies(door)
    _try(door, sent[0])
    ruler = size.ruler(tokenizer or door.model_dir, asked=tokenizer is not None)
    several = "bodies" if len(sent) > 1 else "body"
    print(f"{door.name}: {len(sent)} {several}, {source}", file=out, flush=True)
    table = Table(out, ruler.unit)
    table.head()
    rows = []
    for count in clients:
        warm = Bound(seconds=warmup, requests=bound.requests)
        tally = measure(door.crowd(sent, count), bound, warmup=warm, watch=partial(table.watch, count))
        rows.append({"clients": count, **tally.figures(), **ruler.figures(tally, sent)})
        table.row(rows[-1])
    return {
        "target": door.name, "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hfserve": __version__, "bodies": {"from": source, "count": len(sent)}, "rows": rows,
    }  # fmt: skip


def _own_bodies(door: Door) -> tuple[list[bytes], str]:
    """What to send when the user did not say, and where it is from."""
    if example := door.example():
        return [example], "the example of its /openapi.json; --texts sends others"
    return bodies.sentences(), "sentences of several lengths; --texts sends others"


def _try(door: Door, body: bytes) -> None:
    """One request before all others: a load of errors would say nothing."""
    answer = door.ask(body)
    if not 200 <= answer.status < 300:
        words = sentence(answer.body)
        raise BenchError(f"{door.name} answered the first request {answer.status or 'not at all'}: {words}")


def _write(path: Path, text: str) -> None:
    if path == Path("-"):
        print(text, end="")
    else:
        path.write_text(text)
