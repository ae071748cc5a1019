"""The life of an endpoint, as an SDK sees it."""

import json
import os
import threading

import pytest
from botocore.exceptions import ClientError

DID_NOT_PASS = (
    "The primary container for production variant AllTraffic did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)


def test_an_endpoint_is_created_answers_and_is_deleted(shared):
    name = shared.create()
    assert shared.describe(name)["EndpointStatus"] in ("Creating", "InService")
    told = shared.settled(name)
    assert told["EndpointStatus"] == "InService"
    assert told["EndpointArn"] == f"arn:aws:sagemaker:us-east-1:111122223333:endpoint/{name}"
    assert "FailureReason" not in told
    (variant,) = told["ProductionVariants"]
    assert (variant["VariantName"], variant["CurrentInstanceCount"]) == ("AllTraffic", 1)
    answer = shared.invoke(name)
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    shared.sagemaker.delete_endpoint(EndpointName=name)
    shared.sagemaker.get_waiter("endpoint_deleted").wait(
        EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    with pytest.raises(ClientError, match="Could not find endpoint") as error:
        shared.describe(name)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ProcessLookupError):
        os.kill(answer["Body"]["pid"], 0)


def test_the_container_sees_its_model_and_its_variables_and_little_else(shared, monkeypatch):
    archive = shared.archive({"config.json": "{}", "code/inference.py": "pass"})
    model = shared.model(
        ModelDataUrl=archive,
        Environment={"SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code", "HF_TASK": "fill-mask"},
    )
    seen = shared.invoke(shared.endpoint(shared.config({"ModelName": model})))["Body"]
    assert seen["files"] == {"model/config.json": "{}", "model/code/inference.py": "pass"}
    variables = seen["environment"]
    assert variables["HF_TASK"] == "fill-mask"
    assert variables["SAGEMAKER_SUBMIT_DIRECTORY"] == f"{variables['SAGEMAKER_BASE_DIR']}/model/code"
    assert variables["SAGEMAKER_REGION"] == variables["AWS_REGION"] == "us-east-1"
    assert int(variables["SAGEMAKER_BIND_TO_PORT"]) < 32768
    assert "PATH" in variables and "PYTEST_CURRENT_TEST" not in variables


def test_an_uncompressed_model_is_used_where_it_is(shared):
    shared.put("plain/config.json", b"{}")
    shared.put("plain/code/inference.py", b"pass")
    source = {
        "S3Uri": "s3://sagemaker-us-east-1-111122223333/plain/", "S3DataType": "S3Prefix", "CompressionType": "None",
    }  # fmt: skip
    model = shared.model(ModelDataSource={"S3DataSource": source})
    seen = shared.invoke(shared.endpoint(shared.config({"ModelName": model})))["Body"]
    assert seen["files"] == {"model/config.json": "{}", "model/code/inference.py": "pass"}


def test_an_endpoint_that_starts_slowly_is_creating_until_it_answers(shared, tmp_path):
    ready = tmp_path / "ready"
    name = shared.create(shared.config({"ModelName": shared.model(Environment={"READY_WHEN": ready})}))
    shared.until(lambda: "starting" in shared.log(name))
    assert shared.describe(name)["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError, match="An error occurred \\(ValidationError\\)"):
        shared.invoke(name)
    ready.touch()
    assert shared.settled(name)["EndpointStatus"] == "InService"


def test_a_container_that_never_answers_ping_fails_in_the_words_of_aws(shared, tmp_path):
    model = shared.model(Environment={"READY_WHEN": tmp_path / "never"})
    variant = {"ModelName": model, "ContainerStartupHealthCheckTimeoutInSeconds": 2}
    told = shared.settled(shared.create(shared.config(variant)))
    assert (told["EndpointStatus"], told["FailureReason"]) == ("Failed", DID_NOT_PASS)
    assert "ProductionVariants" not in told


def test_a_container_that_ends_is_started_again_until_it_is_ready(shared, tmp_path):
    crash = tmp_path / "crash"
    crash.touch()
    name = shared.create(shared.config({"ModelName": shared.model(Environment={"CRASH": crash})}))
    shared.until(lambda: shared.log(name).count("crashing") > 1)
    assert shared.describe(name)["EndpointStatus"] == "Creating"
    crash.unlink()
    assert shared.settled(name)["EndpointStatus"] == "InService"


def test_a_container_that_always_ends_fails_when_its_time_is_over(shared, tmp_path):
    crash = tmp_path / "crash"
    crash.touch()
    variant = {
        "ModelName": shared.model(Environment={"CRASH": crash}),
        "ContainerStartupHealthCheckTimeoutInSeconds": 2,
    }
    told = shared.settled(shared.create(shared.config(variant)))
    assert (told["EndpointStatus"], told["FailureReason"]) == ("Failed", DID_NOT_PASS)


def test_a_container_that_dies_in_service_is_replaced(shared):
    name = shared.endpoint()
    before = shared.invoke(name)["Body"]["pid"]
    with pytest.raises(shared.runtime.exceptions.ModelError) as error:
        shared.invoke(name, {"do": "die"})
    assert error.value.response["OriginalStatusCode"] == 0
    assert "could not get a response" in error.value.response["OriginalMessage"]

    def answered():
        try:
            return shared.invoke(name)["Body"]["pid"]
        except (shared.runtime.exceptions.ServiceUnavailable, shared.runtime.exceptions.ModelError):
            return None  # while it dies, and while nobody is there

    assert shared.until(answered) != before
    assert shared.describe(name)["EndpointStatus"] == "InService"


def test_nobody_is_there_while_the_only_container_cannot_start_again(shared, tmp_path):
    crash = tmp_path / "crash"
    name = shared.endpoint(shared.config({"ModelName": shared.model(Environment={"CRASH": crash})}))
    crash.touch()
    with pytest.raises(shared.runtime.exceptions.ModelError):
        shared.invoke(name, {"do": "die"})

    def unavailable():
        with pytest.raises(ClientError) as error:
            shared.invoke(name)
        return error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503

    shared.until(unavailable)
    assert shared.describe(name)["EndpointStatus"] == "InService"


def test_nothing_is_sent_to_a_container_while_its_ping_fails(shared, tmp_path):
    ready = tmp_path / "ready"
    ready.touch()
    name = shared.endpoint(shared.config({"ModelName": shared.model(Environment={"READY_WHEN": ready})}))
    pid = shared.invoke(name)["Body"]["pid"]
    ready.unlink()

    def status():
        try:
            return shared.invoke(name)["ResponseMetadata"]["HTTPStatusCode"]
        except shared.runtime.exceptions.ServiceUnavailable:
            return 503

    shared.until(lambda: status() == 503)
    ready.touch()
    shared.until(lambda: status() == 200)
    assert shared.invoke(name)["Body"]["pid"] == pid


def test_an_update_takes_over_when_it_is_ready_and_loses_no_request(shared, tmp_path):
    ready, answered = tmp_path / "ready", tmp_path / "answered"
    name = shared.endpoint()
    before = shared.invoke(name)["Body"]["pid"]
    fresh = shared.config({"ModelName": shared.model(Environment={"READY_WHEN": ready})})
    shared.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=fresh)
    assert shared.describe(name)["EndpointStatus"] == "Updating"
    assert shared.invoke(name)["Body"]["pid"] == before
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        shared.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=fresh)
    slow = []
    waiting = threading.Thread(
        target=lambda: slow.append(shared.invoke(name, {"do": "wait", "path": str(answered)})["Body"])
    )
    waiting.start()
    shared.until(lambda: f"waiting for {answered}" in shared.log(name))
    ready.touch()
    told = shared.settled(name)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", fresh)
    assert shared.invoke(name)["Body"]["pid"] != before
    answered.touch()
    waiting.join(30)
    assert slow == [b"waited"]


def test_a_failed_update_leaves_the_old_one_serving(shared, tmp_path):
    name = shared.endpoint()
    old = shared.describe(name)["EndpointConfigName"]
    before = shared.invoke(name)["Body"]["pid"]
    model = shared.model(Environment={"READY_WHEN": tmp_path / "never"})
    fresh = shared.config({"ModelName": model, "ContainerStartupHealthCheckTimeoutInSeconds": 2})
    shared.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=fresh)
    told = shared.settled(name)
    assert (told["EndpointStatus"], told["FailureReason"]) == ("InService", DID_NOT_PASS)
    assert told["EndpointConfigName"] == old
    assert shared.invoke(name)["Body"]["pid"] == before


def test_instances_take_turns_and_their_number_follows_what_is_wanted(shared):
    name = shared.endpoint(shared.config({"ModelName": shared.model(), "InitialInstanceCount": 2}))

    def seen():
        return {shared.invoke(name)["Body"]["pid"] for _ in range(6)}

    both = seen()
    assert len(both) == 2
    for count in (3, 1):
        wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": count}]
        shared.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
        told = shared.settled(name)["ProductionVariants"][0]
        assert (told["CurrentInstanceCount"], told["DesiredInstanceCount"]) == (count, count)
        assert len(seen()) == count


def test_an_update_can_keep_the_number_of_instances(shared):
    name = shared.endpoint()
    for keep, count in ((True, 2), (False, 1)):
        wanted = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
        shared.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
        shared.settled(name)
        shared.sagemaker.update_endpoint(
            EndpointName=name, EndpointConfigName=shared.config(), RetainAllVariantProperties=keep
        )
        assert shared.settled(name)["ProductionVariants"][0]["CurrentInstanceCount"] == count


def test_variants_share_by_weight_and_can_be_asked_for(shared):
    config = shared.config(
        {"VariantName": "blue", "ModelName": shared.model(), "InitialVariantWeight": 1},
        {"VariantName": "green", "ModelName": shared.model(), "InitialVariantWeight": 0},
    )
    name = shared.endpoint(config)
    assert {shared.invoke(name)["InvokedProductionVariant"] for _ in range(10)} == {"blue"}
    assert shared.invoke(name, TargetVariant="green")["InvokedProductionVariant"] == "green"
    with pytest.raises(ClientError, match="Variant red"):
        shared.invoke(name, TargetVariant="red")
    wanted = [{"VariantName": "blue", "DesiredWeight": 0}, {"VariantName": "green", "DesiredWeight": 5}]
    shared.sagemaker.update_endpoint_weights_and_capacities(EndpointName=name, DesiredWeightsAndCapacities=wanted)
    weights = {one["VariantName"]: one["CurrentWeight"] for one in shared.settled(name)["ProductionVariants"]}
    assert weights == {"blue": 0, "green": 5}
    assert {shared.invoke(name)["InvokedProductionVariant"] for _ in range(10)} == {"green"}


def test_many_endpoints_at_once(shared):
    names = [shared.create() for _ in range(4)]
    assert {shared.settled(name)["EndpointStatus"] for name in names} == {"InService"}
    assert len({shared.invoke(name)["Body"]["pid"] for name in names}) == 4


def test_an_endpoint_that_is_being_created_can_be_deleted(shared, tmp_path):
    name = shared.create(shared.config({"ModelName": shared.model(Environment={"READY_WHEN": tmp_path / "never"})}))
    shared.until(lambda: "starting" in shared.log(name))
    shared.sagemaker.delete_endpoint(EndpointName=name)
    listed = shared.sagemaker.list_endpoints
    shared.until(lambda: name not in [one["EndpointName"] for one in listed()["Endpoints"]])


def test_model_data_that_is_gone_or_no_archive_is_the_reason(shared):
    gone = shared.archive({"config.json": "{}"})
    model = shared.model(ModelDataUrl=gone)
    shared.s3.delete_object(Bucket=gone.split("/")[2], Key=gone.split("/", 3)[3])
    told = shared.settled(shared.create(shared.config({"ModelName": model})))
    assert told["EndpointStatus"] == "Failed"
    assert f'Failed to download model data for container "container_1" from URL: "{gone}"' in told["FailureReason"]
    broken = shared.put("broken/model.tar.gz", b"no archive")
    told = shared.settled(shared.create(shared.config({"ModelName": shared.model(ModelDataUrl=broken)})))
    assert told["EndpointStatus"] == "Failed"
    assert "valid tar.gz" in told["FailureReason"]


def test_a_command_that_is_not_there_is_the_reason(local):
    own = local("--image", "broken*=/nowhere/serve --now")
    told = own.settled(own.create(own.config({"ModelName": own.model(Image="broken:1")})))
    assert told["EndpointStatus"] == "Failed"
    assert "The image broken:1 stands for /nowhere/serve --now, which does not start" in told["FailureReason"]


def test_what_an_archive_holds_stays_inside(shared, tmp_path):
    bad = shared.archive({"../escaped": "x"})
    told = shared.settled(shared.create(shared.config({"ModelName": shared.model(ModelDataUrl=bad)})))
    assert told["EndpointStatus"] == "Failed"
    assert "escaped" in told["FailureReason"]
    assert not list(shared.directory.rglob("escaped"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"Image": "unknown:1"}, "Requested image unknown:1 not found"),
        ({"ModelDataUrl": "s3://sagemaker-us-east-1-111122223333/none.tar.gz"}, "Could not find model data at s3://"),
        ({"Environment": {"a-b": "1"}}, "Map key 'a-b'"),
        ({"Environment": {"LONG": "x" * 1025}}, "less than or equal to 1024"),
    ],
)
def test_a_model_that_cannot_be_is_refused_at_once(shared, wrong, message):
    with pytest.raises(ClientError) as error:
        shared.model(**wrong)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert message in error.value.response["Error"]["Message"]


def test_names_are_checked_and_things_are_found_or_not(shared):
    sagemaker = shared.sagemaker
    with pytest.raises(ClientError, match="'under_score' at 'endpointName' failed to satisfy constraint"):
        sagemaker.create_endpoint(EndpointName="under_score", EndpointConfigName=shared.config())
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        sagemaker.create_endpoint(EndpointName="fine", EndpointConfigName="none")
    with pytest.raises(ClientError, match="Could not find model"):
        shared.config({"ModelName": "none"})
    config = shared.config()
    name = shared.endpoint(config)
    with pytest.raises(ClientError, match="Cannot create already existing endpoint"):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)


def test_what_was_set_is_told_and_nothing_else(shared):
    model = shared.model(Environment={"A": "1"})
    told = shared.sagemaker.describe_model(ModelName=model)
    assert told["PrimaryContainer"] == {"Image": "fake:1", "Environment": {"A": "1"}}
    assert set(told) == {
        "ModelName", "PrimaryContainer", "ExecutionRoleArn", "CreationTime", "ModelArn", "ResponseMetadata",
    }  # fmt: skip
    config = shared.config({"ModelName": model})
    told = shared.sagemaker.describe_endpoint_config(EndpointConfigName=config)
    assert "AsyncInferenceConfig" not in told and "DataCaptureConfig" not in told
    assert model in json.dumps(shared.sagemaker.list_models(NameContains=model), default=str)
    shared.sagemaker.delete_endpoint_config(EndpointConfigName=config)
    shared.sagemaker.delete_model(ModelName=model)
    with pytest.raises(ClientError, match="Could not find model"):
        shared.sagemaker.describe_model(ModelName=model)


def test_tags_are_kept_with_what_they_name(shared):
    name = shared.name("endpoint")
    arn = shared.sagemaker.create_endpoint(
        EndpointName=name, EndpointConfigName=shared.config(), Tags=[{"Key": "a", "Value": "1"}]
    )["EndpointArn"]
    shared.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "b", "Value": "2"}])
    shared.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])
    assert shared.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    assert shared.settled(name)["EndpointStatus"] == "InService"
