"""Runs the scripts of AWS's clients, in virtual environments of their own, against a local SageMaker with hfserve."""

import base64
import json
import os
import shlex
import subprocess
import sys
import tarfile
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

import tiny
from hfserve.tasks.table import TASKS
from server import CLEAN

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REQUIREMENTS = {"sagemaker3": "requirements-clients-v3.txt"}
PATIENCE = 900


def pytest_addoption(parser):
    parser.addoption("--write-matrix", action="store_true", help="write what is found into docs/clients.md")


def client_python(client):
    """The Python of a virtual environment with a client's packages, which is made where its pins have changed."""
    pins = ROOT / REQUIREMENTS.get(client, "requirements-clients.txt")
    root = Path(os.environ.get("HFSERVE_CLIENTS_VENV") or HERE / ".venv")
    folder = root / pins.stem
    python, stamp = folder / "bin/python", folder / "pins"
    wanted = f"{sys.version}\n{pins.read_text()}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{pins.stem}.lock"):  # of two lanes one makes it
        if stamp.exists() and stamp.read_text() == wanted:
            return python
        venv.create(folder, clear=True, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--no-compile", "-r", str(pins)], check=True)
        stamp.write_text(wanted)
    return python


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Archives of tiny models, and a picture."""
    folder = tmp_path_factory.mktemp("models")
    sources = {
        "classifier": ROOT / "container/hfserve/demo",
        "writer": tiny.build("text-generation-gpt2", tmp_path_factory.mktemp("writer")),
        "seer": tiny.build("image-classification", tmp_path_factory.mktemp("seer")),
    }
    for name, source in sources.items():
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(source, arcname=".")
    (folder / "cat.png").write_bytes(base64.b64decode(TASKS["image-classification"].example["inputs"]))
    return folder


@pytest.fixture(scope="session")
def local_sagemaker(tmp_path_factory):
    """What `python -m local_test up` exports, while it is up."""
    folder = tmp_path_factory.mktemp("sagemaker")
    command = [sys.executable, "-m", "local_test"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith((*CLEAN, "AWS_"))}
    told = {"cwd": ROOT, "env": {**clean, "HF_HUB_OFFLINE": "1"}, "check": True, "text": True}
    up = subprocess.run([*command, "up", "--dir", folder], stdout=subprocess.PIPE, **told)
    try:
        words = shlex.split(up.stdout, comments=True)
        exported = dict(word.split("=", 1) for word in words if "=" in word)
        yield clean | exported
    finally:
        subprocess.run([*command, "down", "--dir", folder], **told)


@pytest.fixture(scope="session")
def outcomes(request, local_sagemaker, models, tmp_path_factory):
    """What came of each client that is tested, all of them at work at the same time."""
    ours = [item for item in request.session.items if item.path.parent == HERE]
    clients = list(dict.fromkeys(item.callspec.params["client"] for item in ours))
    pythons = {client: client_python(client) for client in clients}

    def outcome(client):
        home = tmp_path_factory.mktemp(client)
        results = home / "results"
        environment = local_sagemaker | {
            "HOME": str(home), "CLIENT_MODELS": str(models), "CLIENT_RESULTS": str(results),
        }  # fmt: skip
        script = HERE / "scripts" / f"{client}.py"
        ran = subprocess.run(
            [pythons[client], script], cwd=home, env=environment, text=True, check=False, timeout=PATIENCE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        assert ran.returncode == 0 and lines, f"{script.name} ended with {ran.returncode}:\n{ran.stdout[-3000:]}"
        return lines

    with ThreadPoolExecutor(len(clients)) as pool:
        return {client: pool.submit(outcome, client) for client in clients}
