"""What the scripts beside it share: their arguments, and how a model becomes an endpoint."""

import argparse
import re
import time
from typing import Any

import boto3

GPU = re.compile(r"ml\.(g|p)\d")
GPU_HOST = "al2-ami-sagemaker-inference-gpu-3-1"
"""The host image whose driver (550, CUDA 12.4) runs the project's image on every GPU, a T4 too."""

VARIANT = "AllTraffic"
ALARMS = ("5xx", "latency", "waiting")
"""The ends of their names; the beginning is the endpoint's."""

STARTUP_S = 600
DOWNLOAD_S = 1200


def parser(about: str | None) -> argparse.ArgumentParser:
    """A parser for a script about one endpoint."""
    made = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    made.add_argument("name", help="of the endpoint")
    return made


def add_model(arguments: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """The arguments that say what a model is."""
    arguments.add_argument("--image", required=needed, help="URI of the image in ECR")
    arguments.add_argument("--model-data", required=needed, help="s3://…/model.tar.gz, or a prefix that ends with /")
    arguments.add_argument("--role", required=needed, help="ARN of the execution role")
    arguments.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="e.g. HF_TASK=fill-mask")


def client(service: str) -> Any:
    """A client of boto3; its endpoint and region are those of the environment."""
    return boto3.client(service)


def stamped(name: str) -> str:
    """A name for the next of the models and configurations of an endpoint."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"


def container(given: argparse.Namespace, **environment: str) -> dict[str, Any]:
    """The definition of a container: the image, the model's files, the variables."""
    variables = {**environment, **dict(pair.split("=", 1) for pair in given.env)}
    return {"Image": given.image, "Environment": variables, **files(given.model_data)}


def files(place: str) -> dict[str, Any]:
    """Where a model's files are: an archive, or a prefix of uncompressed files."""
    if not place.endswith("/"):
        return {"ModelDataUrl": place}
    source = {"S3Uri": place, "S3DataType": "S3Prefix", "CompressionType": "None"}
    return {"ModelDataSource": {"S3DataSource": source}}


def create_model(name: str, role: str, definition: dict[str, Any]) -> str:
    """A model; its name."""
    client("sagemaker").create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer=definition)
    return name


def on_instances(model: str, instance_type: str, count: int) -> dict[str, Any]:
    """A production variant on instances of its own."""
    variant = {
        "VariantName": VARIANT, "ModelName": model, "InstanceType": instance_type, "InitialInstanceCount": count,
        "ModelDataDownloadTimeoutInSeconds": DOWNLOAD_S, "ContainerStartupHealthCheckTimeoutInSeconds": STARTUP_S,
    }  # fmt: skip
    return {**variant, "InferenceAmiVersion": GPU_HOST} if GPU.match(instance_type) else variant


def create_endpoint(endpoint: str, config: str, variant: dict[str, Any], **others: Any) -> None:
    """An endpoint that is there and answers."""
    sagemaker = client("sagemaker")
    sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=[variant], **others)
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    print(f"{endpoint}: being created with {config}", flush=True)
    settle(endpoint)


def settle(endpoint: str) -> dict[str, Any]:
    """Wait until nothing changes any more; ends the script when the endpoint has failed."""
    while (told := client("sagemaker").describe_endpoint(EndpointName=endpoint))["EndpointStatus"] not in {
        "InService", "Failed", "UpdateRollbackFailed",
    }:  # fmt: skip
        time.sleep(PAUSE_S)
    if told["EndpointStatus"] != "InService":
        raise SystemExit(f"{endpoint}: {told['EndpointStatus']}: {told.get('FailureReason', 'no reason is told')}")
    print(f"{endpoint}: InService", flush=True)
    return told


PAUSE_S = 5.0


def resource(endpoint: str) -> dict[str, str]:
    """What Application Auto Scaling calls the endpoint's instances."""
    return {
        "ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }  # fmt: skip


def alarm(name: str, endpoint: str, metric: str, **how: Any) -> str:
    """A CloudWatch alarm on a metric of the endpoint; its name."""
    dimensions = how.pop("Dimensions", {"EndpointName": endpoint, "VariantName": VARIANT})
    client("cloudwatch").put_metric_alarm(
        AlarmName=name, Namespace="AWS/SageMaker", MetricName=metric, TreatMissingData="notBreaching",
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        **{"Period": 60, "EvaluationPeriods": 1, **how},
    )  # fmt: skip
    return name
