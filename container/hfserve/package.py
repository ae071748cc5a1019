"""`hfserve package MODEL -o model.tar.gz`: the archive that SageMaker unpacks into /opt/ml/model, checked before."""

import gzip
import json
import re
import shlex
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hfserve import artifacts, check
from hfserve.artifacts import Artifact
from hfserve.artifacts.weights import OF_TRAINING, PICKLED, SAFE, wanted
from hfserve.errors import ArtifactError, LoadError, ServeError
from hfserve.settings import MIB, Settings

JUNK = re.compile(r"(^|/)(\.|__pycache__/|__MACOSX/)|\.pyc$")
"""Hidden files and what Python and file managers leave behind."""

CONVERTED = re.compile(r"(?P<stem>pytorch_model|diffusion_pytorch_model|adapter_model)(?P<shard>-\d+-of-\d+)?\.bin")
"""Pickles whose name tells what they are; safetensors of the second and third keep their names."""

LEVEL = 1
"""Of gzip: weights hardly become smaller, however long it takes."""

LARGE = 256 * MIB
"""Bytes from which packing tells how far it is."""

Members = dict[str, Path]
"""The name of each file in the archive, and where it lies."""


def run(model: str, output: Path, hooks: Path | None, task: str | None, try_example: bool) -> int:
    """Check, convert, try and pack; exit status 0, or 3 when the model would not start."""
    settings = Settings.read(task=task)
    if not output.absolute().parent.is_dir():
        raise ArtifactError(f"there is no directory {output.parent} to write {output.name} into")
    with tempfile.TemporaryDirectory(prefix=".hfserve-package-", dir=output.absolute().parent) as name:
        scratch = Path(name)
        members = _members(_source(model, settings, scratch), hooks, settings, scratch, leave_out=output)
        staged = _staged(members, scratch / "staged" / "model")
        found, mistakes = check.examine(staged, settings, scratch / "check")
        if not mistakes and try_example:
            found["example"] = _answered(staged, settings)
        status = check.conclude({**found, "model": model}, mistakes)
        if status == 0:
            _write(members, output, scratch)
            _tell(members, output, settings)
    return status


def _source(model: str, settings: Settings, scratch: Path) -> Path:
    """The directory of the model: as it is, unpacked, or downloaded from the Hub."""
    (scratch / "source").mkdir()
    chosen = settings.model_copy(update={"model": model, "install_requirements": False})
    return artifacts.resolve(chosen, scratch / "source").model_dir


def _members(source: Path, hooks: Path | None, settings: Settings, scratch: Path, *, leave_out: Path) -> Members:
    """What the archive holds: weights at its root, code/ beside them."""
    there = _files(source)
    there = {name: path for name, path in there.items() if not (leave_out.exists() and path.samefile(leave_out))}
    code = {name: path for name, path in there.items() if name.startswith("code/")}
    model = _converted({name: path for name, path in there.items() if name not in code}, scratch)
    if hooks:
        code = _code(hooks, settings.program)
    return {**{name: model[name] for name in wanted(model, source.name, allow_pickle=False)}, **code}


def _files(directory: Path) -> Members:
    names = ((path.relative_to(directory).as_posix(), path) for path in sorted(directory.rglob("*")))
    return {name: path for name, path in names if path.is_file() and not JUNK.search(name)}


def _code(hooks: Path, program: str) -> Members:
    """The user's code as code/; a lone file is the program."""
    if hooks.is_file():
        return {f"code/{program}": hooks}
    if not (hooks / program).is_file():
        raise ArtifactError(f"--hooks {hooks} should hold {program}, or be that file")
    return {f"code/{name}": path for name, path in _files(hooks).items()}


def _converted(files: Mapping[str, Path], scratch: Path) -> Members:
    """The same files, with safetensors in the place of pickles that have none beside them."""
    safe = {PurePosixPath(name).parent for name in files if name.endswith(SAFE)}
    kept: Members = {}
    for name, path in files.items():
        place = PurePosixPath(name)
        if not name.endswith((*PICKLED, ".bin.index.json")) or place.name in OF_TRAINING or place.parent in safe:
            kept[name] = path
            continue
        new = _renamed(place)
        target = scratch / "converted" / new
        target.parent.mkdir(parents=True, exist_ok=True)
        print(f"converting {name} to {new}", file=sys.stderr)
        if name.endswith(".json"):
            _convert_index(path, target)
        else:
            from hfserve.runtimes import converting

            converting.to_safetensors(path, target)
        kept[str(new)] = target
    return kept


def _renamed(place: PurePosixPath) -> PurePosixPath:
    """The name under which transformers, diffusers and peft look for the same weights as safetensors."""
    index = place.name.endswith(".index.json")
    match = CONVERTED.fullmatch(place.name.removesuffix(".index.json"))
    if not match:
        raise ArtifactError(
            f"{place} is a pickle of an unknown kind: save the model as safetensors, with save_pretrained"
        )
    stem = "model" if match["stem"] == "pytorch_model" else match["stem"]
    return place.with_name(f"{stem}{match['shard'] or ''}{SAFE}{'.index.json' * index}")


def _convert_index(path: Path, target: Path) -> None:
    """Which file of several holds which tensor."""
    index = json.loads(path.read_bytes())
    index["weight_map"] = {name: str(_renamed(PurePosixPath(file))) for name, file in index["weight_map"].items()}
    target.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _staged(members: Members, directory: Path) -> Path:
    """The files as the server will find them, without a copy."""
    for name, path in members.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).symlink_to(path.absolute())
    return directory


def _answered(staged: Path, settings: Settings) -> str:
    """Load the model and run the example of its task; raises StartError when it cannot."""
    from hfserve import model

    code = staged / "code"
    artifact = Artifact(staged, str(staged), code_dir=code if code.is_dir() else None)
    try:
        model.load(artifact, settings).warm_up()
    except ServeError as error:
        raise LoadError(f"the model loaded but cannot answer its example: {error}") from error
    return "loaded and answered"


def _write(members: Members, output: Path, scratch: Path) -> None:
    """The archive, with the same bytes whenever and wherever it is made of the same files."""
    progress = _Progress(sum(path.stat().st_size for path in members.values()))
    packed = scratch / "model.tar.gz"
    with (
        packed.open("wb") as file,
        gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, bufsize=MIB) as tar,
    ):
        for name, path in sorted(members.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as content:
                tar.addfile(member, _Told(content, progress.add))
    packed.replace(output)


class _Progress:
    """Tells each tenth of what takes long."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def add(self, size: int) -> None:
        """So many bytes more are packed."""
        before, self._done = self._done, self._done + size
        if self._total >= LARGE and 10 * before // self._total < 10 * self._done // self._total:
            percent = 100 * self._done // self._total
            print(f"packed {percent} % of {self._total / MIB:,.0f} MB", file=sys.stderr)


class _Told:
    """A file whose reader is heard of."""

    def __init__(self, file: BinaryIO, tell: Callable[[int], object]) -> None:
        self._file = file
        self._tell = tell

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        piece = self._file.read(size)
        self._tell(len(piece))
        return piece


def _tell(members: Members, output: Path, settings: Settings) -> None:
    print(f"{'archive':<18} {output}: {output.stat().st_size / MIB:,.1f} MB, {len(members)} files")
    if settings.task:
        print(f"{'environment':<18} HF_TASK={settings.task}")
    print(f"{'next':<18} aws s3 cp {shlex.quote(str(output))} s3://BUCKET/{shlex.quote(output.name)}")
