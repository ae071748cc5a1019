"""`hfserve check DIR`: what a model directory holds, and every mistake in it, without serving."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hfserve import artifacts, hooks
from hfserve.errors import StartError
from hfserve.settings import MIB, Settings

BASE_MEMORY = 350 * MIB
"""Bytes of a worker before its weights: Python, torch, transformers (measured, CPU)."""


def report(directory: Path, settings: Settings) -> int:
    """Print what was found and what is wrong; exit status 0, or 3 when something is."""
    with tempfile.TemporaryDirectory(prefix="hfserve-check-") as scratch:
        chosen = settings.model_copy(
            update={"model": str(directory), "install_requirements": False, "hub_offline": True}
        )
        try:
            artifact = artifacts.resolve(chosen, Path(scratch))
        except StartError as error:
            return _conclude({"model": str(directory)}, [str(error)])
        mistakes = hooks.problems(artifact.code_dir, chosen.program, chosen.handler)
        config = _config(artifact.model_dir, mistakes)
        found: dict[str, Any] = {
            "model": artifact.origin,
            "task": _task(artifact, chosen, mistakes),
            "architecture": ", ".join(config.get("architectures") or []) or "none named in config.json",
            "hooks": _hooks(artifact, chosen) if not mistakes else "see the mistakes below",
            "requirements": _requirements(artifact.code_dir),
            "size on disk": _megabytes(_size(artifact.model_dir)),
            "memory per worker": f"about {_megabytes(BASE_MEMORY + _weights(artifact.model_dir, config))}",
        }
        return _conclude(found, mistakes)


def _conclude(found: dict[str, Any], mistakes: list[str]) -> int:
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


def _task(artifact: artifacts.Artifact, settings: Settings, mistakes: list[str]) -> str:
    """The task as serving would choose it; user code that loads and predicts by itself needs none."""
    from hfserve.tasks import detect, table

    try:
        return table.find(settings.task or detect.detect(artifact.model_dir)).name
    except StartError as error:
        if not mistakes and _loads_itself(artifact, settings):
            return "custom, by the hooks"
        mistakes.append(str(error))
        return "not found"


def _loads_itself(artifact: artifacts.Artifact, settings: Settings) -> bool:
    functions = hooks.find(artifact.code_dir, settings.program, settings.handler)
    return bool(functions.model_fn or functions.handle)


def _hooks(artifact: artifacts.Artifact, settings: Settings) -> str:
    functions = hooks.find(artifact.code_dir, settings.program, settings.handler)
    if not functions.path:
        return "none: hfserve's own"
    names = [name for name in hooks.HOOKS if getattr(functions, name)] + ["handle"] * bool(functions.handle)
    return f"{', '.join(names)} in {functions.path.parent.name}/{functions.path.name}"


def _requirements(code_dir: Path | None) -> str:
    path = code_dir / "requirements.txt" if code_dir else None
    if not path or not path.is_file():
        return "none"
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return ", ".join(line for line in lines if line) or "none"


def _config(model_dir: Path, mistakes: list[str]) -> dict[str, Any]:
    path = model_dir / "config.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        mistakes.append(f"config.json is not valid JSON: {error}")
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
