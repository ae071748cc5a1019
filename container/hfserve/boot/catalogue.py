"""What HFSERVE_MODELS allows to be loaded on demand: names and where their models are."""

import re
from pathlib import Path

from hfserve.errors import SettingsError

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", re.ASCII)
"""Shorter than a model's name may be, so that a task's can follow it."""


class Catalogue:
    """Names of models; those of a directory are looked up each time, so that new ones are found."""

    def __init__(self, written: str) -> None:
        self._given: dict[str, str] = {}
        self._shelf: Path | None = None
        parts = [part.strip() for part in written.split(",") if part.strip()]
        if len(parts) == 1 and "=" not in parts[0] and _is_shelf(Path(parts[0]).expanduser()):
            self._shelf = Path(parts[0]).expanduser().absolute()
            return
        for part in parts:
            name, _, place = part.rpartition("=")
            self._add(name, place)
        if not self._given:
            raise SettingsError("HFSERVE_MODELS names no model")

    def find(self, name: str) -> tuple[str, str] | None:
        """The name to load a model under, fit for an address, and where it is; None when there is no such."""
        place = self.names().get(name)
        return (_key(name), place) if place else None

    def names(self) -> dict[str, str]:
        """What there is."""
        if self._shelf is None:
            return self._given
        return {entry.name: str(entry) for entry in sorted(self._shelf.iterdir()) if _is_model(entry)}

    def _add(self, name: str, place: str) -> None:
        path = Path(place).expanduser()
        if path.exists():
            name, place = name or path.absolute().name, str(path.absolute())
        elif place.startswith((".", "/", "~")) or not HUB_ID.fullmatch(place):
            raise SettingsError(f"HFSERVE_MODELS: there is no {place}")
        name = name or place
        if not KEY.fullmatch(_key(name)):
            raise SettingsError(
                f"HFSERVE_MODELS: {name!r} is no name for a model: letters, digits, '.', '_' and '-', 50 at most"
            )
        if _key(name) in map(_key, self._given):
            raise SettingsError(f"HFSERVE_MODELS names {name} twice")
        self._given[name] = place


def _key(name: str) -> str:
    return name.replace("/", "--")


def _is_shelf(path: Path) -> bool:
    """Whether a directory holds models and is none itself."""
    itself = any((path / name).exists() for name in ("config.json", "model_index.json", "code"))
    return path.is_dir() and not itself and any(map(_is_model, path.iterdir()))


def _is_model(path: Path) -> bool:
    return path.is_dir() and bool(KEY.fullmatch(path.name)) and path.name != "code" and any(path.iterdir())
