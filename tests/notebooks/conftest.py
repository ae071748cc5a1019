"""Runs notebooks in a virtual environment of their own, against a local SageMaker with hfserve and small models."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import boto3
import pytest
from tests.clients.conftest import client_python, local_sagemaker  # noqa: F401
from tests.notebooks import models

ROOT = Path(__file__).parents[2]
PATIENCE = 900


def pytest_addoption(parser):
    parser.addoption("--render", action="store_true", help="write what the notebooks show into docs/notebooks")


def notebook_python():
    """The Python of the AWS SDKs' virtual environment, with Jupyter in a second one on top of it."""
    sdk = client_python("sagemaker2").parents[1]
    pins = ROOT / "requirements-notebooks.txt"
    folder = sdk.with_name(pins.stem)
    python, stamp = folder / "bin/python", folder / "pins"
    wanted = f"{sys.version}\n{pins.read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(folder, clear=True, symlinks=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "sdk.pth").write_text(f"{sdk / packages.relative_to(folder)}\n")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--no-compile", "-r", str(pins)], check=True)
        stamp.write_text(wanted)
    return python


class Desk:
    """A directory with small models in it, and the environment that stands for an account."""

    def __init__(self, folder, exported):
        self.folder, self.python = folder, notebook_python()
        self.pages = folder / "pages"
        self.pages.mkdir()
        for name in models.NAMES:
            models.build(name, folder / "models" / name)
        shutil.copytree(ROOT / "container/hfserve/demo", folder / "models/sentiment")
        self._environment = exported | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder), "MODEL_HOME": str(folder / "models"), "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "SAGEMAKER_SUPPRESS_V2_WARNING": "1", "HFSERVE_IMAGE": "hfserve",
            "BENCH_SECONDS": "1",
        }  # fmt: skip
        self._session = boto3.Session(
            exported["AWS_ACCESS_KEY_ID"], exported["AWS_SECRET_ACCESS_KEY"], region_name=exported["AWS_REGION"]
        )
        self._address = exported["AWS_ENDPOINT_URL"]

    def run(self, *argv, **environment):
        """Run the notebooks' Python in this directory."""
        return subprocess.run(
            [self.python, *argv], cwd=self.folder, env=self._environment | environment, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
        )  # fmt: skip

    def page(self, notebook, **environment):
        """What a notebook shows when it is run, as Markdown."""
        ran = self.run(Path(__file__).with_name("execute.py"), notebook, self.pages, **environment)
        assert ran.returncode == 0, ran.stdout[-4000:]
        return (self.pages / f"{notebook.stem}.md").read_text()

    def left(self):
        """What is there that costs money."""
        sagemaker, scaling, s3 = (
            self._session.client(name, endpoint_url=self._address)
            for name in ("sagemaker", "application-autoscaling", "s3")
        )
        buckets = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        return [
            *sagemaker.list_endpoints()["Endpoints"],
            *sagemaker.list_endpoint_configs()["EndpointConfigs"],
            *sagemaker.list_models()["Models"],
            *scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"],
            *(each for bucket in buckets for each in s3.list_objects_v2(Bucket=bucket).get("Contents", [])),
        ]


@pytest.fixture(scope="session")
def desk(tmp_path_factory, local_sagemaker):  # noqa: F811
    """Where the notebooks are run."""
    return Desk(tmp_path_factory.mktemp("notebooks"), local_sagemaker)
