"""Wherever a model comes from, it is served; and when it cannot be, the server ends with exit 3 and a sentence."""

import contextlib
import pickle
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from hfserve import artifacts
from hub import Hub
from server import Server, thoroughly

TOKEN = "hf_secret_of_the_test"
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path):
    """A user's own copy of the demo model."""
    return shutil.copytree(artifacts.DEMO, tmp_path / "weights")


@pytest.fixture
def sagemaker(tmp_path):
    """A directory like /opt/ml, with nothing in it yet."""
    (tmp_path / "ml" / "model").mkdir(parents=True)
    return tmp_path / "ml"


def assert_served(server, **more):
    reply = server.post(json={"inputs": "I love this"})
    assert reply.status_code == 200, reply.text
    [answer] = reply.json()
    assert answer["label"] == "POSITIVE"
    assert {name: answer.get(name) for name in more} == more


def refused(*model, **environment):
    """The log of a server that could not start, the sentence last."""
    server = Server(*model, ready=False, **environment)
    with server:
        while server.process.poll() is None:
            assert server.ping() != 200, f"it serves:\n{server.log()}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(0.1)
        assert server.process.returncode == 3, server.log()
        server._reader.join(5)
    last = server.lines[-1]
    assert last["level"] == "error", server.log()
    assert "\n" not in last["event"] and "Traceback" not in last["event"]
    return server


# The Hub


@pytest.mark.parametrize("engine", ["asgi", thoroughly("mms")])
def test_a_hub_model_is_served_by_its_id(engine, model, tmp_path):
    """[38]"""
    empty = tmp_path / "empty"
    empty.mkdir()
    with Hub({"org/feelings": empty, "org/feelings@v2": model}, token=TOKEN) as hub:
        environment = {**hub.environment(tmp_path / "home"), "HF_MODEL_ID": "org/feelings", "HF_MODEL_REVISION": "v2"}
        with Server(engine=engine, HF_HUB_OFFLINE="", HF_TOKEN=TOKEN, **environment) as server:
            begun = server.event("downloading org/feelings@v2", "artifacts")
            assert begun["bytes"] == sum(file.stat().st_size for file in model.iterdir())
            assert begun["files"] == len(list(model.iterdir()))
            assert server.event("downloaded org/feelings@v2", "artifacts")["seconds"] >= 0
            assert_served(server)
            assert TOKEN not in server.log()
        about_it = [asked for asked in hub.asked if "org/feelings" in asked.path]
        assert {asked.headers.get("authorization") for asked in about_it} == {f"Bearer {TOKEN}"}
        before = len(hub.asked)
        with Server(engine="asgi", HF_HUB_OFFLINE="1", **environment) as server:
            assert_served(server)
        assert len(hub.asked) == before


def test_sagemakers_code_serves_weights_of_the_hub(model, sagemaker, tmp_path):
    """[35]"""
    code = sagemaker / "model" / "code"
    code.mkdir()
    (code / "inference.py").write_text(
        "def output_fn(prediction, accept):\n"
        "    import json\n"
        "    return json.dumps([{**prediction[0], 'by': 'hook'}]), accept\n"
    )
    with Hub({"org/feelings": model}) as hub:
        environment = {**hub.environment(tmp_path / "home"), "HF_HUB_OFFLINE": ""}
        with Server(HF_MODEL_ID="org/feelings", SAGEMAKER_BASE_DIR=str(sagemaker), **environment) as server:
            assert_served(server, by="hook")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HF_MODEL_ID": "org/nothing"}, ["there is no directory org/nothing", "HF_TOKEN"]),
        ({"HF_MODEL_ID": "org/locked"}, ["org/locked is gated", "HF_TOKEN"]),
        ({"HF_MODEL_ID": "org/feelings", "HF_MODEL_REVISION": "v9"}, ["no revision v9", "HF_MODEL_REVISION"]),
        ({"HF_MODEL_ID": "org/feelings", "HF_HUB_OFFLINE": "1"}, ["HF_HUB_OFFLINE", "cache"]),
        ({"HF_MODEL_ID": "org/feelings", "HFSERVE_NETWORK_ISOLATION": "1"}, ["HFSERVE_NETWORK_ISOLATION", "cache"]),
        ({"HFSERVE_MODEL": "what is this"}, ["no directory, no archive", "org/name"]),
    ],
)
def test_a_hub_model_that_cannot_be_had_is_exit_3_and_a_sentence(model, tmp_path, environment, words):
    repos = {"org/feelings": model, "org/locked": model}
    with Hub(repos, token=TOKEN, gated=("org/feelings", "org/locked")) as hub:
        environment = {**hub.environment(tmp_path / "home"), "HF_HUB_OFFLINE": "", **environment}
        last = refused(**environment).lines[-1]
    for word in words:
        assert word in last["event"], last


# Directories and archives


def test_the_directory_of_sagemaker_is_served_when_no_model_is_named(model, sagemaker):
    """[35]"""
    (sagemaker / "model").rmdir()
    model.rename(sagemaker / "model")
    before = sorted(file.name for file in (sagemaker / "model").rglob("*"))
    with Server(SAGEMAKER_BASE_DIR=str(sagemaker)) as server:
        assert_served(server)
        assert not list(server.run_dir.rglob("*.safetensors"))
    assert sorted(file.name for file in (sagemaker / "model").rglob("*")) == before


@pytest.mark.parametrize("place", ["named", "in the directory of SageMaker"])
def test_an_archive_is_unpacked_and_served(model, sagemaker, tmp_path, place):
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text(
        "def output_fn(prediction, accept):\n"
        "    import json\n"
        "    return json.dumps([{**prediction[0], 'by': 'hook'}]), accept\n"
    )
    folder = sagemaker / "model" if place != "named" else tmp_path
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(model, arcname=".")
    named = (folder / "model.tar.gz",) if place == "named" else ()
    with Server(*named, SAGEMAKER_BASE_DIR=str(sagemaker)) as server:
        assert_served(server, by="hook")


def test_an_archive_that_leads_out_of_itself_is_refused(tmp_path):
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../evil"))
    assert "'../../evil' leads out of the archive" in refused(tmp_path / "model.tar.gz").lines[-1]["event"]


def test_a_directory_that_is_not_there_is_exit_3_and_a_sentence(tmp_path):
    missing = tmp_path / "nothing"
    assert f"MODEL is {missing}, and there is no such directory" in refused(missing).lines[-1]["event"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"readme.txt": "hello"}, ["config.json", "readme.txt"]),
        ({"config.json": "{"}, ["config.json", "not JSON"]),
        ({"config.json": "{}"}, ["names no architecture", "HF_TASK"]),
        ({"config.json": '{"architectures": ["BertForSomething"]}'}, ["BertForSomething", "HF_TASK"]),
    ],
)
def test_a_directory_without_a_model_is_exit_3_and_names_what_is_missing(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    last = refused(tmp_path).lines[-1]
    for word in words:
        assert word in last["event"], last


# Weights


def _cut(weights):
    weights.write_bytes(weights.read_bytes()[:-5000])


def _garble(weights):
    weights.write_bytes(b"\xff" * 64 + weights.read_bytes()[64:])


def _replace_by_the_pointer_of_git_lfs(weights):
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 2702160\n")


@pytest.mark.parametrize("engine", ["asgi", thoroughly("mms")])
@pytest.mark.parametrize("damage", [_cut, thoroughly(_garble), _replace_by_the_pointer_of_git_lfs])
def test_damaged_weights_are_exit_3_and_a_sentence_after_one_try(engine, model, damage):
    damage(model / WEIGHTS)
    server = refused(model, engine=engine)
    assert "the model did not load" in server.lines[-1]["event"]
    starts = [line for line in server.lines if line["event"] == "loading the model"]
    assert len(starts) == 1


def test_missing_weights_are_exit_3_and_a_sentence(model):
    (model / WEIGHTS).unlink()
    last = refused(model).lines[-1]
    assert "the model did not load" in last["event"] and WEIGHTS in last["event"]


@pytest.mark.parametrize("task", ["text-classification", "feature-extraction"])
def test_a_model_without_its_tokenizer_is_exit_3_and_a_sentence(model, task):
    """transformers would make an empty one up, and the answers would be nonsense."""
    for file in model.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in refused(model, HF_TASK=task).lines[-1]["event"]


@pytest.fixture
def pickled(model):
    """A model whose weights are a pickle and nothing else."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(model / WEIGHTS), model / "pytorch_model.bin")
    (model / WEIGHTS).unlink()
    return model


def test_pickled_weights_are_refused_and_the_refusal_names_the_way_out(pickled):
    last = refused(pickled).lines[-1]
    for word in ("pytorch_model.bin", "pickle", "HFSERVE_ALLOW_PICKLE=1"):
        assert word in last["event"], last


def test_pickled_weights_are_served_when_that_is_allowed(pickled):
    with Server(pickled, HFSERVE_ALLOW_PICKLE="1") as server:
        assert_served(server)


def test_a_pickle_never_runs_even_when_pickles_are_allowed(model, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (model / WEIGHTS).unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
    last = refused(model, HFSERVE_ALLOW_PICKLE="1").lines[-1]
    assert "the model did not load" in last["event"]
    assert not (tmp_path / "ran").exists()


# Requirements


def a_wheel(directory, name="handmade"):
    """A wheel of one module, made by hand."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "word = 'made by hand'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    directory.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(directory / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, content)


NEEDY = """
import handmade
def model_fn(model_dir): return None
def predict_fn(data, model): return {"word": handmade.word}
"""


@pytest.mark.parametrize("engine", ["asgi", thoroughly("mms")])
def test_requirements_come_from_bundled_wheels_when_isolated(engine, model_with):
    """[41]"""
    directory = model_with(NEEDY, **{"requirements.txt": "# ours\nhandmade>=1\n"})
    a_wheel(directory / "code" / "wheels")
    with Server(directory, engine=engine, HFSERVE_NETWORK_ISOLATION="1") as server:
        assert server.post(json={}).json() == {"word": "made by hand"}
        assert server.event("installed code/requirements.txt", "artifacts")["packages"] == 1
    assert sorted(file.name for file in (directory / "code").iterdir() if file.name != "__pycache__") == [
        "inference.py", "requirements.txt", "wheels",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("handmade>=1", ["No matching distribution found for handmade", "HFSERVE_NETWORK_ISOLATION"]),
        ("numpy>>2", ["Invalid requirement", "numpy>>2"]),
        ("torch==1.0", ["requirements.txt", "torch"]),
    ],
)
def test_requirements_that_cannot_be_met_are_exit_3_with_pips_reason(model_with, line, words):
    directory = model_with(NEEDY, **{"requirements.txt": line + "\n"})
    server = refused(directory, HFSERVE_NETWORK_ISOLATION="1")
    for word in words:
        assert word in server.lines[-1]["event"], server.log()
    assert any("pip failed" in line["event"] and line.get("output") for line in server.lines)


def test_requirements_that_are_turned_off_are_not_installed(model_with):
    directory = model_with(NEEDY, **{"requirements.txt": "handmade>=1\n"})
    a_wheel(directory / "code" / "wheels")
    last = refused(directory, HFSERVE_INSTALL_REQUIREMENTS="0").lines[-1]
    assert "code/inference.py:2" in last["event"] and "handmade" in last["event"]
