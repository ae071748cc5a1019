"""Chooses the files of a Hub model that are worth bringing: safetensors before pickles, PyTorch's before others'."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from hfserve.errors import ArtifactError

SAFE = ".safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
FOREIGN = (".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".tflite", ".gguf", ".mlmodel")
FOREIGN_DIRECTORIES = frozenset({"onnx", "openvino", "coreml", "tflite"})
OF_TRAINING = frozenset({"training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state.pth"})


def wanted(names: Iterable[str], model: str, *, allow_pickle: bool) -> list[str]:
    """The files to bring; all of them when none holds weights of PyTorch's."""
    names = list(names)
    torch = [name for name in names if not _foreign(name)]
    safe = {_folder(name) for name in torch if name.endswith(SAFE)}
    pickled = [name for name in torch if name.endswith(PICKLED)]
    if not safe and not pickled:
        return names
    if not safe and not allow_pickle:
        raise ArtifactError(
            f"{model} has only pickled weights ({pickled[0]}), which can run code when they are loaded: "
            "convert them to safetensors, or set HFSERVE_ALLOW_PICKLE=1"
        )
    refused = {name for name in pickled if not allow_pickle or _folder(name) in safe}
    return [name for name in torch if name not in refused and not _again(name, torch)]


def _foreign(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        name.endswith(FOREIGN)
        or path.name in OF_TRAINING
        or path.name.startswith("openvino_")
        or not FOREIGN_DIRECTORIES.isdisjoint(path.parts[:-1])
    )


def _again(name: str, names: list[str]) -> bool:
    """Mistral's consolidated.safetensors holds the same weights once more, in a layout transformers does not read."""
    if not PurePosixPath(name).match("consolidated*.safetensors"):
        return False
    return any(PurePosixPath(n).match("model*.safetensors") and _folder(n) == _folder(name) for n in names)


def _folder(name: str) -> PurePosixPath:
    return PurePosixPath(name).parent
