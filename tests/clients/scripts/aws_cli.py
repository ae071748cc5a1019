"""Version 1 of the AWS CLI, as a shell uses it against AWS."""

import json
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from checks import IMAGE, MODELS, NEGATIVE, POSITIVE, ROLE, call, labels, say

AWS = str(Path(sys.executable).with_name("aws"))
BUCKET = f"cli-{uuid.uuid4().hex[:8]}"
NAME = "cli"


def aws(*words, status=0):
    """The JSON that a command prints, or its text, or what it complains of."""
    done = subprocess.run([AWS, *words, "--output", "json"], capture_output=True, text=True, check=False)
    assert done.returncode == status, (words, done.returncode, done.stderr)
    if status:
        return done.stderr
    return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout


version = subprocess.run([AWS, "--version"], capture_output=True, text=True, check=True).stdout
say(client="AWS CLI, version 1", version=version.split()[0].partition("/")[2])

folder = Path(tempfile.mkdtemp())
(folder / "body.json").write_text(json.dumps(POSITIVE))
(folder / "answer").touch()

with call("aws s3 mb, cp, ls"):
    aws("s3", "mb", f"s3://{BUCKET}")
    aws("s3", "cp", str(MODELS / "classifier.tar.gz"), f"s3://{BUCKET}/models/")
    assert "classifier.tar.gz" in aws("s3", "ls", f"s3://{BUCKET}/models/")

with call("aws sagemaker create-model, create-endpoint-config, create-endpoint, wait endpoint-in-service"):
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/models/classifier.tar.gz"}
    aws(
        "sagemaker", "create-model", "--model-name", NAME, "--execution-role-arn", ROLE,
        "--primary-container", json.dumps(container),
    )  # fmt: skip
    variant = f"VariantName=AllTraffic,ModelName={NAME},InitialInstanceCount=1,InstanceType=ml.m5.large"
    aws(
        "sagemaker", "create-endpoint-config", "--endpoint-config-name", NAME, "--production-variants", variant,
    )  # fmt: skip
    aws("sagemaker", "create-endpoint", "--endpoint-name", NAME, "--endpoint-config-name", NAME)
    aws("sagemaker", "wait", "endpoint-in-service", "--endpoint-name", NAME)

with call("aws sagemaker list-endpoints, describe-endpoint"):
    assert NAME in [one["EndpointName"] for one in aws("sagemaker", "list-endpoints")["Endpoints"]]
    assert aws("sagemaker", "describe-endpoint", "--endpoint-name", NAME)["EndpointStatus"] == "InService"

INVOKE = ("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", NAME, "--content-type", "application/json")

with call("aws sagemaker-runtime invoke-endpoint"):
    told = aws(*INVOKE, "--body", f"fileb://{folder}/body.json", str(folder / "answer"))
    assert told["InvokedProductionVariant"] == "AllTraffic"
    assert labels((folder / "answer").read_bytes()) == ["POSITIVE"]
    aws(*INVOKE, "--body", json.dumps(NEGATIVE), str(folder / "answer"))
    assert labels((folder / "answer").read_bytes()) == ["NEGATIVE"]

with call("aws sagemaker-runtime invoke-endpoint: ModelError"):
    complaint = aws(*INVOKE, "--body", '{"inputs": 3}', str(folder / "answer"), status=255)
    assert "(ModelError)" in complaint and "422" in complaint, complaint

with call(
    "aws sagemaker-runtime invoke-endpoint-with-response-stream",
    broken="not in version 1, which has no commands whose answer is an event stream",
    shown="Invalid choice",
):
    aws(
        "sagemaker-runtime", "invoke-endpoint-with-response-stream", "--endpoint-name", NAME, "--body", "{}", "out",
    )  # fmt: skip

with call("aws application-autoscaling register-scalable-target, describe-scalable-targets"):
    variant = f"endpoint/{NAME}/variant/AllTraffic"
    aws(
        "application-autoscaling", "register-scalable-target", "--service-namespace", "sagemaker",
        "--resource-id", variant, "--scalable-dimension", "sagemaker:variant:DesiredInstanceCount",
        "--min-capacity", "1", "--max-capacity", "2",
    )  # fmt: skip
    told = aws(
        "application-autoscaling", "describe-scalable-targets", "--service-namespace", "sagemaker",
        "--resource-ids", variant,
    )  # fmt: skip
    assert told["ScalableTargets"][0]["MaxCapacity"] == 2

with call("aws logs filter-log-events"):
    told = aws("logs", "filter-log-events", "--log-group-name", f"/aws/sagemaker/Endpoints/{NAME}")
    assert any('"event": "ready"' in event["message"] for event in told["events"])

with call("aws sagemaker delete-endpoint, delete-endpoint-config, delete-model"):
    for kind in ("endpoint", "endpoint-config", "model"):
        aws("sagemaker", f"delete-{kind}", f"--{kind}-name", NAME)
    complaint = aws("sagemaker", "describe-model", "--model-name", NAME, status=255)
    assert "(ValidationException)" in complaint, complaint
