"""The files that the image is made with, as far as no image is needed to try them."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hfserve import settings
from server import Server

ROOT = Path(__file__).parent.parent.parent
IMAGE = ROOT / "container" / "image"


def entry_point(*argv, **environment):
    return subprocess.run(
        [sys.executable, "-P", IMAGE / "entrypoint.py", *argv], capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_the_entry_point_becomes_any_other_command():
    """[1]"""
    assert entry_point("sh", "-c", "echo $0; exit 7", "seven").stdout == "seven\n"
    assert entry_point("sh", "-c", "exit 7").returncode == 7
    nothing = entry_point("no-such-program")
    assert (nothing.returncode, nothing.stderr) == (127, "no-such-program: No such file or directory\n")
    assert entry_point(str(IMAGE)).returncode == 126


def test_the_entry_point_serves():
    assert entry_point("serve", "--port", "70000").returncode == 3
    assert "usage: hfserve serve" in entry_point("serve", "--help").stdout


def test_the_entry_point_hears_sigterm_before_the_server_does(tmp_path):
    """A stand-in for hfserve says when it is imported: too early for a handler of the supervisor's."""
    package = tmp_path / "hfserve"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text("import signal\nprint('importing', flush=True)\nsignal.pause()\n")
    with subprocess.Popen(
        [sys.executable, "-P", IMAGE / "entrypoint.py", "serve"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_health_check_asks_where_the_server_listens():
    (asked,) = re.findall(r"PORT_VARIABLES = \((.+)\)", (IMAGE / "healthcheck.py").read_text())
    assert re.findall(r'"(\w+)"', asked) == settings.names(settings.Settings.model_fields["port"])
    with Server() as server:
        check = [sys.executable, "-I", IMAGE / "healthcheck.py"]
        port = {"SAGEMAKER_BIND_TO_PORT": server.url.rpartition(":")[2]}
        asked = subprocess.run(check, env=port, capture_output=True, text=True, timeout=30, check=False)
        assert (asked.returncode, asked.stdout.split()) == (0, ["200"])
    asked = subprocess.run(check, env=port, capture_output=True, text=True, timeout=30, check=False)
    assert (asked.returncode, "refused" in asked.stdout) == (1, True)


def test_the_image_has_the_versions_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in (ROOT / "Dockerfile").read_text()


def test_every_requirement_has_a_hash():
    pins = re.findall(
        r"^\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})?", (ROOT / "requirements.txt").read_text(), re.MULTILINE
    )
    assert len(pins) > 50
    assert all(pins)


AWS = """#!/bin/sh
echo "aws $*" >>"$CALLS"
case "$2 $*" in
  describe-repositories*) [ -e "$CALLS.made" ] && echo 123456789012.dkr.ecr.eu-west-1.amazonaws.com/hfserve ;;
  create-repository*) touch "$CALLS.made" ;;
  get-login-password*) echo secret ;;
  batch-get-image*) echo "$PUSHED" ;;
esac
"""

ENGINE = """#!/bin/sh
echo "engine $*" >>"$CALLS"
case $1 in
  image) echo 0.1.0 ;;
  login) [ "$(cat)" = secret ] ;;
esac
"""


@pytest.mark.parametrize(
    ("pushed", "status"),
    [
        ("application/vnd.docker.distribution.manifest.v2+json", 0),
        ("application/vnd.oci.image.index.v1+json", 1),
    ],
)
def test_an_image_is_pushed_to_ecr_and_looked_at(tmp_path, pushed, status):
    """[4] With stand-ins for AWS and the container engine."""
    for name, script in (("aws", AWS), ("engine", ENGINE)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    done = subprocess.run(
        ["sh", ROOT / "deploy" / "sagemaker" / "push_ecr.sh", "hfserve:ci"], capture_output=True, text=True, timeout=30,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "ENGINE": "engine", "CALLS": str(calls), "PUSHED": pushed},
        check=False,
    )  # fmt: skip
    address = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/hfserve:0.1.0"
    assert (done.returncode, done.stdout) == (status, "" if status else f"{address}\n")
    did = calls.read_text().splitlines()
    assert f"engine push {address}" in did
    assert "engine login --username AWS --password-stdin 123456789012.dkr.ecr.eu-west-1.amazonaws.com" in did
    assert any(call.startswith("aws ecr create-repository --repository-name hfserve") for call in did)


def test_both_variants_have_the_same_torch():
    pinned = [
        re.search(r"^torch==[\d.]+", file.read_text(), re.MULTILINE)[0]
        for file in (ROOT / "requirements-torch.txt", IMAGE / "torch-cpu.txt")
    ]
    assert len(set(pinned)) == 1
