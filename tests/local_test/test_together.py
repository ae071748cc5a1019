"""Batch transform, multi-model endpoints and auto scaling through boto3, and hfserve itself behind it all."""

import contextlib
import io
import json
import tarfile

import httpx
import pytest
from botocore.exceptions import ClientError

import tiny

BUCKET = "sagemaker-us-east-1-111122223333"


def transform(shared, model, source, **others):
    name = shared.name("job")
    job = {
        "TransformJobName": name, "ModelName": model,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}},
            "ContentType": "application/json", "SplitType": "Line",
        },
        "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/{name}", "AssembleWith": "Line"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }  # fmt: skip
    shared.sagemaker.create_transform_job(**{**job, **others})
    return name


def finished(shared, name):
    def told():
        job = shared.sagemaker.describe_transform_job(TransformJobName=name)
        return job["TransformJobStatus"] in ("Completed", "Failed", "Stopped") and job

    return shared.until(told, patience=150)


def test_a_transform_job_splits_asks_and_joins(shared):
    source = shared.put("lines/in.jsonl", b'{"a": 1}\n{"a": 22}\n')
    name = transform(shared, shared.model(), source, BatchStrategy="SingleRecord", Environment={"MINE": "1"})
    job = finished(shared, name)
    assert job["TransformJobStatus"] == "Completed", shared.log(name)
    assert job["TransformStartTime"] <= job["TransformEndTime"]
    out = shared.s3.get_object(Bucket=BUCKET, Key=f"{name}/in.jsonl.out")["Body"].read().decode()
    seen = [json.loads(line) for line in out.splitlines()]
    assert [one["bytes"] for one in seen] == [8, 9]
    variables = seen[0]["environment"]
    assert (variables["SAGEMAKER_BATCH"], variables["MINE"]) == ("true", "1")
    assert name in [one["TransformJobName"] for one in shared.sagemaker.list_transform_jobs()["TransformJobSummaries"]]
    with pytest.raises(ClientError) as error:
        transform(shared, shared.model(), source, TransformJobName=name)
    assert error.value.response["Error"]["Code"] == "ResourceInUse"


def test_a_transform_job_fails_with_a_reason_or_is_stopped(shared, tmp_path):
    crash = tmp_path / "crash"
    crash.touch()
    source = shared.put("lines/some.jsonl", b"{}\n")
    job = finished(shared, transform(shared, shared.model(Environment={"CRASH": crash}), source))
    assert job["TransformJobStatus"] == "Failed"
    assert "did not pass the ping health check" in job["FailureReason"]
    name = transform(shared, shared.model(Environment={"READY_WHEN": tmp_path / "never"}), source)
    shared.sagemaker.stop_transform_job(TransformJobName=name)
    assert finished(shared, name)["TransformJobStatus"] == "Stopped"


def test_a_multi_model_endpoint_loads_what_is_asked_for(shared):
    shared.archive({"config.json": "unused"})
    for model in ("first", "second"):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            about = tarfile.TarInfo("config.json")
            about.size = len(model)
            archive.addfile(about, io.BytesIO(model.encode()))
        shared.put(f"many/{model}.tar.gz", packed.getvalue())
    model = shared.model(Mode="MultiModel", ModelDataUrl=f"s3://{BUCKET}/many/")
    name = shared.endpoint(shared.config({"ModelName": model}))
    answer = shared.invoke(name, TargetModel="first.tar.gz")["Body"]
    assert answer["path"].startswith("/models/") and answer["path"].endswith("/invoke")
    assert answer["headers"]["x-amzn-sagemaker-target-model"] == "first.tar.gz"
    assert answer["environment"]["SAGEMAKER_MULTI_MODEL"] == "true"
    assert shared.invoke(name, TargetModel="second.tar.gz")["Body"]["path"] != answer["path"]
    shared.invoke(name, TargetModel="first.tar.gz")
    assert [shared.log(name).count(f": {model}") for model in ("first", "second")] == [1, 1]
    with pytest.raises(ClientError, match="requires a target model header"):
        shared.invoke(name)
    with pytest.raises(ClientError, match="ensure that there is an object") as error:
        shared.invoke(name, TargetModel="third.tar.gz")
    assert error.value.response["Error"]["Code"] == "ValidationError"


def test_auto_scaling_keeps_an_endpoint_between_its_bounds(shared):
    name = shared.endpoint()
    scaling = shared.client("application-autoscaling")
    target = {
        "ServiceNamespace": "sagemaker", "ResourceId": f"endpoint/{name}/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }  # fmt: skip
    scaling.register_scalable_target(**target, MinCapacity=2, MaxCapacity=3)
    variant = shared.until(
        lambda: (
            (told := shared.describe(name))["EndpointStatus"] == "InService"
            and told["ProductionVariants"][0]["CurrentInstanceCount"] == 2
            and told["ProductionVariants"][0]
        )
    )
    assert variant["DesiredInstanceCount"] == 2
    described = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert [one["MinCapacity"] for one in described if name in one["ResourceId"]] == [2]


# hfserve


@pytest.fixture(scope="module")
def model(shared, tmp_path_factory):
    folder = tiny.build("text-classification-bert", tmp_path_factory.mktemp("model"))
    (folder / "code").mkdir()
    (folder / "code/inference.py").write_text(
        "import time\n"
        "def transform_fn(model, body, content_type, accept):\n"
        "    if 'stream' not in body:\n"
        "        return body.upper()\n"
        "    return (word + '\\n' for word in ('one', 'two'))\n"
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(folder, ".")
    hooked = shared.put("hfserve/hooked.tar.gz", packed.getvalue())
    for path in folder.iterdir():
        if path.is_file():
            shared.put(f"hfserve/plain/{path.name}", path.read_bytes())
    return hooked


@pytest.mark.timeout(400)
def test_hfserve_behind_it_from_a_plain_prefix_and_updated_to_an_archive(shared, model):
    source = {"S3Uri": f"s3://{BUCKET}/hfserve/plain/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    plain = shared.model(Image="hfserve:latest", ModelDataSource={"S3DataSource": source})
    name = shared.create(shared.config({"ModelName": plain}))
    told = shared.until(lambda: (one := shared.describe(name))["EndpointStatus"] != "Creating" and one, patience=180)
    assert told["EndpointStatus"] == "InService", shared.log(name)
    (label,) = shared.invoke(name, {"inputs": "good food"}, ContentType="application/json")["Body"]
    assert label["label"] in ("POSITIVE", "NEGATIVE")
    with pytest.raises(shared.runtime.exceptions.ModelError) as error:
        shared.invoke(name, {"inputs": 5}, ContentType="application/json")
    assert error.value.response["OriginalStatusCode"] in (400, 422)
    assert json.loads(error.value.response["OriginalMessage"])["error"]["message"]
    hooked = shared.config({"ModelName": shared.model(Image="local", ModelDataUrl=model)})
    shared.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=hooked)
    told = shared.until(lambda: (one := shared.describe(name))["EndpointStatus"] != "Updating" and one, patience=180)
    assert "FailureReason" not in told, shared.log(name)
    assert shared.invoke(name, {"a": "b"}, ContentType="application/json")["Body"] == {"A": "B"}
    answer = shared.runtime.invoke_endpoint_with_response_stream(
        EndpointName=name, Body=b'"stream"', ContentType="application/json"
    )
    with contextlib.closing(answer["Body"]) as events:
        assert b"".join(event["PayloadPart"]["Bytes"] for event in events) == b"one\ntwo\n"
    shared.sagemaker.delete_endpoint(EndpointName=name)


@pytest.mark.timeout(400)
def test_hfserve_holds_many_models(shared, model):
    definition = {"Image": "hfserve:latest", "Mode": "MultiModel", "ModelDataUrl": f"s3://{BUCKET}/hfserve/"}
    name = shared.create(shared.config({"ModelName": shared.model(**definition)}))
    told = shared.until(lambda: (one := shared.describe(name))["EndpointStatus"] != "Creating" and one, patience=180)
    assert told["EndpointStatus"] == "InService", shared.log(name)
    for _ in range(2):
        answer = shared.invoke(name, {"a": "b"}, ContentType="application/json", TargetModel="hooked.tar.gz")
        assert answer["Body"] == {"A": "B"}
    with pytest.raises(ClientError, match="ensure that there is an object"):
        shared.invoke(name, {"a": "b"}, TargetModel="none.tar.gz")
    shared.sagemaker.delete_endpoint(EndpointName=name)


@pytest.mark.timeout(300)
def test_hfserve_transforms_lines(shared, model):
    lines = b'{"inputs": "good"}\n{"inputs": "bad"}\n{"inputs": "the price"}\n'
    source = shared.put("lines/hfserve.jsonl", lines)
    plain = {"S3Uri": f"s3://{BUCKET}/hfserve/plain/", "S3DataType": "S3Prefix", "CompressionType": "None"}
    name = transform(
        shared, shared.model(Image="hfserve:latest", ModelDataSource={"S3DataSource": plain}), source,
        BatchStrategy="SingleRecord",
    )  # fmt: skip
    assert finished(shared, name)["TransformJobStatus"] == "Completed", shared.log(name)
    out = shared.s3.get_object(Bucket=BUCKET, Key=f"{name}/hfserve.jsonl.out")["Body"].read().decode()
    labels = [json.loads(line)[0]["label"] for line in out.splitlines()]
    assert len(labels) == 3 and set(labels) <= {"POSITIVE", "NEGATIVE"}
    assert httpx.get(shared.exported["AWS_ENDPOINT_URL"] + "/ping", trust_env=False).status_code == 200
