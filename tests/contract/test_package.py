"""`hfserve package` as a user types it, and the server that is given its archive."""

import os
import shutil
import subprocess

import pytest

from hfserve.artifacts import DEMO
from server import CLEAN, HFSERVE, Server


def run(*argv, **more):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
    environment = {**clean, "HF_HUB_OFFLINE": "1", **more}
    argv = [HFSERVE, "package", *map(str, argv)]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)


def test_a_packed_model_is_served_with_its_hooks(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "inference.py").write_text("def output_fn(prediction, accept):\n    return 'mine', 'text/plain'\n")
    done = run(DEMO, "-o", tmp_path / "my model.tar.gz", "--hooks", code)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.split()[0] in {"archive", "next"})
    assert "6 files" in told["archive"] and "MB" in told["archive"]
    assert told["next"] == f"aws s3 cp '{tmp_path}/my model.tar.gz' s3://BUCKET/'my model.tar.gz'"
    assert "loaded and answered" in done.stdout and "output_fn in code/inference.py" in done.stdout
    with Server(tmp_path / "my model.tar.gz") as server:
        assert server.post(json={"inputs": "I love this"}).text == "mine"


def test_a_task_that_had_to_be_named_is_told_for_the_endpoint(tmp_path):
    done = run(DEMO, "-o", tmp_path / "m.tar.gz", "--task", "text-classification", "--no-example")
    assert done.returncode == 0, done.stderr
    assert "HF_TASK=text-classification" in done.stdout and "loaded and answered" not in done.stdout


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["nowhere/at/all/x", "-o", "OUT"], 3, "nowhere/at/all/x"),
        (["./no-such-directory", "-o", "OUT"], 3, "no such directory"),
        ([DEMO, "-o", "OUT/missing/m.tar.gz"], 3, "no directory"),
        ([DEMO, "-o", "OUT", "--hooks", "/nowhere"], 3, "should hold inference.py"),
        ([DEMO, "-o", "OUT", "--task", "sing"], 3, "there is no such task"),
        ([], 2, "usage: hfserve package"),
        ([DEMO, "--nope"], 2, "usage: hfserve"),
    ],
)
def test_what_cannot_be_packed_is_a_sentence_and_a_status(tmp_path, argv, status, words):
    out = str(tmp_path / "m.tar.gz")
    done = run(*(str(each).replace("OUT", out) for each in argv))
    assert done.returncode == status, done.stdout + done.stderr
    assert words in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_told_as_check_tells_them(tmp_path):
    model = shutil.copytree(DEMO, tmp_path / "demo")
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text("def predict_fn(): pass\n")
    done = run(model, "-o", tmp_path / "m.tar.gz")
    assert done.returncode == 3
    assert "predict_fn()" in done.stdout and "1 mistake: this would not start" in done.stdout
    assert str(tmp_path / "demo") in done.stdout and ".hfserve-package" not in done.stdout
