"""Real containers, by an engine that lies outside this machine: what it is told, and that it is told to end."""

import itertools
import json
import os
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

CONTAINER = Path(__file__).with_name("container.py")
ENGINE = f"""#!{sys.executable}
import json, os, pathlib, sys
words = sys.argv[1:]
with open({{log!r}}, "a") as log:
    print(json.dumps(words), file=log)
if words[:2] == ["image", "inspect"]:
    sys.exit(words[2] != "there:1")
values = {{{{}}}}
for option, value in zip(words, words[1:]):
    values.setdefault(option, []).append(value)
port = values["-p"][0].split(":")[1]
base = values["-v"][0].split(":")[0]
variables = dict(word.split("=", 1) for word in values["-e"])
os.execve({sys.executable!r}, [{sys.executable!r}, {str(CONTAINER)!r}], {{{{
    **variables, "SAGEMAKER_BIND_TO_PORT": port, "SAGEMAKER_BASE_DIR": base}}}})
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """What docker is told."""
    log = tmp_path / "told"
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text(ENGINE.format(log=str(log)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def test_an_image_is_run_as_sagemaker_runs_it(local, engine):
    own = local("--engine", "docker")
    model = own.model(
        Image="there:1", ModelDataUrl=own.archive({"config.json": "{}"}),
        Environment={"HF_TASK": "fill-mask", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"},
    )  # fmt: skip
    name = own.endpoint(own.config({"ModelName": model}))
    pid = own.invoke(name)["Body"]["pid"]
    run = engine()[-1]
    assert run[0] == "run" and run[-2:] == ["there:1", "serve"]
    options = list(itertools.pairwise(run))
    variables = [value for option, value in options if option == "-e"]
    assert {"HF_TASK=fill-mask", "SAGEMAKER_SUBMIT_DIRECTORY=/opt/ml/model/code"} <= set(variables)
    assert not [variable for variable in variables if variable.startswith(("PATH=", "AWS_ENDPOINT_URL="))]
    (published,) = [value for option, value in options if option == "-p"]
    assert published.startswith("127.0.0.1:") and published.endswith(":8080")
    base, model_dir = (value for option, value in options if option == "-v")
    assert base.endswith(":/opt/ml") and model_dir.endswith(":/opt/ml/model:ro")
    own.sagemaker.delete_endpoint(EndpointName=name)
    own.until(lambda: not Path(f"/proc/{pid}").exists())


def test_an_image_that_the_engine_does_not_have_is_refused(local, engine):
    own = local("--engine", "docker")
    with pytest.raises(ClientError, match="Requested image missing:1 not found"):
        own.model(Image="missing:1")
    assert engine()[-1] == ["image", "inspect", "missing:1"]
