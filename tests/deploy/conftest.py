import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber

from hfserve import package
from hfserve.artifacts import DEMO
from server import HFSERVE

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "deploy" / "sagemaker"
BUCKET = "sagemaker-us-east-1-111122223333"
IMAGE = "111122223333.dkr.ecr.us-east-1.amazonaws.com/hfserve:1"
ROLE = "arn:aws:iam::111122223333:role/hfserve"
COMMAND = f"env HFSERVE_ENGINE=asgi HFSERVE_NGINX=0 PYTHONPATH={ROOT / 'container'} {HFSERVE} serve"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The variables of a local SageMaker that starts this server for its image."""
    directory = tmp_path_factory.mktemp("local")
    command = [sys.executable, "-m", "local_test"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SAGEMAKER_", "HFSERVE_"))}
    up = [*command, "up", "--dir", str(directory), "--image", f"*hfserve*={COMMAND}"]
    try:
        told = subprocess.run(up, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60)
        words = [word for line in told.stdout.splitlines() for word in line.removeprefix("export ").split()]
        yield dict(word.split("=", 1) for word in words)
    finally:
        subprocess.run([*command, "down", "--dir", str(directory)], cwd=ROOT, env=environment, check=True, timeout=120)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The demo model as `hfserve package` packs it."""
    path = tmp_path_factory.mktemp("packed") / "model.tar.gz"
    assert package.run(str(DEMO), path, None, None, try_example=False) == 0
    return path


@pytest.fixture
def aws(local, monkeypatch, request):
    """Clients of the local SageMaker, and a CloudWatch that checks and keeps what it is told."""
    for name, value in local.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in [name for name in sys.modules if (SCRIPTS / f"{name}.py").is_file()]:
        monkeypatch.delitem(sys.modules, name)
    import common

    monkeypatch.setattr(common, "PAUSE_S", 0.1)
    made = boto3.client
    watch = made("cloudwatch")
    stub = Stubber(watch)
    monkeypatch.setattr(boto3, "client", lambda service: watch if service == "cloudwatch" else made(service))
    with stub:
        yield stub


@pytest.fixture
def model(aws, archive):
    """What every script is told of the model."""
    boto3.client("s3").put_object(Bucket=BUCKET, Key="model.tar.gz", Body=archive.read_bytes())
    return ["--image", IMAGE, "--role", ROLE, "--model-data", f"s3://{BUCKET}/model.tar.gz"]
