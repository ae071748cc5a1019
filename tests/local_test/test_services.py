"""The other services, as far as the SDKs ask."""

import httpx
import pytest
from botocore.exceptions import ClientError


def test_sts_and_iam_say_who_this_is_and_that_all_is_allowed(shared):
    who = shared.client("sts").get_caller_identity()
    assert (who["Account"], who["Arn"]) == ("111122223333", "arn:aws:iam::111122223333:role/local")
    assumed = shared.client("sts").assume_role(RoleArn=who["Arn"], RoleSessionName="local")
    assert assumed["Credentials"]["AccessKeyId"]
    role = shared.client("iam").get_role(RoleName="a-role")["Role"]
    assert role["Arn"] == "arn:aws:iam::111122223333:role/a-role"
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    asked = shared.client("iam").simulate_principal_policy(
        PolicySourceArn=who["Arn"], ActionNames=["s3:Get*", "s3:Put*"]
    )
    decisions = {one["EvalActionName"]: one["EvalDecision"] for one in asked["EvaluationResults"]}
    assert decisions == {"s3:Get*": "allowed", "s3:Put*": "allowed"}
    with pytest.raises(ClientError, match="ListUsers is not emulated locally"):
        shared.client("iam").list_users()


def test_logs_have_a_group_for_each_endpoint_and_a_stream_for_each_instance(shared):
    name = shared.endpoint(shared.config({"ModelName": shared.model(), "InitialInstanceCount": 2}))
    logs, group = shared.client("logs"), f"/aws/sagemaker/Endpoints/{name}"
    for word in ("one", "two", "three"):
        shared.invoke(name, {"do": "print", "text": f"said {word}"})

    def said():
        events = logs.filter_log_events(logGroupName=group, filterPattern="said")["events"]
        return len(events) == 3 and events

    events = shared.until(said)
    assert {event["message"] for event in events} == {"said one", "said two", "said three"}
    streams = [one["logStreamName"] for one in logs.describe_log_streams(logGroupName=group)["logStreams"]]
    assert len(streams) == 2 and all(stream.startswith("AllTraffic/i-") for stream in streams)
    got = logs.get_log_events(logGroupName=group, logStreamName=streams[0], startFromHead=True)
    assert got["events"][0]["message"] == "starting"
    rest = logs.get_log_events(logGroupName=group, logStreamName=streams[0], nextToken=got["nextForwardToken"])
    assert rest["events"] == [] and rest["nextForwardToken"] == got["nextForwardToken"]
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 2})
    assert sum(len(page["events"]) for page in pages) == 5
    assert logs.filter_log_events(logGroupName=group, startTime=events[-1]["timestamp"] + 1)["events"] == []
    assert group in [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]]
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.filter_log_events(logGroupName="/aws/sagemaker/Endpoints/nowhere")


def test_what_is_not_emulated_says_so(shared):
    with pytest.raises(ClientError, match=r"SageMaker\.ListNotebookInstances is not emulated locally"):
        shared.sagemaker.list_notebook_instances()
    with pytest.raises(ClientError, match=r"Logs\.PutLogEvents is not emulated locally"):
        shared.client("logs").put_log_events(
            logGroupName="a", logStreamName="b", logEvents=[{"timestamp": 0, "message": "m"}]
        )
    with pytest.raises(ClientError, match="is not emulated locally"):
        shared.client("ecs").list_clusters()


def test_a_body_that_is_none_is_refused_and_the_connection_lives_on(shared):
    with httpx.Client(base_url=shared.exported["AWS_ENDPOINT_URL"], trust_env=False) as client:
        headers = {"X-Amz-Target": "SageMaker.CreateModel"}
        broken = client.post("/", content=b"{", headers=headers)
        assert (broken.status_code, broken.json()["__type"]) == (400, "SerializationException")
        missing = client.post("/", content=b"{}", headers=headers)
        assert (missing.status_code, missing.json()["__type"]) == (400, "ValidationException")
        assert "'ModelName'" in missing.json()["message"]
        assert client.post("/", content=b"{}", headers={"X-Amz-Target": "SageMaker.ListModels"}).status_code == 200
