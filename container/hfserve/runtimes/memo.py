"""What was found out about a model when it was loaded, kept in the run directory for the next worker."""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSIONS = ("torch", "transformers")


class Memo:
    """A note about a model under given circumstances; another model, setting or version has a note of its own.

    Without a folder nothing is kept.
    """

    def __init__(self, folder: Path | None, model_dir: Path, *circumstances: str) -> None:
        about = [str(model_dir.resolve()), *_weights(model_dir), *map(version, VERSIONS), *circumstances]
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
        self._note = folder / f"tuning-{key}.json" if folder else None

    def recall(self) -> dict[str, Any] | None:
        """The note, if there is one."""
        if not self._note or not self._note.is_file():
            return None
        found: dict[str, Any] = json.loads(self._note.read_bytes())
        return found

    def keep(self, note: dict[str, Any]) -> None:
        """Write the note; of two workers that write at once, one is read."""
        if self._note:
            draft = self._note.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(note))
            draft.rename(self._note)

    def beside(self, ending: str) -> Path | None:
        """Where a file that belongs to the note lies."""
        return self._note.with_suffix(ending) if self._note else None


def _weights(model_dir: Path) -> list[str]:
    """Names, sizes and times of the files."""
    files = sorted(file for file in model_dir.iterdir() if file.is_file())
    return [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
