"""What is served is found, brought and unpacked safely, or a sentence says why not."""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import hfserve
from hfserve import artifacts
from hfserve.artifacts import Artifact, archive, load, resolve, save
from hfserve.errors import ArtifactError
from hfserve.settings import Settings
from hub import Hub

OURS = ("HF_", "HFSERVE_", "SAGEMAKER_", "MMS_", "PIP_", "TRANSFORMERS_")
TOKEN = "hf_secret"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def ask(tmp_path, run_dir):
    """Resolve with these settings, by default where SageMaker has put nothing."""

    def resolved(**flags):
        return resolve(Settings.read(**{"base_dir": tmp_path / "ml", **flags}), run_dir)

    return resolved


def a_directory(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def a_model(path, **more):
    return a_directory(path, {"config.json": "{}", "model.safetensors": b"w" * 2000, **more})


# Directories


def test_a_named_directory_is_served_where_it_lies(ask, tmp_path):
    model = a_model(tmp_path / "model")
    assert ask(model=str(model)) == Artifact(model, str(model))


@pytest.mark.parametrize("where", ["model", "ml/model"])
def test_a_directory_that_needs_no_work_is_at_hand(ask, tmp_path, where):
    model = a_model(tmp_path / where, **{"code/inference.py": ""})
    flags = {"base_dir": tmp_path / "ml", "model": str(model) if where == "model" else None}
    assert artifacts.at_hand(Settings.read(**flags)) == ask(**flags) == Artifact(model, str(model), (), model / "code")


@pytest.mark.parametrize(
    "files",
    [{}, {"model.tar.gz": "x"}, {"config.json": "{}", "code/requirements.txt": "tqdm\n"}],
    ids=["empty", "an archive", "requirements"],
)
def test_what_needs_work_or_words_is_not_at_hand(tmp_path, files):
    (tmp_path / "model").mkdir()
    a_directory(tmp_path / "model", files)
    assert artifacts.at_hand(Settings.read(model=str(tmp_path / "model"))) is None
    assert artifacts.at_hand(Settings.read(model="org/name", base_dir=tmp_path)) is None


def test_a_relative_directory_is_found_from_here(ask, tmp_path, monkeypatch):
    a_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert ask(model="model").model_dir == tmp_path / "model"


def test_sagemakers_model_directory_is_served_when_nothing_is_named(ask, tmp_path):
    model = a_model(tmp_path / "ml/model", **{"code/inference.py": ""})
    assert ask() == Artifact(model, str(model), code_dir=model / "code")


def test_the_demo_is_served_when_there_is_nothing_else(ask, tmp_path):
    (tmp_path / "ml/model").mkdir(parents=True)
    assert ask().model_dir == Path(hfserve.__file__).parent / "demo"


@pytest.mark.parametrize("name", ["/no/such/model", "./model", "~/no-such-model", "model.tar.gz"])
def test_a_missing_path_is_not_asked_of_the_hub(ask, name):
    with pytest.raises(ArtifactError, match="there is no such directory or archive"):
        ask(model=name)


def test_an_empty_directory_is_refused(ask, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(ArtifactError, match="model is empty"):
        ask(model=str(tmp_path / "model"))


@pytest.mark.parametrize("name", ["s3://bucket/model", "a/b/c", "what is this", "org/na..me"])
def test_a_name_of_nothing_says_what_model_may_be(ask, name):
    with pytest.raises(ArtifactError, match=r"no directory, no archive .* and no Hub id like org/name"):
        ask(model=name)


def test_a_submit_directory_wins_where_it_exists(ask, tmp_path):
    model = a_model(tmp_path / "model", **{"code/inference.py": ""})
    (tmp_path / "hooks").mkdir()
    assert ask(model=str(model), submit_directory=str(tmp_path / "hooks")).code_dir == tmp_path / "hooks"
    assert ask(model=str(model), submit_directory="s3://bucket/code.tar.gz").code_dir == model / "code"


def test_sagemakers_code_serves_a_model_that_lies_elsewhere(ask, tmp_path):
    code = a_directory(tmp_path / "ml/model/code", {"inference.py": ""})
    assert ask(model=str(a_model(tmp_path / "model"))).code_dir == code


def test_an_artifact_is_saved_and_loaded(run_dir):
    artifact = Artifact(Path("/m"), "org/m@main", (Path("/r"),), Path("/m/code"))
    save(artifact, run_dir)
    assert load(run_dir) == artifact
    save(Artifact(Path("/m"), "/m"), run_dir)
    assert load(run_dir) == Artifact(Path("/m"), "/m")


# Archives


def an_archive(path, members, mode="w:gz"):
    """A tar of `members`: names with their content, or TarInfo objects."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def a_member(name, kind=tarfile.REGTYPE, link="", mode=0o644):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


CONTENT = [("./config.json", b"{}"), ("./code/inference.py", b"pass")]


@pytest.mark.parametrize("name,mode", [("m.tar.gz", "w:gz"), ("m.tgz", "w:gz"), ("m.tar", "w"), ("m.tar.gz", "w:xz")])
def test_an_archive_is_unpacked_under_the_run_directory(ask, tmp_path, run_dir, name, mode):
    path = an_archive(tmp_path / name, CONTENT, mode)
    assert ask(model=str(path)) == Artifact(run_dir / "model", str(path), code_dir=run_dir / "model/code")
    assert (run_dir / "model/code/inference.py").read_bytes() == b"pass"


def test_an_archive_alone_in_the_model_directory_is_unpacked(ask, tmp_path, run_dir):
    (tmp_path / "ml/model").mkdir(parents=True)
    an_archive(tmp_path / "ml/model/model.tar.gz", CONTENT)
    assert ask().model_dir == run_dir / "model"


def test_unpacking_again_leaves_nothing_of_before(ask, tmp_path, run_dir):
    ask(model=str(an_archive(tmp_path / "a.tar.gz", [("old", b"")])))
    ask(model=str(an_archive(tmp_path / "b.tar.gz", [("new", b"")])))
    assert [file.name for file in (run_dir / "model").iterdir()] == ["new"]


def test_a_packed_directory_is_served_from_inside(ask, tmp_path, run_dir, caplog):
    path = an_archive(tmp_path / "m.tar.gz", [("mydir/config.json", b"{}"), ("._mydir", b"")])
    assert ask(model=str(path)).model_dir == run_dir / "model/mydir"
    assert "holds the directory mydir instead of its content" in caplog.text


def test_a_run_directory_may_be_relative(tmp_path, run_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = an_archive(tmp_path / "m.tar.gz", CONTENT)
    assert resolve(Settings.read(model=str(path)), Path("run")).model_dir == run_dir / "model"


def test_an_archive_of_hooks_alone_keeps_its_code(ask, tmp_path, run_dir):
    path = an_archive(tmp_path / "m.tar.gz", [("code/inference.py", b""), ("code/config.json", b"{}")])
    assert ask(model=str(path)).code_dir == run_dir / "model/code"


@pytest.mark.parametrize(
    "member,fault",
    [
        (("/etc/passwd", b""), "'/etc/passwd' has an absolute path"),
        (("a/../../evil", b""), "'a/../../evil' leads out of the archive"),
        (a_member("link", tarfile.SYMTYPE, "/etc/passwd"), "'link' is a link"),
        (a_member("hard", tarfile.LNKTYPE, "config.json"), "'hard' is a link"),
        (a_member("pipe", tarfile.FIFOTYPE), "'pipe' is neither a file nor a directory"),
        (a_member("disk", tarfile.BLKTYPE), "'disk' is neither a file nor a directory"),
    ],
)
def test_a_harmful_member_refuses_the_archive(ask, tmp_path, member, fault):
    path = an_archive(tmp_path / "m.tar.gz", [*CONTENT, member])
    with pytest.raises(ArtifactError, match=fault):
        ask(model=str(path))
    assert not (tmp_path / "evil").exists()


def test_an_archive_larger_than_the_room_is_refused_before_it_is_written(ask, tmp_path, run_dir):
    bomb = a_member("bomb")
    bomb.size = 1 << 50
    (tmp_path / "m.tar.gz").write_bytes(gzip.compress(bomb.tobuf()))
    with pytest.raises(ArtifactError, match=r"unpacks to more than the [0-9]+ bytes there is room for"):
        ask(model=str(tmp_path / "m.tar.gz"))
    assert not list((run_dir / "model").iterdir())


def test_an_archive_of_too_many_members_is_refused(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    path = an_archive(tmp_path / "m.tar.gz", [(str(i), b"") for i in range(3)])
    with pytest.raises(ArtifactError, match="more than 2 members"):
        ask(model=str(path))


def test_unpacked_files_have_plain_permissions(ask, tmp_path, run_dir):
    ask(model=str(an_archive(tmp_path / "m.tar.gz", [a_member("tool", mode=0o6777)])))
    assert (run_dir / "model/tool").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("content", [b"", b"not a tar", gzip.compress(b"not a tar", mtime=0), b"\x1f\x8b not gzip"])
def test_what_is_no_archive_is_refused(ask, tmp_path, content):
    (tmp_path / "m.tar.gz").write_bytes(content)
    with pytest.raises(ArtifactError, match="is not a tar archive, or is damaged"):
        ask(model=str(tmp_path / "m.tar.gz"))


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_archive_is_refused(ask, tmp_path, damage):
    path = an_archive(tmp_path / "m.tar.gz", [("config.json", b"{}"), ("weights", os.urandom(100_000))])
    whole = bytearray(path.read_bytes())
    if damage == "cut":
        del whole[-5000:]
    else:
        whole[50_000] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ArtifactError, match="damaged"):
        ask(model=str(path))


# Requirements


def a_wheel(directory, name="handmade", version="1.0", requires=()):
    """A wheel of one module, made by hand."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    directory.mkdir(parents=True, exist_ok=True)
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            file.writestr(path, content)
    return wheel


@pytest.fixture
def required(ask, tmp_path):
    """Resolve a model whose requirements.txt is this, without a network."""

    def resolved(text, **flags):
        a_model(tmp_path / "model", **{"code/requirements.txt": text})
        return ask(model=str(tmp_path / "model"), **{"network_isolation": True, **flags})

    return resolved


@pytest.mark.parametrize("place", ["model/code", "model/code/wheels"])
def test_a_bundled_wheel_is_installed_in_a_directory_of_its_own(required, tmp_path, run_dir, place):
    a_wheel(tmp_path / place)
    assert required("handmade>=1\n").python_path == (run_dir / "requirements",)
    assert (run_dir / "requirements/handmade.py").is_file()
    assert importlib.util.find_spec("handmade") is None


def test_what_is_installed_already_is_not_installed_again(required, tmp_path, run_dir):
    a_wheel(tmp_path / "model/code", requires=["numpy>=2", "torch"])
    assert required("handmade\nnumpy\n").python_path
    installed = {file.name for file in (run_dir / "requirements").iterdir()}
    assert installed - {"__pycache__"} == {"handmade.py", "handmade-1.0.dist-info"}


def test_requirements_that_need_nothing_add_no_path(required, run_dir, caplog):
    caplog.set_level("INFO")
    assert required("numpy>=2\n").python_path == ()
    assert "needs nothing that is not installed" in caplog.text


@pytest.mark.parametrize("text", ["", "\n# torch\n\n"])
def test_empty_requirements_do_not_start_pip(required, run_dir, text):
    assert required(text).python_path == ()
    assert not (run_dir / "requirements.log").exists()


def test_requirements_are_left_alone_when_told_so(required):
    assert required("no-such-package\n", install_requirements=False).python_path == ()


def test_a_requirement_given_as_a_file_is_found_beside_the_requirements(required, tmp_path, run_dir):
    a_wheel(tmp_path / "model/code/here")
    required("./here/handmade-1.0-py3-none-any.whl\n", network_isolation=False)
    assert (run_dir / "requirements/handmade.py").is_file()


def test_a_requirement_that_is_nowhere_shows_pips_reason(required, run_dir, caplog):
    with pytest.raises(ArtifactError) as raised:
        required("no-such-package\n")
    assert "No matching distribution found for no-such-package" in str(raised.value)
    assert "HFSERVE_NETWORK_ISOLATION is set" in str(raised.value)
    assert "No matching distribution" in caplog.records[-1].output
    assert "No matching distribution" in (run_dir / "requirements.log").read_text()


def test_a_requirement_that_makes_no_sense_shows_pips_reason(required):
    with pytest.raises(ArtifactError, match="Invalid requirement: 'numpy>>2'"):
        required("numpy>>2\n")


@pytest.mark.parametrize("name", ["numpy", "tokenizers"])
def test_requirements_cannot_replace_what_the_server_runs_on(required, tmp_path, name):
    a_wheel(tmp_path / "model/code", name, "0.1")
    with pytest.raises(ArtifactError, match=rf"Cannot install {name}==0.1 .*; the server runs on {name}"):
        required(f"{name}==0.1\n")


# The Hub


@dataclass(frozen=True)
class Ended:
    status: int
    events: list[dict]
    run_dir: Path
    output: str

    @property
    def sentence(self):
        """The one line of level error."""
        (line,) = [event for event in self.events if event["level"] == "error"]
        return line["event"]

    def event(self, text):
        return next(event for event in self.events if event["event"].startswith(text))

    @property
    def names(self):
        model_dir = load(self.run_dir).model_dir
        return {str(path.relative_to(model_dir)) for path in model_dir.rglob("*") if path.is_file()}


@pytest.fixture
def start(tmp_path, run_dir):
    """Resolve in a process of its own, as the supervisor does; names in capitals are constants of its Hub room."""

    def started(environment, **flags):
        constants = {name: flags.pop(name) for name in list(flags) if name.isupper()}
        patched = "".join(f"hub.{name} = {value!r}; " for name, value in constants.items())
        patched = f"import sys, pathlib; from hfserve.artifacts import hub, main; {patched}"
        patched += "sys.exit(main(pathlib.Path(sys.argv[1])))"
        command = ["-c", patched] if constants else ["-m", "hfserve.artifacts"]
        Settings.read(**{"base_dir": tmp_path / "ml", **flags}).save(run_dir)
        done = subprocess.run(
            [sys.executable, *command, str(run_dir)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert TOKEN not in done.stdout + done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        return Ended(done.returncode, events, run_dir, done.stdout + done.stderr)

    return started


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def test_a_hub_model_is_downloaded_into_the_cache(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        ended = start(hub.environment(home), model="org/m")
        assert ended.status == 0, ended.output
        found = load(ended.run_dir)
        assert found == Artifact(found.model_dir, "org/m@main")
        assert found.model_dir == home / "hub/models--org--m/snapshots" / hub.commit("org/m")
    assert (found.model_dir / "model.safetensors").read_bytes() == b"w" * 2000
    assert ended.event("downloading")["event"] == "downloading org/m@main"
    assert (ended.event("downloading")["bytes"], ended.event("downloading")["files"]) == (2002, 2)
    assert ended.event("downloaded org/m@main")["seconds"] >= 0
    assert [line for line in ended.output.splitlines() if not line.startswith("{")] == []


def test_what_the_cache_holds_is_not_downloaded_again(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        start(hub.environment(home), model="org/m")
        before = hub.downloads()
        ended = start(hub.environment(home), model="org/m")
        assert hub.downloads() == before
    assert ended.event("found org/m@main in the cache")


def test_a_revision_and_a_token_reach_the_hub(start, tmp_path, home):
    repos = {"org/m": a_model(tmp_path / "a"), "org/m@v2": a_model(tmp_path / "b", **{"new.txt": "2"})}
    with Hub(repos, token=TOKEN) as hub:
        ended = start({**hub.environment(home), "HF_TOKEN": f"{TOKEN}\n"}, model="org/m", revision="v2")
        assert ended.status == 0, ended.output
        asked = [asked.headers for asked in hub.asked if "org/m" in asked.path]
        assert all(headers["authorization"] == f"Bearer {TOKEN}" for headers in asked)
        assert any("hfserve" in headers["user-agent"] for headers in asked)
    assert load(ended.run_dir).origin == "org/m@v2"
    assert "new.txt" in ended.names


def test_safetensors_are_preferred_and_other_frameworks_left_out(start, tmp_path, home):
    left_out = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "onnx/model.onnx", "m.gguf"]
    left_out += ["onnx/config.json", "openvino/openvino_model.bin", "consolidated.safetensors", "2_Dense/a.pt"]
    kept = {"README.md": "about", "tokenizer.json": "[]", "1_Pooling/config.json": "1"}
    repo = a_model(tmp_path / "repo", **kept, **dict.fromkeys(left_out, "x"))
    with Hub({"org/m": repo}) as hub:
        ended = start(hub.environment(home), model="org/m")
        assert sorted(hub.downloads()) == sorted(["config.json", "model.safetensors", *kept])
    assert ended.names == {"config.json", "model.safetensors", *kept}


def test_a_model_of_pickles_alone_is_refused_unless_allowed(start, tmp_path, home):
    files = {"config.json": "{}", "pytorch_model.bin": "x", "optimizer.pt": "x"}
    with Hub({"org/m": a_directory(tmp_path / "repo", files)}) as hub:
        refused = start(hub.environment(home), model="org/m")
        assert refused.status == 3
        assert "only pickled weights (pytorch_model.bin)" in refused.sentence
        assert "set HFSERVE_ALLOW_PICKLE=1" in refused.sentence
        assert hub.downloads() == []
        ended = start(hub.environment(home), model="org/m", allow_pickle=True)
    assert ended.names == {"config.json", "pytorch_model.bin"}


def test_a_model_without_weights_of_pytorch_comes_whole(start, tmp_path, home):
    with Hub({"org/m": a_directory(tmp_path / "repo", {"m.gguf": "x", "onnx/m.onnx": "x"})}) as hub:
        assert start(hub.environment(home), model="org/m").names == {"m.gguf", "onnx/m.onnx"}


def test_a_download_goes_on_where_the_connection_was_cut(start, tmp_path, home):
    weights = os.urandom(12 << 20)
    with Hub({"org/m": a_model(tmp_path / "repo", **{"model.safetensors": weights})}) as hub:
        hub.cut_once("model.safetensors", after=11 << 20)
        ended = start(hub.environment(home), model="org/m")
        assert ended.status == 0, ended.output
        assert hub.downloads().count("model.safetensors") == 2
        assert any("range" in asked.headers for asked in hub.asked)
    arrived = (load(ended.run_dir).model_dir / "model.safetensors").read_bytes()
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(weights).digest()


def test_a_long_download_tells_how_far_it_is(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo", **{"model.safetensors": bytes(25 << 20)})}) as hub:
        hub.slow(0.02)
        ended = start(hub.environment(home), model="org/m", PROGRESS_S=0.05)
    steps = [event for event in ended.events if event["event"].endswith("%")]
    assert any(0 < step["bytes"] < step["total"] for step in steps)
    assert [step["bytes"] for step in steps] == sorted(step["bytes"] for step in steps)


def test_a_hub_that_is_busy_is_asked_again(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        hub.refuse(503)
        ended = start(hub.environment(home), model="org/m")
    assert ended.status == 0, ended.output
    assert "answered 503" in ended.event("asking again")["event"]


def test_offline_the_cache_serves_and_the_hub_is_not_asked(start, tmp_path, home):
    repo = a_model(tmp_path / "repo", **{"pytorch_model.bin": "x"})
    with Hub({"org/m": repo, "org/other": repo}) as hub:
        start(hub.environment(home), model="org/m")
        before = len(hub.asked)
        assert start(hub.environment(home), model="org/m", hub_offline=True).status == 0
        offline = start(hub.environment(home), model="org/other", hub_offline=True)
        isolated = start(hub.environment(home), model="org/other", network_isolation=True)
        assert len(hub.asked) == before
    assert offline.status == isolated.status == 3
    assert "the Hub is not asked for org/other@main because HF_HUB_OFFLINE is set" in offline.sentence
    assert "because HFSERVE_NETWORK_ISOLATION is set" in isolated.sentence


def test_offline_a_snapshot_that_is_not_whole_is_refused(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        (load(start(hub.environment(home), model="org/m").run_dir).model_dir / "model.safetensors").unlink()
        ended = start(hub.environment(home), model="org/m", hub_offline=True)
    assert "does not hold it" in ended.sentence


def test_the_cache_serves_while_the_hub_is_away(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        start(hub.environment(home), model="org/m")
        environment = hub.environment(home)
    ended = start(environment, model="org/m", WAITS_S=())
    assert ended.status == 0, ended.output
    assert "cannot reach" in ended.event("found org/m@main in the cache")["event"]


def test_a_hub_that_is_not_there_is_named(start, home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ended = start({"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}, model="org/m", WAITS_S=(0.01,))
    assert ended.status == 3
    assert ended.sentence.startswith(f"cannot reach {endpoint} for org/m@main (")


@pytest.mark.parametrize("token,said", [("", "that can be read without HF_TOKEN"), (TOKEN, "that HF_TOKEN may read")])
def test_a_model_that_does_not_exist_says_so(start, tmp_path, home, token, said):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        ended = start({**hub.environment(home), "HF_TOKEN": token}, model="org/nothing")
        assert ended.sentence == f"there is no directory org/nothing, and {hub.url} has no model of that name {said}"
    assert ended.status == 3
    assert not (ended.run_dir / "artifact.json").exists()


def test_a_private_model_asks_for_a_token(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}, token=TOKEN) as hub:
        assert "without HF_TOKEN" in start(hub.environment(home), model="org/m").sentence


@pytest.mark.parametrize("token", ["", "hf_of_someone_else"])
def test_a_gated_model_says_where_to_ask(start, tmp_path, home, token):
    with Hub({"org/m": a_model(tmp_path / "repo")}, token=TOKEN, gated=("org/m",)) as hub:
        ended = start({**hub.environment(home), "HF_TOKEN": token}, model="org/m")
        assert ended.sentence == f"org/m is gated: ask for access at {hub.url}/org/m and set HF_TOKEN"
    assert token == "" or token not in ended.output


def test_a_revision_that_does_not_exist_says_so(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        ended = start(hub.environment(home), model="org/m", revision="v9")
    assert ended.sentence == "org/m has no revision v9: HF_MODEL_REVISION takes a branch, a tag or a commit"


def test_any_other_answer_is_passed_on(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        hub.refuse(403)
        assert start(hub.environment(home), model="org/m").sentence == f"{hub.url} answered 403 for org/m@main: not now"


def test_an_endpoint_that_is_no_hub_is_named(start, home):
    with Hub({}) as hub:
        environment = {**hub.environment(home), "HF_ENDPOINT": f"{hub.url}/elsewhere"}
        assert start(environment, model="org/m").sentence.startswith(f"{hub.url}/elsewhere answered 404 for org/m@main")


def test_a_token_that_cannot_be_one_is_not_sent(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        ended = start({**hub.environment(home), "HF_TOKEN": f"{TOKEN} x"}, model="org/m")
        assert hub.asked == []
    assert ended.sentence.startswith("HF_TOKEN holds characters that no token has")


def test_a_model_larger_than_the_disk_is_not_begun(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        ended = start(hub.environment(home), model="org/m", SPARE_BYTES=1 << 60)
        assert hub.downloads() == []
    assert ended.sentence.startswith(f"org/m@main needs 0.0 GB and {home / 'hub'} has ")


def test_a_cache_that_cannot_be_written_gives_way_to_the_run_directory(start, tmp_path, home):
    home.mkdir()
    (home / "hub").write_text("in the way")
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        ended = start(hub.environment(home), model="org/m")
    assert ended.status == 0, ended.output
    assert load(ended.run_dir).model_dir.is_relative_to(ended.run_dir / "hub")


def test_hooks_without_weights_serve_a_hub_model(start, tmp_path, home):
    code = a_directory(tmp_path / "ml/model/code", {"inference.py": ""})
    with Hub({"org/m": a_model(tmp_path / "repo")}) as hub:
        ended = start(hub.environment(home), model="org/m")
    assert load(ended.run_dir).code_dir == code
    assert load(ended.run_dir).origin == "org/m@main"


def test_code_that_a_hub_model_brings_is_used_only_when_trusted(start, tmp_path, home):
    with Hub({"org/m": a_model(tmp_path / "repo", **{"code/inference.py": ""})}) as hub:
        ended = start(hub.environment(home), model="org/m")
        assert load(ended.run_dir).code_dir is None
        assert "HF_TRUST_REMOTE_CODE" in ended.event("the code/ that this Hub model brings is not used")["event"]
        ended = start(hub.environment(home), model="org/m", trust_remote_code=True)
    assert load(ended.run_dir).code_dir == load(ended.run_dir).model_dir / "code"


def test_the_supervisor_need_not_import_the_hub_library():
    code = "import sys, hfserve.artifacts; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert artifacts.FILE == "artifact.json"
