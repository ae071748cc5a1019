"""Finds what is served: a directory, an archive or a Hub model, and the packages that its hooks ask for.

`python -m hfserve.artifacts RUN_DIR` does it in a process of its own and leaves the answer in RUN_DIR/artifact.json,
so that the supervisor stays small and free to answer meanwhile.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hfserve import logs
from hfserve.artifacts.archive import SUFFIXES, unpack
from hfserve.artifacts.hub import HubModel, fetch
from hfserve.artifacts.requirements import install
from hfserve.errors import ArtifactError, StartError
from hfserve.settings import Settings

log = logging.getLogger(__name__)

DEMO = Path(__file__).parent.parent / "demo"
FILE = "artifact.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """Where a model lies and where its code is."""

    model_dir: Path
    """The model's files; never a copy of a directory that was given."""
    origin: str
    """What the user named: the directory, the archive, or `hub-id@revision`."""
    python_path: tuple[Path, ...] = ()
    """Directories to put on `sys.path`: the installed requirements."""
    code_dir: Path | None = None
    """Where hooks are looked for."""


def resolve(settings: Settings, run_dir: Path) -> Artifact:
    """Find the model, unpacking or downloading it where needed, and install what its code requires."""
    run_dir = run_dir.absolute()
    artifact = _named(settings.model, settings, run_dir) if settings.model else _given(settings, run_dir)
    if artifact.code_dir is None or not settings.install_requirements:
        return artifact
    path = install(artifact.code_dir, run_dir, isolated=settings.network_isolation)
    return Artifact(artifact.model_dir, artifact.origin, path, artifact.code_dir)


def at_hand(settings: Settings) -> Artifact | None:
    """The model when there is nothing to unpack, download, install or complain of; None when `resolve` has work."""
    path = Path(settings.model).expanduser().absolute() if settings.model else settings.model_dir
    try:
        entries = _entries(path)
    except ArtifactError:
        return None
    if not entries or _lone_archive(entries):
        return None
    code_dir = _code_dir(settings, path)
    if code_dir and settings.install_requirements and (code_dir / "requirements.txt").exists():
        return None
    return Artifact(path, str(path), code_dir=code_dir)


def save(artifact: Artifact, run_dir: Path) -> None:
    """Write the artifact into the run directory, for the workers."""
    (run_dir / FILE).write_text(json.dumps(asdict(artifact), default=str))


def load(run_dir: Path) -> Artifact:
    """The artifact that was saved in the run directory."""
    saved = json.loads((run_dir / FILE).read_bytes())
    return Artifact(
        model_dir=Path(saved["model_dir"]),
        origin=saved["origin"],
        python_path=tuple(Path(path) for path in saved["python_path"]),
        code_dir=Path(saved["code_dir"]) if saved["code_dir"] else None,
    )


def main(run_dir: Path) -> int:
    """Resolve by the settings saved in the run directory; returns the exit status."""
    settings = Settings.load(run_dir)
    logs.configure("artifacts", settings.log_level)
    try:
        save(resolve(settings, run_dir), run_dir)
    except StartError as error:
        log.error("%s", error)
        return error.exit_status
    return 0


def _named(name: str, settings: Settings, run_dir: Path) -> Artifact:
    path = Path(name).expanduser().absolute()
    if path.is_dir():
        return _directory(path, settings, run_dir)
    if path.exists():
        return _archive(path, settings, run_dir)
    if name.startswith(("/", "./", "../", "~")) or name.endswith(SUFFIXES):
        raise ArtifactError(f"MODEL is {name}, and there is no such directory or archive here")
    model = HubModel.of(name, settings)
    snapshot = fetch(model, run_dir, forbidden_by=_forbidding(settings))
    return Artifact(snapshot, str(model), code_dir=_code_dir(settings, snapshot, trusted=settings.trust_remote_code))


def _given(settings: Settings, run_dir: Path) -> Artifact:
    if settings.model_dir.is_dir() and _entries(settings.model_dir):
        return _directory(settings.model_dir, settings, run_dir)
    log.info("no model is named and %s is empty: serving the demo model", settings.model_dir)
    return Artifact(DEMO, str(DEMO), code_dir=_code_dir(settings, DEMO))


def _directory(path: Path, settings: Settings, run_dir: Path) -> Artifact:
    entries = _entries(path)
    if not entries:
        raise ArtifactError(f"{path} is empty: it should hold the model's files, or its model.tar.gz")
    if _lone_archive(entries):
        return _archive(entries[0], settings, run_dir)
    return Artifact(path, str(path), code_dir=_code_dir(settings, path))


def _entries(directory: Path) -> list[Path]:
    try:
        return [entry for entry in directory.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise ArtifactError(f"{directory} cannot be read: {error}") from error


def _lone_archive(entries: Sequence[Path]) -> bool:
    return len(entries) == 1 and entries[0].is_file() and entries[0].name.endswith(SUFFIXES)


def _forbidding(settings: Settings) -> str:
    if settings.hub_offline:
        return "HF_HUB_OFFLINE"
    return "HFSERVE_NETWORK_ISOLATION" if settings.network_isolation else ""


def _archive(path: Path, settings: Settings, run_dir: Path) -> Artifact:
    model_dir = unpack(path, run_dir / "model")
    return Artifact(model_dir, str(path), code_dir=_code_dir(settings, model_dir))


def _code_dir(settings: Settings, model_dir: Path, *, trusted: bool = True) -> Path | None:
    """SAGEMAKER_SUBMIT_DIRECTORY, else the model's `code/`, else that of SageMaker's model directory."""
    code = model_dir / "code"
    if code.is_dir() and not trusted:
        log.warning("the code/ that this Hub model brings is not used: HF_TRUST_REMOTE_CODE=true would run it")
    places = [Path(settings.submit_directory)] if settings.submit_directory else []
    places += [code] if trusted else []
    places += [settings.model_dir / "code"]
    return next((place.absolute() for place in places if place.is_dir()), None)
