"""Brings a model from the Hub: what the cache lacks, with progress, or one sentence that says why not."""

import errno
import glob
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hfserve.artifacts.weights import wanted
from hfserve.errors import ArtifactError
from hfserve.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

log = logging.getLogger(__name__)

PROGRESS_S = 5.0
TIMEOUT_S = 20.0
WAITS_S = (0.5, 2.0)
PASSING = frozenset({429, 500, 502, 503, 504})
SPARE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model as the Hub knows it."""

    repo: str
    revision: str = "main"
    token: str | None = field(default=None, repr=False)
    allow_pickle: bool = False

    @classmethod
    def of(cls, repo: str, settings: Settings) -> "HubModel":
        """The model of this id, by the settings' revision and token."""
        token = settings.token.get_secret_value().strip() if settings.token else ""
        if not all("!" <= character <= "~" for character in token):
            raise ArtifactError("HF_TOKEN holds characters that no token has, such as spaces")
        return cls(repo, settings.revision or "main", token or None, settings.allow_pickle)

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"


def fetch(model: HubModel, run_dir: Path, *, forbidden_by: str = "") -> Path:
    """The directory of the model's snapshot; the Hub is not asked when `forbidden_by` names what forbids it."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    _tame()
    try:
        if forbidden_by:
            return _cached(model, f"the Hub is not asked for {model} because {forbidden_by} is set")
        try:
            listed = _ask(model)
        except (httpx2.TransportError, HfHubHTTPError) as error:
            if not _passing(error):
                raise
            return _cached(model, _sentence(error, model))
        return _download(model, listed, run_dir)
    except HFValidationError:
        raise ArtifactError(
            f"MODEL is {model.repo}: no directory, no archive (.tar.gz, .tgz, .tar) and no Hub id like org/name"
        ) from None
    except (httpx2.HTTPError, OSError, ValueError) as error:
        raise ArtifactError(_sentence(error, model)) from error


def _tame() -> None:
    """Let the library speak through our log, and draw bars for people only."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.getLogger("huggingface_hub").handlers.clear()
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        disable_progress_bars()


def _ask(model: HubModel) -> "ModelInfo":
    """What the Hub has; asked again when it is busy, because a fleet that starts together asks together."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(library_name="hfserve", token=model.token)
    ask = partial(api.model_info, model.repo, revision=model.revision, files_metadata=True, timeout=TIMEOUT_S)
    for wait in WAITS_S:
        try:
            return ask()
        except (httpx2.TransportError, HfHubHTTPError) as error:
            if not _passing(error):
                raise
            log.warning("asking again in %g s: %s", wait, _sentence(error, model))
            time.sleep(wait)
    return ask()


def _passing(error: Exception) -> bool:
    """Whether it may be over soon: the Hub is away or busy. A Hub that says no is believed."""
    response = getattr(error, "response", None)
    return response is None or response.status_code in PASSING


def _cached(model: HubModel, why: str) -> Path:
    """The snapshot as the cache holds it, because the Hub cannot or must not be asked."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    try:
        listed = [file.path for file in get_cached_repo_tree(model.repo, revision=model.revision)]
        patterns = _exactly(wanted(listed, str(model), allow_pickle=model.allow_pickle))
    except CachedRepoTreeNotFoundError:
        patterns = None
    try:
        snapshot = snapshot_download(
            model.repo, revision=model.revision, local_files_only=True, allow_patterns=patterns
        )
    except LocalEntryNotFoundError as error:
        raise ArtifactError(f"{why}, and the cache ({_cache()}) does not hold it") from error
    log.info("found %s in the cache: %s", model, why)
    return Path(snapshot)


def _download(model: HubModel, listed: "ModelInfo", run_dir: Path) -> Path:
    from huggingface_hub import snapshot_download

    sizes = {file.rfilename: file.size or 0 for file in listed.siblings or ()}
    names = wanted(sizes, str(model), allow_pickle=model.allow_pickle)
    if not names:
        raise ArtifactError(f"{model} holds no files")
    cache = _cache()
    missing = _missing(model, listed, names)
    if missing and not _writable(cache):
        log.warning("the cache %s cannot be written to: downloading into %s", cache, run_dir / "hub")
        cache, missing = run_dir / "hub", names
    total = sum(sizes[name] for name in missing)
    with _reported(model, total, len(missing), cache):
        snapshot = snapshot_download(
            model.repo,
            revision=model.revision,
            token=model.token,
            cache_dir=cache,
            allow_patterns=_exactly(names),
            library_name="hfserve",
        )
    return Path(snapshot)


def _missing(model: HubModel, listed: "ModelInfo", names: list[str]) -> list[str]:
    from huggingface_hub import try_to_load_from_cache

    return [
        name for name in names if not isinstance(try_to_load_from_cache(model.repo, name, revision=listed.sha), str)
    ]


def _exactly(names: list[str]) -> list[str]:
    return [glob.escape(name) for name in names]


def _cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _writable(directory: Path) -> bool:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK)


@contextmanager
def _reported(model: HubModel, total: int, count: int, cache: Path) -> Iterator[None]:
    """Log the start, the progress and the end of a download; a terminal shows the Hub's own bars as well."""
    if not count:
        log.info("found %s in the cache", model)
        yield
        return
    _check_room(model, total, cache)
    log.info("downloading %s", model, extra={"bytes": total, "files": count})
    started = time.monotonic()
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(model, total, cache, done), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
    log.info("downloaded %s", model, extra={"bytes": total, "seconds": round(time.monotonic() - started, 1)})


def _check_room(model: HubModel, total: int, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if total + SPARE_BYTES > free:
        raise ArtifactError(
            f"{model} needs {total / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB free: set HF_HOME to a larger disk"
        )


def _watch(model: HubModel, total: int, cache: Path, done: threading.Event) -> None:
    """Log how far it is, judged by the cache's files: by whatever protocol the bytes come, there they land."""
    blobs = cache / f"models--{model.repo.replace('/', '--')}" / "blobs"
    before = _held(blobs)
    while not done.wait(PROGRESS_S):
        now = _held(blobs) - before
        log.info("downloading %s: %d %%", model, 100 * now // max(total, 1), extra={"bytes": now, "total": total})


def _held(blobs: Path) -> int:
    held = 0
    for blob in blobs.glob("*"):
        # A file is renamed as soon as it is whole, so it may be gone by now.
        with suppress(FileNotFoundError):
            held += blob.stat().st_size
    return held


def _sentence(error: BaseException, model: HubModel) -> str:
    """What went wrong and what to do about it."""
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    match error:
        case errors.GatedRepoError():
            return f"{model.repo} is gated: ask for access at {ENDPOINT}/{model.repo} and set HF_TOKEN"
        case errors.RepositoryNotFoundError():
            readable = "that HF_TOKEN may read" if model.token else "that can be read without HF_TOKEN"
            return f"there is no directory {model.repo}, and {ENDPOINT} has no model of that name {readable}"
        case errors.RevisionNotFoundError():
            return f"{model.repo} has no revision {model.revision}: HF_MODEL_REVISION takes a branch, a tag or a commit"
        case errors.HfHubHTTPError():
            said = error.server_message or error.response.reason_phrase
            return f"{ENDPOINT} answered {error.response.status_code} for {model}: {said}"
        case errors.LocalEntryNotFoundError(__cause__=BaseException() as cause):
            return _sentence(cause, model)
        case OSError(errno=errno.ENOSPC):
            return f"the disk that holds {_cache()} is full: set HF_HOME to a larger one"
        case OSError() | ValueError():
            return f"{model} cannot be brought from {ENDPOINT}: {error}"
    return f"cannot reach {ENDPOINT} for {model} ({str(error) or type(error).__name__}): has this network a way out?"
