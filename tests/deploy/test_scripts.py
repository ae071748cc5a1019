"""The scripts of deploy/sagemaker against a local SageMaker that runs this server: what they make answers."""

import ast
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY

SCRIPTS = Path(__file__).parents[2] / "deploy" / "sagemaker"
BUCKET = "sagemaker-us-east-1-111122223333"
SMALL = ["--instance-type", "ml.m5.large"]
GOOD = json.dumps({"inputs": "I love this"})


def run(script, *argv):
    importlib.import_module(script).main([str(each) for each in argv])


def invoke(endpoint, **more):
    reply = boto3.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, Body=GOOD, ContentType="application/json", **more
    )
    return json.loads(reply["Body"].read())[0]["label"]


def put(key, body):
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
    return f"s3://{BUCKET}/{key}"


def get(uri):
    return boto3.client("s3").get_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"))["Body"].read()


def described(endpoint):
    sagemaker = boto3.client("sagemaker")
    told = sagemaker.describe_endpoint(EndpointName=endpoint)
    config = sagemaker.describe_endpoint_config(EndpointConfigName=told["EndpointConfigName"])
    [variant] = config["ProductionVariants"]
    return config, variant, sagemaker.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]


def tear_down(cloudwatch, endpoint):
    """Run the script, and see that nothing is left."""
    cloudwatch.add_response(
        "delete_alarms", {}, {"AlarmNames": [f"{endpoint}-{e}" for e in ("5xx", "latency", "waiting")]}
    )
    run("teardown", endpoint)
    sagemaker = boto3.client("sagemaker")
    with pytest.raises(ClientError, match="Could not find"):
        sagemaker.describe_endpoint(EndpointName=endpoint)
    assert sagemaker.list_models(NameContains=f"{endpoint}-")["Models"] == []
    assert sagemaker.list_endpoint_configs(NameContains=f"{endpoint}-")["EndpointConfigs"] == []
    cloudwatch.assert_no_pending_responses()


def test_an_endpoint_is_created_scaled_updated_with_a_canary_and_torn_down(aws, model, capsys):
    run("create_endpoint", "reviews", *model, *SMALL, "--count", 2, "--env", "HFSERVE_MAX_ITEMS=3")
    assert invoke("reviews") == "POSITIVE"

    run("autoscale", "reviews", "--min", 1, "--max", 3, "--concurrent", 8)
    [policy] = boto3.client("application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")[
        "ScalingPolicies"
    ]
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert policy["ResourceId"] == "endpoint/reviews/variant/AllTraffic" and tracking["TargetValue"] == 8

    _, _, before = described("reviews")
    alarm = {
        "AlarmName": "reviews-5xx", "Namespace": "AWS/SageMaker", "MetricName": "Invocation5XXErrors",
        "TreatMissingData": "notBreaching", "Period": 60, "EvaluationPeriods": 1, "Statistic": "Sum", "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold", "Dimensions": ANY,
    }  # fmt: skip
    slow = {
        **{name: value for name, value in alarm.items() if name != "Statistic"}, "AlarmName": "reviews-latency",
        "MetricName": "ModelLatency", "ExtendedStatistic": "p99", "Threshold": 250_000.0, "EvaluationPeriods": 3,
    }  # fmt: skip
    aws.add_response("put_metric_alarm", {}, alarm)
    aws.add_response("put_metric_alarm", {}, slow)
    time.sleep(1.1)  # a name is made of the second
    run("update_canary", "reviews", "--env", "HFSERVE_MAX_ITEMS=7", "--latency", 250)
    config, variant, after = described("reviews")
    assert variant["InitialInstanceCount"] == 2
    assert after == {**before, "Environment": {**before["Environment"], "HFSERVE_MAX_ITEMS": "7"}}
    assert invoke("reviews") == "POSITIVE"
    assert f"being updated from {config['EndpointConfigName'][:8]}" in capsys.readouterr().out
    tear_down(aws, "reviews")


def test_an_asynchronous_endpoint_takes_an_hour_and_no_instance_while_nothing_waits(aws, model):
    output = f"s3://{BUCKET}/answers"
    run("async_endpoint", "later", *model, *SMALL, "--output", output)
    config, _, container = described("later")
    assert container["Environment"]["HFSERVE_TIMEOUT"] == "3600"
    assert config["AsyncInferenceConfig"]["OutputConfig"]["S3FailurePath"] == f"{output}/failed"
    place = put("question.json", GOOD.encode())
    told = boto3.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="later", InputLocation=place, ContentType="application/json"
    )
    end = time.monotonic() + 60
    while True:
        try:
            answer = json.loads(get(told["OutputLocation"]))
            break
        except ClientError:
            assert time.monotonic() < end
    assert answer[0]["label"] == "POSITIVE"

    waiting = {
        "AlarmName": "later-waiting", "Namespace": "AWS/SageMaker", "MetricName": "HasBacklogWithoutCapacity",
        "TreatMissingData": "notBreaching", "Period": 60, "EvaluationPeriods": 2, "Statistic": "Average",
        "Threshold": 1.0, "ComparisonOperator": "GreaterThanOrEqualToThreshold", "AlarmActions": ANY,
        "Dimensions": [{"Name": "EndpointName", "Value": "later"}],
    }  # fmt: skip
    aws.add_response("put_metric_alarm", {}, waiting)
    importlib.import_module("async_endpoint").scale("later", 2, 4)
    policies = boto3.client("application-autoscaling").describe_scaling_policies(ServiceNamespace="sagemaker")
    assert {policy["PolicyName"] for policy in policies["ScalingPolicies"]} == {"later-backlog", "later-first"}
    tear_down(aws, "later")


def test_a_serverless_endpoint_answers(aws, model):
    run("serverless", "rarely", *model, "--memory", 2048)
    _, variant, container = described("rarely")
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    assert "InstanceType" not in variant and container["Environment"]["HFSERVE_WORKERS"] == "1"
    assert invoke("rarely") == "POSITIVE"
    tear_down(aws, "rarely")


def test_a_multi_model_endpoint_loads_what_is_asked_for(aws, model, archive):
    put("models/reviews.tar.gz", archive.read_bytes())
    given = [*model[:-1], f"s3://{BUCKET}/models/"]
    run("multi_model", "many", *given, *SMALL)
    _, _, container = described("many")
    assert (container["Mode"], container["ModelDataUrl"]) == ("MultiModel", f"s3://{BUCKET}/models/")
    assert invoke("many", TargetModel="reviews.tar.gz") == "POSITIVE"
    tear_down(aws, "many")


def test_a_transform_job_answers_every_line(aws, model):
    lines = [GOOD, "{broken", json.dumps({"inputs": "I hate this"})]
    source = put("in/reviews.jsonl", "\n".join(lines).encode())
    run(
        "transform",
        "night",
        *model,
        *SMALL,
        "--input",
        source.rpartition("/")[0] + "/",
        "--output",
        f"s3://{BUCKET}/out",
    )
    first, second, third = map(json.loads, get("out/reviews.jsonl.out").splitlines())
    assert (first[0]["label"], second["error"]["status"], third[0]["label"]) == ("POSITIVE", 400, "NEGATIVE")


def test_a_transform_job_that_fails_ends_the_script_with_the_reason(aws, model):
    source = put("in2/reviews.jsonl", GOOD.encode())
    with pytest.raises(SystemExit, match="night"):
        run(
            "transform",
            "night2",
            *model,
            *SMALL,
            "--env",
            "HF_TASK=sing",
            "--input",
            source,
            "--output",
            f"s3://{BUCKET}/out2",
        )


def test_an_endpoint_that_fails_ends_the_script_with_the_reason(aws, model):
    with pytest.raises(SystemExit, match="broken: Failed"):
        run("create_endpoint", "broken", *model[:-1], put("damaged/model.tar.gz", b"no archive"), *SMALL)
    tear_down(aws, "broken")


def test_the_canary_is_none_where_there_is_but_one_instance(aws):
    canary = importlib.import_module("update_canary")
    given = canary.parsed(["reviews", "--percent", "20", "--wait", "60"])
    assert canary.routing(1, given)["Type"] == "ALL_AT_ONCE"
    assert canary.routing(4, given) == {
        "Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20},
    }  # fmt: skip


def test_a_gpu_gets_a_host_whose_driver_runs_the_image(aws):
    common = importlib.import_module("common")
    assert common.on_instances("m", "ml.g4dn.xlarge", 1)["InferenceAmiVersion"] == common.GPU_HOST
    assert "InferenceAmiVersion" not in common.on_instances("m", "ml.m5.large", 1)
    assert common.files("s3://b/m/")["ModelDataSource"]["S3DataSource"]["CompressionType"] == "None"


@pytest.mark.parametrize("script", sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != "common"))
def test_every_script_says_what_it_does(script):
    path = SCRIPTS / f"{script}.py"
    done = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True, check=True, timeout=60)
    about = ast.get_docstring(ast.parse(path.read_text()))
    assert " ".join(about.partition("\n")[0].split()) in " ".join(done.stdout.split())
