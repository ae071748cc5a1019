"""The command line: serve · check · package · invoke · bench · schema · settings."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfserve import __version__, logs, settings
from hfserve.errors import StartError
from hfserve.settings import Settings


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `hfserve`."""
    given = vars(_parser().parse_args(argv))
    command = given.pop("command")
    try:
        sys.exit(command(**given))
    except StartError as error:
        print(f"hfserve: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:
        sys.exit(1)


def serve() -> None:
    """Entry point of `serve`, as SageMaker starts the image (contract row 1)."""
    main(["serve", *sys.argv[1:]])


def _serve(**flags: Any) -> int:
    from hfserve.boot import supervisor

    chosen = Settings.read(**flags)
    sink = _sink(chosen)
    handler = _SinkHandler(sink)
    logging.basicConfig(level=chosen.log_level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return supervisor.serve(chosen, sink)


def _settings(markdown: bool, as_json: bool, **flags: Any) -> int:
    if markdown:
        print(settings.markdown(), end="")
        return 0
    chosen = Settings.read(**flags)
    values, sources = settings.shown(chosen), settings.sources(flags)
    if as_json:
        print(json.dumps({name: {"value": values[name], "source": sources[name]} for name in values}, indent=2))
        return 0
    for name, value in values.items():
        print(f"{name:<22} {value or '-':<28} {sources[name]}")
    return 0


def _check(directory: Path, **flags: Any) -> int:
    from hfserve import check

    return check.report(directory, Settings.read(**flags))


def _package(**given: Any) -> int:
    from hfserve import package

    return package.run(**given)


def _invoke(**given: Any) -> int:
    from hfserve import invoke

    return invoke.run(**given)


def _bench(**given: Any) -> int:
    from hfserve.bench import command

    return command.run(**given)


def _schema(task: str | None, markdown: bool) -> int:
    from hfserve import schema

    return schema.print_task(task, markdown=markdown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hfserve", description="Serve any Hugging Face model behind /ping and /invocations."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serving = commands.add_parser("serve", help="serve a model until told to stop")
    serving.add_argument("model", nargs="?", metavar="MODEL", help="a directory, a model.tar.gz, or a Hub id")
    _setting_flags(serving)
    serving.set_defaults(command=_serve)

    checking = commands.add_parser("check", help="say what a model directory holds, and what is wrong with it")
    checking.add_argument("directory", type=Path, metavar="DIR")
    checking.add_argument("--task")
    checking.set_defaults(command=_check)

    packing = commands.add_parser("package", help="make the model.tar.gz that SageMaker takes, checked before")
    packing.add_argument("model", metavar="MODEL", help="a directory, a model.tar.gz, or a Hub id")
    packing.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("model.tar.gz"),
        metavar="F",
        help="the archive (default: %(default)s)",
    )
    packing.add_argument("--hooks", type=Path, metavar="DIR", help="your code/, or its inference.py, to put in")
    packing.add_argument("--task", help="e.g. text-classification; found from the model when not given")
    packing.add_argument(
        "--no-example", action="store_false", dest="try_example", help="do not load the model to run its example"
    )
    packing.set_defaults(command=_package)

    invoking = commands.add_parser("invoke", help="send one request and print the answer")
    invoking.add_argument("body", nargs="?", help='the body, e.g. \'{"inputs": "I love this"}\'')
    invoking.add_argument("--file", type=Path, help="a file to send instead")
    invoking.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    invoking.add_argument("--content-type", help="default: by the file's name, else application/json")
    invoking.add_argument("--accept", default="application/json")
    invoking.set_defaults(command=_invoke)

    measuring = commands.add_parser("bench", help="measure requests/s and latency of an endpoint, or of a model")
    measuring.add_argument(
        "target", metavar="URL|MODEL", help="http://…, sagemaker:ENDPOINT, or a model that is served for the time"
    )
    measuring.add_argument(
        "-c", "--clients", type=_counts, default=(1, 8, 32), metavar="N,…", help="clients at once (default: 1,8,32)"
    )
    measuring.add_argument("--texts", type=Path, metavar="F", help="a text a line, or whole bodies in F.jsonl")
    measuring.add_argument("--seconds", type=_positive, default=10.0, help="measured for each (default: 10)")
    measuring.add_argument("--warmup", type=_positive, default=2.0, help="seconds before that (default: 2)")
    measuring.add_argument("--requests", type=_count, help="measure so many requests instead of seconds")
    measuring.add_argument("--tokenizer", type=Path, metavar="DIR", help="count tokens by DIR/tokenizer.json")
    measuring.add_argument("--json", type=Path, dest="json_file", metavar="F", help="write the figures; - prints them")
    measuring.add_argument("--png", type=Path, metavar="F", help="draw them (needs matplotlib)")
    measuring.set_defaults(command=_bench)

    describing = commands.add_parser("schema", help="print what a task takes and gives, as OpenAPI")
    describing.add_argument("--task", help="the task; without it, the names of all")
    describing.add_argument("--markdown", action="store_true", help="print docs/tasks.md")
    describing.set_defaults(command=_schema)

    showing = commands.add_parser("settings", help="print the effective settings and where each came from")
    showing.add_argument("--markdown", action="store_true", help="print docs/settings.md")
    showing.add_argument("--json", action="store_true", dest="as_json")
    _setting_flags(showing)
    showing.set_defaults(command=_settings)
    return parser


def _setting_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", help="e.g. text-classification; found from the model when not given")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--engine", choices=["mms", "asgi"])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--lanes", type=int)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError
    return count


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.split(","))


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise ValueError
    return seconds


class _SinkHandler(logging.Handler):
    """Sends the supervisor's own records where its children's lines go."""

    def __init__(self, sink: Any) -> None:
        super().__init__()
        self._sink = sink
        self.setFormatter(logs.JsonLines("supervisor"))

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        self._sink(json.loads(self.format(record)))


def _sink(chosen: Settings) -> Any:
    """Writes events to standard output in the form that was asked for."""
    people = chosen.log == "text" or (chosen.log == "auto" and sys.stdout.isatty())
    minimum = chosen.log_level

    def write(event: dict[str, Any]) -> None:
        if settings.LEVELS.get(str(event.get("level", "info")).upper(), 20) < minimum:
            return
        print(logs.for_people(event) if people else logs.as_json(event), flush=True)

    return write


if __name__ == "__main__":
    main()
