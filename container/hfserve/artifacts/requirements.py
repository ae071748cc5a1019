"""Installs code/requirements.txt beside the server's own packages, never over them."""

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import takewhile
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from hfserve.errors import ArtifactError

log = logging.getLogger(__name__)

QUIET = ("--no-input", "--disable-pip-version-check", "--progress-bar=off", "--root-user-action=ignore")
INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "--trusted-host")
CONFLICT = "The conflict is caused by:"
SERVER = "hfserve"
TAIL = 20
LONGEST_REASON = 1000


def install(code_dir: Path, run_dir: Path, *, isolated: bool) -> tuple[Path, ...]:
    """Install what is required and not there yet; returns the directories to put on `sys.path`, if any.

    pip first chooses without installing, because only so does it count what is installed already; what it chose then
    goes into a directory of its own. Isolated, it takes only wheels that lie in `code/` or `code/wheels/`.
    """
    required = code_dir / "requirements.txt"
    if not required.is_file() or not _lines(required):
        return ()
    log.info("installing code/requirements.txt")
    started = time.monotonic()
    sources = _sources(code_dir, isolated=isolated)
    chosen = _choose(required, run_dir, sources)
    target = _install(chosen, required, run_dir, sources) if chosen else None
    did = "installed code/requirements.txt" if target else "code/requirements.txt needs nothing that is not installed"
    log.info(did, extra={"packages": len(chosen), "seconds": round(time.monotonic() - started, 1)})
    return (target,) if target else ()


def constraints() -> Iterator[str]:
    """What the server needs stays as installed; what those packages need stays within what they ask for."""
    direct = list(_needs(SERVER))
    for need in direct:
        yield f"{need.name}=={version(need.name)}"
    seen = {SERVER}
    waiting = direct
    while waiting:
        package = waiting.pop()
        if package.name in seen:
            continue
        seen.add(package.name)
        for need in _needs(package.name, *package.extras):
            waiting.append(need)
            if need.specifier:
                yield f"{need.name}{need.specifier}"


def _needs(package: str, *extras: str) -> Iterator[Requirement]:
    """What an installed package asks for here, as far as it is installed."""
    for need in map(Requirement, _requires(package)):
        applies = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if applies and _installed(need.name):
            yield need


def _requires(package: str) -> list[str]:
    try:
        return requires(package) or []
    except PackageNotFoundError:
        return []


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _choose(required: Path, run_dir: Path, sources: list[str]) -> list[str]:
    """What pip would install, each as a requirement that names its very file."""
    report = run_dir / "requirements.json"
    limits = run_dir / "constraints.txt"
    limits.write_text("\n".join(constraints()) + "\n")
    _pip(["--dry-run", f"--report={report}", f"-r{required}", f"-c{limits}", *sources], required, run_dir)
    return [_exactly(package) for package in json.loads(report.read_bytes())["install"]]


def _install(chosen: list[str], required: Path, run_dir: Path, sources: list[str]) -> Path:
    target = run_dir / "requirements"
    shutil.rmtree(target, ignore_errors=True)
    files = run_dir / "requirements.chosen.txt"
    options = [line for line in _lines(required) if line.replace("=", " ").split()[0] in INDEX_OPTIONS]
    files.write_text("\n".join([*options, *chosen]) + "\n")
    _pip(["--no-deps", f"--target={target}", f"-r{files}", *sources], required, run_dir)
    return target


def _exactly(package: dict[str, Any]) -> str:
    origin = package["download_info"]
    url = origin["url"]
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    digest = origin.get("archive_info", {}).get("hashes", {}).get("sha256")
    fragment = [f"sha256={digest}"] if digest else []
    fragment += [f"subdirectory={origin['subdirectory']}"] if "subdirectory" in origin else []
    return f"{package['metadata']['name']} @ {url}" + ("#" + "&".join(fragment) if fragment else "")


def _sources(code_dir: Path, *, isolated: bool) -> list[str]:
    bundled = [f"--find-links={place}" for place in (code_dir, code_dir / "wheels") if place.is_dir()]
    return ["--no-index", *bundled] if isolated else bundled


def _lines(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text("utf-8", "replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _pip(arguments: list[str], required: Path, run_dir: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", *QUIET, *arguments]
    output = run_dir / "requirements.log"
    with output.open("a") as file:
        before = file.tell()
        done = subprocess.run(command, cwd=required.parent, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    if done.returncode == 0:
        return
    said = output.read_bytes()[before:].decode(errors="replace").splitlines()
    log.error("pip failed", extra={"status": done.returncode, "output": "\n".join(said[-TAIL:])})
    reason = _reason(said)
    if "--no-index" in arguments and "No matching distribution" in reason:
        reason += " (HFSERVE_NETWORK_ISOLATION is set: only wheels in code/ and code/wheels/ are taken)"
    raise ArtifactError(f"{required} cannot be installed: {reason}")


def _reason(said: list[str]) -> str:
    """The lines of pip's output that tell why: its errors, and both sides of a conflict."""
    errors = [line.removeprefix("ERROR: ").rstrip(".") for line in said if line.startswith("ERROR: ")]
    errors = [line for line in errors if not line.startswith("ResolutionImpossible")]
    conflict = said.index(CONFLICT) + 1 if CONFLICT in said else len(said)
    sides = [line.strip() for line in takewhile(str.strip, said[conflict:])]
    sides = [line.replace("The user requested (constraint)", "the server runs on") for line in sides]
    last = [line for line in said if line.strip()][-1:]
    return "; ".join([*errors, *sides] or last)[:LONGEST_REASON]
