import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

ROOT = Path(__file__).parents[2]
CONTAINER = Path(__file__).with_name("container.py")
BUCKET = "sagemaker-us-east-1-111122223333"
ROLE = "arn:aws:iam::111122223333:role/local"
CLEAN = ("AWS_", "HF_", "HFSERVE_", "SAGEMAKER_", "LOCAL_TEST_")


def environment():
    return {**{k: v for k, v in os.environ.items() if not k.startswith(CLEAN)}, "HF_HUB_OFFLINE": "1"}


class Local:
    """A local SageMaker in a process of its own, and clients that know of it by the lines it prints alone."""

    def __init__(self, directory, *flags):
        self.directory = directory
        self._flags = ["--engine", "none", "--image", f"fake*={sys.executable} {CONTAINER}", *flags]
        self._numbers = itertools.count()
        self._clients = {}

    def run(self, *words, check=True):
        command = [sys.executable, "-m", "local_test", *words, "--dir", str(self.directory)]
        return subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=check
        )

    def up(self):
        lines = self.run("up", *self._flags).stdout.splitlines()
        words = (word for line in lines for word in line.removeprefix("export ").split())
        self.exported = dict(word.split("=", 1) for word in words)
        return lines

    def down(self):
        for client in self._clients.values():
            client.close()
        self.run("down")

    def client(self, service, **options):
        key = (service, *options)
        if key not in self._clients:
            session = boto3.Session(
                aws_access_key_id=self.exported["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self.exported["AWS_SECRET_ACCESS_KEY"],
                region_name=self.exported["AWS_REGION"],
            )
            self._clients[key] = session.client(
                service,
                endpoint_url=self.exported["AWS_ENDPOINT_URL"],
                config=Config(proxies={}, retries={"total_max_attempts": 1}, max_pool_connections=50, **options),
            )
        return self._clients[key]

    @property
    def sagemaker(self):
        return self.client("sagemaker")

    @property
    def runtime(self):
        return self.client("sagemaker-runtime", read_timeout=60)

    @property
    def s3(self):
        return self.client("s3")

    # What an endpoint needs

    def name(self, kind):
        return f"{kind}-{next(self._numbers)}"

    def archive(self, files):
        """Put a model.tar.gz of these files into the bucket."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, text in files.items():
                about = tarfile.TarInfo(name)
                about.size = len(text.encode())
                archive.addfile(about, io.BytesIO(text.encode()))
        return self.put(f"{self.name('model')}/model.tar.gz", packed.getvalue())

    def put(self, key, body):
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def model(self, **container):
        name = self.name("model")
        environment = {key: str(value) for key, value in container.pop("Environment", {}).items()}
        definition = {"Image": "fake:1", "Environment": environment, **container}
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=definition, ExecutionRoleArn=ROLE)
        return name

    def config(self, *variants, **others):
        name = self.name("config")
        described = [
            {"VariantName": "AllTraffic", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1, **variant}
            for variant in variants or [{"ModelName": self.model()}]
        ]
        sagemaker = self.client("sagemaker", parameter_validation=False)  # for time-outs below a minute
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=described, **others)
        return name

    def create(self, config=None):
        """Create an endpoint, and do not wait for it."""
        name = self.name("endpoint")
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config or self.config())
        return name

    def endpoint(self, config=None):
        name = self.create(config)
        assert self.settled(name)["EndpointStatus"] == "InService", self.log(name)
        return name

    def describe(self, name):
        return self.sagemaker.describe_endpoint(EndpointName=name)

    def settled(self, name):
        return self.until(
            lambda: (told := self.describe(name))["EndpointStatus"] not in ("Creating", "Updating") and told
        )

    def until(self, condition, patience=60):
        """Look again and again until the condition gives something."""
        end = time.monotonic() + patience
        while not (found := condition()):
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.02)
        return found

    def invoke(self, name, body=None, **options):
        """The answer with its body read, and parsed where it is JSON."""
        answer = self.runtime.invoke_endpoint(EndpointName=name, Body=json.dumps(body or {}), **options)
        content = answer["Body"].read()
        with contextlib.suppress(ValueError):
            content = json.loads(content)
        return {**answer, "Body": content}

    def log(self, name):
        return self.run("logs", name, check=False).stdout


@pytest.fixture
def local(tmp_path):
    """One of this test's own, not started."""
    made = []

    def make(*flags):
        local = Local(tmp_path / "local", *flags)
        made.append(local)
        local.up()
        return local

    yield make
    for one in made:
        one.down()


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """One for all tests that need none of their own."""
    local = Local(tmp_path_factory.mktemp("shared"))
    local.up()
    yield local
    local.down()
