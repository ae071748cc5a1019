"""boto3, as a program uses it against AWS."""

import json
import uuid

import boto3
from botocore.exceptions import ClientError, WaiterError
from checks import IMAGE, MODELS, NEGATIVE, PATIENCE, POSITIVE, ROLE, call, labels, raises, say, until

say(client="boto3", version=boto3.__version__)

s3, sagemaker, runtime = boto3.client("s3"), boto3.client("sagemaker"), boto3.client("sagemaker-runtime")
scaling, logs, sts, iam = map(boto3.client, ("application-autoscaling", "logs", "sts", "iam"))
BUCKET = f"clients-{uuid.uuid4().hex[:8]}"
PROMPT = {"inputs": "Once upon", "parameters": {"max_new_tokens": 4, "do_sample": False}}
SOON = {"Delay": 1, "MaxAttempts": PATIENCE}


def deploy(name, model, *, wait=True, **configured):
    """An endpoint of this name, as three calls make it."""
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/models/{model}.tar.gz"}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], **configured)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    if wait:
        sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=SOON)


def invoke(name, body, **more):
    return runtime.invoke_endpoint(EndpointName=name, Body=json.dumps(body), ContentType="application/json", **more)


def stream(**more):
    body = {"inputs": "Once upon", "parameters": {"max_new_tokens": 5, "do_sample": False}}
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName="writer", Body=json.dumps(body), ContentType="application/json", **more
    )
    return answer["ContentType"], b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])


with call("S3 create_bucket, upload_file, list_objects_v2, get_object"):
    s3.create_bucket(Bucket=BUCKET)
    for model in ("classifier", "writer"):
        s3.upload_file(str(MODELS / f"{model}.tar.gz"), BUCKET, f"models/{model}.tar.gz")
    s3.put_object(Bucket=BUCKET, Key="in/one.jsonl", Body="\n".join(map(json.dumps, [POSITIVE, NEGATIVE])))
    s3.put_object(Bucket=BUCKET, Key="in/two.jsonl", Body=b'{"text": "of no known form"}\n')
    s3.put_object(Bucket=BUCKET, Key="async/one.json", Body=json.dumps(NEGATIVE))
    listed = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert listed == [
        "async/one.json",
        "in/one.jsonl",
        "in/two.jsonl",
        "models/classifier.tar.gz",
        "models/writer.tar.gz",
    ]
    assert json.loads(s3.get_object(Bucket=BUCKET, Key="async/one.json")["Body"].read()) == NEGATIVE

with call("STS get_caller_identity, IAM get_role"):
    assert sts.get_caller_identity()["Account"] == ROLE.split(":")[4]
    assert iam.get_role(RoleName="local")["Role"]["Arn"] == ROLE

with call("create_model, create_endpoint_config, create_endpoint, waiter endpoint_in_service"):
    output = {"S3OutputPath": f"s3://{BUCKET}/done", "S3FailurePath": f"s3://{BUCKET}/failed"}
    deploy("later", "classifier", wait=False, AsyncInferenceConfig={"OutputConfig": output})
    deploy("writer", "writer")

with call("describe_endpoint, list_endpoints, describe_endpoint_config, describe_model"):
    told = sagemaker.describe_endpoint(EndpointName="writer")
    assert told["EndpointStatus"] == "InService"
    assert told["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert {one["EndpointName"] for one in sagemaker.list_endpoints()["Endpoints"]} >= {"writer", "later"}
    configured = sagemaker.describe_endpoint_config(EndpointConfigName="writer")
    assert configured["ProductionVariants"][0]["ModelName"] == "writer"
    assert sagemaker.describe_model(ModelName="writer")["PrimaryContainer"]["Image"] == IMAGE

with call("invoke_endpoint"):
    written = invoke("writer", PROMPT)
    assert (written["ContentType"], written["InvokedProductionVariant"]) == ("application/json", "AllTraffic")
    once = json.loads(written["Body"].read())
    again = invoke("writer", PROMPT, Accept="application/json")
    assert once[0]["generated_text"]
    assert json.loads(again["Body"].read()) == once

with call("invoke_endpoint: TargetVariant, InferenceId, CustomAttributes"):
    body = {"inputs": "Once", "parameters": {"max_new_tokens": 1}}
    answer = invoke("writer", body, TargetVariant="AllTraffic", InferenceId="one", CustomAttributes="a=b")
    assert json.loads(answer["Body"].read())
    assert "CustomAttributes" not in answer  # echoed only when a hook sets it
    with raises(ClientError) as error:
        invoke("writer", body, TargetVariant="Other")
    assert error.value.response["Error"]["Code"] == "ValidationError"

with call("invoke_endpoint_with_response_stream: application/jsonlines"):
    kind, text = stream(Accept="application/jsonlines")
    assert kind == "application/jsonlines", kind
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["index"] for line in lines] == [1, 2, 3, 4, 5], lines

with call("invoke_endpoint_with_response_stream: text/event-stream"):
    kind, text = stream(Accept="text/event-stream")
    assert kind.startswith("text/event-stream"), kind
    *events, end = text.split(b"\n\n")
    assert len(events) >= 5 and all(event.startswith(b"data:") for event in events) and end == b""

with call("ModelError: a container's 4xx is 424 with its status and message, tried once"):
    for ask in (
        lambda: invoke("writer", {"inputs": "Once", "parameters": {"max_new_tokens": "many"}}),
        lambda: runtime.invoke_endpoint_with_response_stream(
            EndpointName="writer", Body=b'{"inputs": 3}', ContentType="application/json"
        ),
    ):
        with raises(runtime.exceptions.ModelError) as error:
            ask()
        response = error.value.response
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert response["ResponseMetadata"]["RetryAttempts"] == 0
        assert response["OriginalStatusCode"] == 422, response
        assert json.loads(response["OriginalMessage"])["error"]["status"] == 422
        assert response["LogStreamArn"].startswith("arn:aws:logs:")

with call("ValidationError: an endpoint that is not there"):
    with raises(ClientError) as error:
        invoke("nowhere", POSITIVE)
    assert error.value.response["Error"]["Code"] == "ValidationError"
    assert "not found" in error.value.response["Error"]["Message"]

with call("invoke_endpoint_async: InputLocation, output and failure in S3"):
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="later", WaiterConfig=SOON)
    s3.put_object(Bucket=BUCKET, Key="async/bad.json", Body=b"{")

    def later(key, told):
        answer = runtime.invoke_endpoint_async(
            EndpointName="later", InputLocation=f"s3://{BUCKET}/async/{key}", ContentType="application/json"
        )
        assert answer["InferenceId"]
        where = answer[told].removeprefix(f"s3://{BUCKET}/")

        def found():
            listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=where)
            return listed["KeyCount"] and s3.get_object(Bucket=BUCKET, Key=where)["Body"].read()

        return until(found, where)

    assert labels(later("one.json", "OutputLocation")) == ["NEGATIVE"]
    assert b"400" in later("bad.json", "FailureLocation")

with call("Application Auto Scaling: targets and policies, registered, described and deleted"):
    resource = {
        "ServiceNamespace": "sagemaker", "ResourceId": "endpoint/writer/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }  # fmt: skip
    scaling.register_scalable_target(**resource, MinCapacity=1, MaxCapacity=2)
    asked = {"ServiceNamespace": "sagemaker", "ResourceIds": [resource["ResourceId"]]}
    (target,) = scaling.describe_scalable_targets(**asked)["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 2)
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    tracking = {"TargetValue": 70.0, "PredefinedMetricSpecification": metric}
    scaling.put_scaling_policy(
        **resource, PolicyName="busy", PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration=tracking,
    )  # fmt: skip
    (policy,) = scaling.describe_scaling_policies(**resource)["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"] == tracking
    with raises(scaling.exceptions.ValidationException):
        scaling.register_scalable_target(**resource, MinCapacity=3, MaxCapacity=2)
    scaling.delete_scaling_policy(**resource, PolicyName="busy")
    scaling.deregister_scalable_target(**resource)
    with raises(scaling.exceptions.ObjectNotFoundException):
        scaling.deregister_scalable_target(**resource)

with call("create_transform_job, waiter, describe_transform_job: one object of two fails, the other stays"):
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in/"}}
    sagemaker.create_transform_job(
        TransformJobName="job", ModelName="later", BatchStrategy="MultiRecord", MaxPayloadInMB=1,
        TransformInput={"DataSource": source, "ContentType": "application/jsonlines", "SplitType": "Line"},
        TransformOutput={
            "S3OutputPath": f"s3://{BUCKET}/out", "Accept": "application/jsonlines", "AssembleWith": "Line",
        },
        TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
        DataProcessing={"JoinSource": "Input", "OutputFilter": "$['inputs','SageMakerOutput']"},
    )  # fmt: skip
    with raises(WaiterError):
        sagemaker.get_waiter("transform_job_completed_or_stopped").wait(TransformJobName="job", WaiterConfig=SOON)
    told = sagemaker.describe_transform_job(TransformJobName="job")
    assert told["TransformJobStatus"] == "Failed"
    assert told["FailureReason"].startswith("ClientError: ") and "in/two.jsonl" in told["FailureReason"], told
    assert told["TransformEndTime"] >= told["TransformStartTime"]
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET, Prefix="out/")["Contents"]] == ["out/one.jsonl.out"]
    lines = s3.get_object(Bucket=BUCKET, Key="out/one.jsonl.out")["Body"].read().splitlines()
    joined = [json.loads(line) for line in lines]
    assert [one["inputs"] for one in joined] == [POSITIVE["inputs"], NEGATIVE["inputs"]]
    assert labels([one["SageMakerOutput"] for one in joined]) == ["POSITIVE", "NEGATIVE"]

with call("CloudWatch Logs filter_log_events"):
    group = "/aws/sagemaker/Endpoints/writer"
    events = logs.filter_log_events(logGroupName=group)["events"]
    assert any('"event": "ready"' in event["message"] for event in events)

with call("delete_endpoint, waiter endpoint_deleted, delete_endpoint_config, delete_model"):
    for name in ("writer", "later"):
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=SOON)
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)
    with raises(ClientError) as error:
        invoke("writer", POSITIVE)
    assert error.value.response["Error"]["Code"] == "ValidationError"
