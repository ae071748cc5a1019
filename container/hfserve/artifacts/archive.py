"""Unpacks a model's archive where it can do no harm, or refuses it and names the member that would."""

import bz2
import gzip
import logging
import lzma
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from hfserve.errors import ArtifactError

log = logging.getLogger(__name__)

SUFFIXES = (".tar.gz", ".tgz", ".tar")
MAX_BYTES = 200 * 10**9
MAX_MEMBERS = 100_000
SPARE_BYTES = 256 << 20
CHUNK = 1 << 20
COMPRESSIONS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


def unpack(archive: Path, target: Path) -> Path:
    """Unpack into `target`, which is emptied first; returns the directory in it that holds the model."""
    log.info("unpacking %s", archive)
    started = time.monotonic()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        written = _extract(archive, target, _room(target))
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise ArtifactError(f"{archive} is not a tar archive, or is damaged: {error}") from error
    except OSError as error:
        raise ArtifactError(f"{archive} cannot be unpacked into {target}: {error}") from error
    log.info("unpacked %s", archive, extra={"bytes": written, "seconds": round(time.monotonic() - started, 1)})
    return _root(archive, target)


def _extract(archive: Path, target: Path, room: int) -> int:
    written = 0
    with _opened(archive) as stream, tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as tar:
        for count, member in enumerate(tar, start=1):
            written += member.size
            if fault := _fault(member):
                raise ArtifactError(f"{archive} is refused: its member {member.name!r} {fault}")
            if written > room:
                raise ArtifactError(f"{archive} is refused: it unpacks to more than the {room} bytes there is room for")
            if count > MAX_MEMBERS:
                raise ArtifactError(f"{archive} is refused: it has more than {MAX_MEMBERS} members")
            tar.extract(member, target, filter="data")
        # Only a read to the end compares a compressed stream with its checksum.
        stream.read(CHUNK)
    return written


def _opened(archive: Path) -> BinaryIO:
    """The tar stream; tarfile's own decompression would not notice a stream that was cut or changed."""
    with archive.open("rb") as file:
        head = file.read(6)
    opener = next((opener for magic, opener in COMPRESSIONS.items() if head.startswith(magic)), Path.open)
    return cast(BinaryIO, opener(archive, "rb"))


def _fault(member: tarfile.TarInfo) -> str:
    path = PurePosixPath(member.name)
    if path.is_absolute():
        return "has an absolute path"
    if ".." in path.parts:
        return "leads out of the archive"
    if member.issym() or member.islnk():
        return f"is a link (to {member.linkname!r}); put the file itself there"
    if member.size < 0:
        return "has a negative size"
    if not (member.isreg() or member.isdir()):
        return "is neither a file nor a directory"
    return ""


def _room(target: Path) -> int:
    return min(MAX_BYTES, max(0, shutil.disk_usage(target).free - SPARE_BYTES))


def _root(archive: Path, target: Path) -> Path:
    """Where the model lies: one level down when a directory was packed instead of its content."""
    entries = [entry for entry in target.iterdir() if not entry.name.startswith(("._", ".DS_Store"))]
    if not entries:
        raise ArtifactError(f"{archive} is empty: it should hold the model's files")
    top = entries[0]
    packed = (top / "config.json").is_file() or (top / "code").is_dir()
    if len(entries) > 1 or top.name == "code" or not packed:
        return target
    log.warning("%s holds the directory %s instead of its content; serving what is inside", archive, top.name)
    return top
