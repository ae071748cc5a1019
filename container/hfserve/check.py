"""`hfserve check DIR`: what a model directory holds, and every mistake in it, without serving."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from hfserve import artifacts, hooks
from hfserve.errors import StartError
from hfserve.hooks import Hooks
from hfserve.settings import MIB, Settings

BASE_MEMORY = 350 * MIB
"""Bytes of a worker before its weights: Python, torch, transformers (measured, CPU)."""


def report(directory: Path, settings: Settings) -> int:
    """Print what was found and what is wrong; exit status 0, or 3 when something is."""
    with tempfile.TemporaryDirectory(prefix="hfserve-check-") as scratch:
        return conclude(*examine(directory, settings, Path(scratch)))


def examine(directory: Path, settings: Settings, scratch: Path) -> tuple[dict[str, Any], list[str]]:
    """What was found and what is wrong; the packages that the code requires are put into `scratch` and imported."""
    chosen = settings.model_copy(update={"model": str(directory), "hub_offline": True})
    try:
        artifact = artifacts.resolve(chosen, scratch)
    except StartError as error:
        return {"model": str(directory)}, [str(error)]
    sys.path[:0] = [str(path) for path in artifact.python_path]
    mistakes = hooks.problems(artifact.code_dir, chosen.program, chosen.handler)
    functions = Hooks() if mistakes else hooks.find(artifact.code_dir, chosen.program, chosen.handler)
    by_hooks = bool(functions.model_fn or functions.handle)
    unknown = bool(mistakes) and not (artifact.model_dir / "config.json").is_file()
    if not by_hooks and not unknown:
        mistakes += _weights_mistakes(artifact.model_dir, chosen)
    config = _config(artifact.model_dir)
    found: dict[str, Any] = {
        "model": artifact.origin,
        "task": "unknown until the mistakes are mended" if unknown else _task(artifact, chosen, by_hooks, mistakes),
        "architecture": ", ".join(config.get("architectures") or []) or "none named in config.json",
        "hooks": _hooks(functions) if not mistakes else "see the mistakes below",
        "requirements": _requirements(artifact.code_dir),
        "size on disk": _megabytes(_size(artifact.model_dir)),
        "memory per worker": f"about {_megabytes(BASE_MEMORY + _weights(artifact.model_dir, config))}",
    }
    return found, mistakes


def conclude(found: dict[str, Any], mistakes: list[str]) -> int:
    """Print it; the exit status."""
    for name, value in found.items():
        print(f"{name:<18} {value}")
    for mistake in mistakes:
        print(f"{'mistake':<18} {mistake}")
    print(
        "ready to serve"
        if not mistakes
        else f"{len(mistakes)} mistake{'s' * (len(mistakes) > 1)}: this would not start"
    )
    return 0 if not mistakes else StartError.exit_status


def _task(artifact: artifacts.Artifact, settings: Settings, by_hooks: bool, mistakes: list[str]) -> str:
    """The task as serving would choose it; user code that loads the model by itself needs none."""
    from hfserve.tasks import detect, table

    try:
        return table.find(settings.task or detect.detect(artifact.model_dir)).name
    except StartError as error:
        if by_hooks:
            return "custom, by the hooks"
        mistakes.append(str(error))
        return "not found"


def _hooks(functions: Hooks) -> str:
    if not functions.path:
        return "none: hfserve's own"
    names = [name for name in hooks.HOOKS if getattr(functions, name)] + ["handle"] * bool(functions.handle)
    return f"{', '.join(names)} in {functions.path.parent.name}/{functions.path.name}"


def _weights_mistakes(model_dir: Path, settings: Settings) -> list[str]:
    """What serving would refuse about the weights, from the sizes and headers of their files."""
    from hfserve.runtimes.torch import only_pickles

    try:
        only_pickles(model_dir, settings.options("cpu"))
    except StartError as error:
        return [str(error)]
    files = sorted(model_dir.glob("*.safetensors"))
    if not files and not any(model_dir.glob("*.bin")) and _config(model_dir):
        return [f"{model_dir.name}/ holds no weights: neither *.safetensors nor *.bin"]
    return [f"{file.name} is damaged: {fault}" for file in files if (fault := _fault(file))]


def _fault(file: Path) -> str:
    """What is wrong with a safetensors file: 8 bytes of length, a header in JSON, then the tensors it tells of."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        size = file.stat().st_size
        if length > size:
            return "its header is cut off"
        try:
            header = json.loads(opened.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, TypeError, KeyError, AttributeError):
            return "its header cannot be read"
    return "" if 8 + length + end == size else f"it should have {8 + length + end} bytes and has {size}"


def _requirements(code_dir: Path | None) -> str:
    path = code_dir / "requirements.txt" if code_dir else None
    if not path or not path.is_file():
        return "none"
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return ", ".join(line for line in lines if line) or "none"


def _config(model_dir: Path) -> dict[str, Any]:
    """config.json, empty when it cannot be read: whoever looks for the task tells of that."""
    try:
        content = json.loads((model_dir / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _weights(model_dir: Path, config: dict[str, Any]) -> int:
    """Bytes of the weights once loaded: on CPU half-precision ones are widened to four bytes."""
    stored = sum(f.stat().st_size for pattern in ("*.safetensors", "*.bin") for f in model_dir.glob(pattern))
    half = str(config.get("dtype") or config.get("torch_dtype")) in {"float16", "bfloat16"}
    return stored * 2 if half else stored


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _megabytes(size: int) -> str:
    return f"{size / MIB:,.1f} MB"
