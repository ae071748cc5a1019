"""Model data, from the store into the directory that a container sees; unpacked once, never copied."""

import contextlib
import hashlib
import shutil
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local_test.errors import StartFailed
from local_test.s3 import Store


def unpack(store: Store, uri: str, into: Path) -> None:
    """Unpack a model.tar.gz, nothing of it outside the directory; raises StartFailed."""
    try:
        with store.open(uri) as file, tarfile.open(fileobj=file) as archive:
            archive.extractall(into, filter="data")
    except FileNotFoundError:
        raise StartFailed(missing(uri)) from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise StartFailed(
            f'Failed to extract model data archive from URL "{uri}". Please ensure that the object located at the URL '
            f"is a valid tar.gz archive. ({error})"
        ) from None


def missing(uri: str) -> str:
    """What AWS says of model data that is not there."""
    return (
        f'Failed to download model data for container "container_1" from URL: "{uri}". Please ensure that there is an '
        "object located at the URL and that the role passed to CreateModel has permissions to download the object."
    )


def definition(model: dict[str, Any]) -> dict[str, Any]:
    """The container of a model, which may stand in a list of one."""
    found: dict[str, Any] = model.get("PrimaryContainer") or model["Containers"][0]
    return found


def source(container: dict[str, Any]) -> tuple[str, bool] | None:
    """The URI of a container's model data, and whether it is packed; None: it has none."""
    described = container.get("ModelDataSource", {}).get("S3DataSource")
    if described:
        return described["S3Uri"], described.get("CompressionType") != "None"
    if container.get("ModelDataUrl"):
        return container["ModelDataUrl"], container.get("Mode") != "MultiModel"
    return None


def is_there(store: Store, uri: str, packed: bool) -> bool:
    """Whether the store has the object, or objects below the prefix."""
    return store.exists(uri) if packed else bool(store.list(uri))


class Shelf:
    """Unpacked models, each there once and as long as somebody uses it."""

    def __init__(self, store: Store, root: Path) -> None:
        self._store, self._root = store, root
        self._users: Counter[Path] = Counter()
        self._lock = threading.Lock()
        self._unpacking: dict[Path, threading.Lock] = {}

    @contextlib.contextmanager
    def lay(self, container: dict[str, Any], base_dir: Path) -> Iterator[None]:
        """Put the container's model into base_dir/model for the time of the block."""
        base_dir.mkdir(parents=True, exist_ok=True)
        found = source(container)
        model = base_dir / "model"
        if found is None:
            model.mkdir(exist_ok=True)
            yield
        elif container.get("Mode") == "MultiModel":
            (base_dir / "models").mkdir(exist_ok=True)
            yield
        elif not found[1]:
            if not is_there(self._store, *found):
                raise StartFailed(missing(found[0]))
            model.symlink_to(self._store.path(found[0]))
            yield
        else:
            with self._unpacked(found[0]) as directory:
                model.symlink_to(directory)
                yield

    @contextlib.contextmanager
    def _unpacked(self, uri: str) -> Iterator[Path]:
        if not self._store.exists(uri):
            raise StartFailed(missing(uri))
        about = self._store.path(uri).stat()
        name = hashlib.sha256(f"{uri} {about.st_mtime_ns} {about.st_size}".encode()).hexdigest()[:16]
        directory = self._root / name
        with self._lock:
            self._users[directory] += 1
            unpacking = self._unpacking.setdefault(directory, threading.Lock())
        try:
            with unpacking:
                if not directory.exists():
                    partial = directory.with_suffix(".partial")
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir(parents=True)
                    unpack(self._store, uri, partial)
                    partial.rename(directory)
            yield directory
        finally:
            with self._lock:
                self._users[directory] -= 1
                if not self._users[directory]:
                    shutil.rmtree(directory, ignore_errors=True)
