"""`hfserve package` in process: what goes into the archive, what is converted, and what is refused."""

import gzip
import hashlib
import json
import os
import shutil
import tarfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfserve import package
from hfserve.artifacts import DEMO
from hfserve.artifacts.archive import unpack
from hfserve.errors import ArtifactError
from hfserve.runtimes.converting import to_safetensors

HOOK = "def predict_fn(data, model): return model(data['inputs'])\n"


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("HFSERVE_", "SAGEMAKER_", "HF_TASK"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def demo(tmp_path):
    """A copy of the demo model that may be changed."""
    return shutil.copytree(DEMO, tmp_path / "demo")


def pack(model, output, **given):
    given = {"hooks": None, "task": None, "try_example": False, **given}
    return package.run(str(model), output, **given)


def names(archive):
    with tarfile.open(archive) as tar:
        return tar.getnames()


def pickled(model):
    """The model with its weights as a pickle, in the place of its safetensors; the weights."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    return weights


def same(some, others):
    return some.keys() == others.keys() and all(torch.equal(tensor, others[name]) for name, tensor in some.items())


def test_the_weights_are_at_the_root_and_nothing_else_is_changed(demo, tmp_path):
    assert pack(demo, tmp_path / "model.tar.gz") == 0
    there = unpack(tmp_path / "model.tar.gz", tmp_path / "there")
    assert sorted(path.name for path in there.iterdir()) == sorted(path.name for path in demo.iterdir())
    for path in demo.iterdir():
        assert (there / path.name).read_bytes() == path.read_bytes()


def test_the_same_files_make_the_same_bytes_wherever_they_lie(demo, tmp_path):
    other = shutil.copytree(demo, tmp_path / "elsewhere" / "of another name")
    os.utime(other / "config.json", (1, 1))
    (other / "config.json").chmod(0o600)
    digests = set()
    for number, model in enumerate((demo, other)):
        assert pack(model, tmp_path / f"{number}.tar.gz") == 0
        digests.add(hashlib.sha256((tmp_path / f"{number}.tar.gz").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_what_serving_has_no_use_for_is_left_out(demo, tmp_path):
    for name in (".git/config", ".DS_Store", "code/__pycache__/inference.pyc", "optimizer.pt", "training_args.bin",
                 "tf_model.h5", "onnx/model.onnx", "pytorch_model.bin"):  # fmt: skip
        (demo / name).parent.mkdir(parents=True, exist_ok=True)
        (demo / name).write_bytes(b"x")
    (demo / "code" / "inference.py").write_text(HOOK)
    (demo / "code" / "words.bin").write_bytes(b"mine")
    before = {path.name for path in DEMO.iterdir()}
    assert pack(demo, demo / "model.tar.gz") == 0
    assert pack(demo, demo / "model.tar.gz") == 0, "an archive does not hold the one before it"
    assert set(names(demo / "model.tar.gz")) == before | {"code/inference.py", "code/words.bin"}


@pytest.mark.parametrize("lone", [False, True], ids=["directory", "file"])
def test_hooks_stand_in_code_and_replace_what_was_there(demo, tmp_path, lone):
    (demo / "code").mkdir()
    (demo / "code" / "old.py").write_text("x = 1\n")
    hooks = tmp_path / "mine"
    hooks.mkdir()
    (hooks / "inference.py").write_text(HOOK)
    (hooks / "helper.py").write_text("y = 2\n")
    assert pack(demo, tmp_path / "m.tar.gz", hooks=hooks / "inference.py" if lone else hooks) == 0
    code = {name for name in names(tmp_path / "m.tar.gz") if name.startswith("code/")}
    assert code == {"code/inference.py"} | (set() if lone else {"code/helper.py"})


def test_a_pickle_is_converted_tensor_by_tensor(demo, tmp_path, capsys):
    weights = pickled(demo)
    assert pack(demo, tmp_path / "m.tar.gz", try_example=True) == 0
    assert "converting pytorch_model.bin to model.safetensors" in capsys.readouterr().err
    there = unpack(tmp_path / "m.tar.gz", tmp_path / "there")
    assert same(load_file(there / "model.safetensors"), weights)
    assert not list(there.glob("*.bin"))


def test_the_parts_of_a_pickle_are_converted_with_their_index(demo, tmp_path):
    weights = pickled(demo)
    (demo / "pytorch_model.bin").unlink()
    half = len(weights) // 2
    where = {}
    for number, some in enumerate((list(weights)[:half], list(weights)[half:]), 1):
        name = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({each: weights[each] for each in some}, demo / name)
        where.update(dict.fromkeys(some, name))
    (demo / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert pack(demo, tmp_path / "m.tar.gz", try_example=True) == 0
    there = unpack(tmp_path / "m.tar.gz", tmp_path / "there")
    index = json.loads((there / "model.safetensors.index.json").read_text())["weight_map"]
    found = {name: load_file(there / file)[name] for name, file in index.items()}
    assert same(found, weights)


def test_tensors_that_share_memory_are_written_for_each_name(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": shared, "b": shared, "c": shared.t()}, tmp_path / "w.bin")
    to_safetensors(tmp_path / "w.bin", tmp_path / "w.safetensors")
    assert same(load_file(tmp_path / "w.safetensors"), {"a": shared, "b": shared, "c": shared.t()})


def test_a_pickle_of_the_old_form_is_converted_too(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
    to_safetensors(tmp_path / "w.bin", tmp_path / "w.safetensors")
    assert same(load_file(tmp_path / "w.safetensors"), {"a": torch.ones(3)})


def test_a_pickle_that_would_run_something_is_refused_and_does_not(demo, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (demo / "model.safetensors").unlink()
    torch.save({"w": Evil()}, demo / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match=r"pytorch_model\.bin cannot be read as weights only"):
        pack(demo, tmp_path / "m.tar.gz")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "m.tar.gz").exists()


@pytest.mark.parametrize(
    ("content", "words"), [([1, 2], "more than tensors"), ({"epoch": 3}, "more than tensors"), (None, "weights only")]
)
def test_a_pickle_of_something_else_is_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "w.bin")
    if content is None:
        (tmp_path / "w.bin").write_bytes(b"PK cut off")
    with pytest.raises(ArtifactError, match=words):
        to_safetensors(tmp_path / "w.bin", tmp_path / "w.safetensors")


def test_a_checkpoint_of_an_unknown_kind_is_refused_in_words(demo, tmp_path):
    (demo / "model.safetensors").rename(demo / "model.ckpt")
    with pytest.raises(ArtifactError, match=r"model\.ckpt is a pickle of an unknown kind: .*save_pretrained"):
        pack(demo, tmp_path / "m.tar.gz")


def test_weights_of_another_directory_are_converted_where_they_lie(demo, tmp_path):
    (demo / "2_Dense").mkdir()
    torch.save({"linear.weight": torch.ones(2, 2)}, demo / "2_Dense" / "pytorch_model.bin")
    assert pack(demo, tmp_path / "m.tar.gz") == 0
    assert "2_Dense/model.safetensors" in names(tmp_path / "m.tar.gz")


def test_links_are_packed_as_the_files_they_lead_to(demo, tmp_path):
    (tmp_path / "blob").write_bytes((demo / "config.json").read_bytes())
    (demo / "config.json").unlink()
    (demo / "config.json").symlink_to(tmp_path / "blob")
    assert pack(demo, tmp_path / "m.tar.gz") == 0
    assert (unpack(tmp_path / "m.tar.gz", tmp_path / "there") / "config.json").is_file()


def test_a_model_that_cannot_answer_its_example_is_not_packed(demo, tmp_path):
    weights = load_file(demo / "model.safetensors")
    save_file({name: tensor[:1] for name, tensor in weights.items() if tensor.dim()}, demo / "model.safetensors")
    assert pack(demo, tmp_path / "unseen.tar.gz") == 0, "the headers are sound"
    with pytest.raises(Exception, match="did not load"):
        pack(demo, tmp_path / "m.tar.gz", try_example=True)
    assert not (tmp_path / "m.tar.gz").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_large_is_told_while_it_is_packed(demo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(package, "LARGE", 1 << 20)
    assert pack(demo, tmp_path / "m.tar.gz") == 0
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("packed 100 % of 3 MB") and len(told) <= 10
    with gzip.open(tmp_path / "m.tar.gz") as stream:
        assert stream.read(6)
