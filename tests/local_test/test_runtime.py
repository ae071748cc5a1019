"""InvokeEndpoint in its three ways, through boto3."""

import contextlib
import json
import threading

import httpx
import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError


@pytest.fixture(scope="module")
def endpoint(shared):
    return shared.endpoint()


@contextlib.contextmanager
def stream(shared, endpoint, **body):
    answer = shared.runtime.invoke_endpoint_with_response_stream(
        EndpointName=endpoint, Body=json.dumps(body), ContentType="application/json", Accept="text/event-stream"
    )
    with contextlib.closing(answer["Body"]) as events:
        yield answer, (event["PayloadPart"]["Bytes"] for event in events)


# What goes in and out


def test_the_container_sees_the_headers_of_the_contract_and_no_others(shared, endpoint):
    def add(request, **_):
        request.headers["X-Secret"] = "not for the container"

    events = shared.runtime.meta.events
    events.register("before-send.sagemaker-runtime.InvokeEndpoint", add)
    try:
        seen = shared.invoke(
            endpoint, ContentType="text/csv", Accept="application/json", CustomAttributes="c=1", InferenceId="i-1",
            SessionId="s-1", TargetVariant="AllTraffic",
        )["Body"]  # fmt: skip
    finally:
        events.unregister("before-send.sagemaker-runtime.InvokeEndpoint", add)
    assert seen["path"] == "/invocations"
    headers = {k: v for k, v in seen["headers"].items() if k not in ("host", "accept-encoding", "content-length")}
    assert headers == {
        "content-type": "text/csv", "accept": "application/json", "x-amzn-sagemaker-custom-attributes": "c=1",
        "x-amzn-sagemaker-inference-id": "i-1", "x-amzn-sagemaker-session-id": "s-1",
        "x-amzn-sagemaker-target-variant": "AllTraffic",
    }  # fmt: skip


def test_the_client_sees_what_the_contract_names_and_no_other_header(shared, endpoint):
    headers = {
        "X-Amzn-SageMaker-Custom-Attributes": "trace=7", "X-Amzn-SageMaker-Closed-Session-Id": "t",
        "X-Amzn-SageMaker-New-Session-Id": "s; Expires=2030-01-01T00:00:00Z", "X-Secret": "not for the client",
        "Content-Type": "application/jsonlines",
    }  # fmt: skip
    answer = shared.invoke(endpoint, {"headers": headers})
    assert (answer["ContentType"], answer["CustomAttributes"]) == ("application/jsonlines", "trace=7")
    assert (answer["NewSessionId"], answer["ClosedSessionId"]) == ("s; Expires=2030-01-01T00:00:00Z", "t")
    assert "x-secret" not in answer["ResponseMetadata"]["HTTPHeaders"]


def test_a_session_stays_where_it_began(shared):
    name = shared.endpoint(shared.config({"ModelName": shared.model(), "InitialInstanceCount": 3}))
    opened = {"X-Amzn-SageMaker-New-Session-Id": "abc; Expires=2030-01-01T00:00:00Z"}
    home = shared.invoke(name, {"headers": opened}, SessionId="NEW_SESSION")["Body"]["pid"]
    assert {shared.invoke(name, SessionId="abc")["Body"]["pid"] for _ in range(6)} == {home}
    closed = {"X-Amzn-SageMaker-Closed-Session-Id": "abc"}
    shared.invoke(name, {"headers": closed}, SessionId="abc")
    assert len({shared.invoke(name, SessionId="abc")["Body"]["pid"] for _ in range(6)}) == 3


def test_bodies_up_to_the_limit_pass_and_above_are_refused(shared, endpoint):
    most = 25 << 20
    answer = shared.runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x" * most)
    assert json.load(answer["Body"])["bytes"] == most
    with pytest.raises(ClientError) as error:
        shared.runtime.invoke_endpoint(EndpointName=endpoint, Body=b"x" * (most + 1))
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert "HTTP content length exceeded" in error.value.response["Error"]["Message"]
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    config = {"VariantName": "AllTraffic", "ModelName": shared.model(), "ServerlessConfig": serverless}
    name = shared.endpoint(shared.config(config))
    with pytest.raises(ClientError, match=str(4 << 20)):
        shared.runtime.invoke_endpoint(EndpointName=name, Body=b"x" * ((4 << 20) + 1))


# What goes wrong


@pytest.mark.parametrize(("status", "side"), [(400, "client"), (404, "client"), (500, "server"), (503, "server")])
def test_what_a_container_refuses_is_a_model_error(shared, endpoint, status, side):
    with pytest.raises(shared.runtime.exceptions.ModelError) as error:
        shared.invoke(endpoint, {"do": "refuse", "status": status, "message": "no, thanks"})
    told = error.value.response
    assert told["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (told["OriginalStatusCode"], told["OriginalMessage"]) == (status, "no, thanks")
    assert told["LogStreamArn"].endswith(f":log-group:/aws/sagemaker/Endpoints/{endpoint}")
    assert f'Received {side} error ({status}) from primary with message "no, thanks". See https://' in str(error.value)


def test_an_endpoint_that_is_not_there(shared):
    with pytest.raises(ClientError) as error:
        shared.invoke("nowhere")
    assert error.value.response["Error"] == {
        "Code": "ValidationError", "Message": "Endpoint nowhere of account 111122223333 not found.",
    }  # fmt: skip


def test_what_the_runtime_itself_refuses(shared, endpoint):
    with pytest.raises(ClientError, match="'customAttributes' failed to satisfy constraint"):
        shared.invoke(endpoint, CustomAttributes="x" * 1025)
    with pytest.raises(ClientError, match="is not a multi-model endpoint"):
        shared.invoke(endpoint, TargetModel="a.tar.gz")
    with pytest.raises(ClientError, match="is not an asynchronous endpoint"):
        shared.runtime.invoke_endpoint_async(EndpointName=endpoint, InputLocation=shared.put("in/0.json", b"{}"))


# A stream


def test_pieces_come_as_they_are_made(shared, endpoint, tmp_path):
    seen = tmp_path / "seen"
    with stream(shared, endpoint, do="stream", pieces=["one\n", "two\n"], next=str(seen)) as (answer, parts):
        assert next(parts) == b"one\n"
        seen.touch()  # only now is there a second piece
        assert b"".join(parts) == b"two\n"
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("text/event-stream", "AllTraffic")


def test_a_stream_may_be_one_whole_answer(shared, endpoint):
    with stream(shared, endpoint) as (_, parts):
        seen = json.loads(b"".join(parts))
    assert seen["headers"]["accept"] == "text/event-stream"


def test_an_error_before_the_first_piece_is_a_model_error(shared, endpoint):
    refused = stream(shared, endpoint, do="refuse", status=400, message="no")
    with pytest.raises(shared.runtime.exceptions.ModelError) as error, refused:
        pass
    assert error.value.response["OriginalStatusCode"] == 400


def test_a_stream_that_breaks_ends_with_an_exception(shared):
    with stream(shared, shared.endpoint(), do="die", after=1) as (_, parts):
        assert next(parts) == b"one\n"
        with pytest.raises(EventStreamError) as error:
            next(parts)
    assert error.value.response["Error"]["Code"] == "ModelStreamError"


def test_the_frame_of_an_exception_says_which(shared):
    url = f"{shared.exported['AWS_ENDPOINT_URL']}/endpoints/{shared.endpoint()}/invocations-response-stream"
    answer = httpx.post(url, json={"do": "die", "after": 1}, trust_env=False)
    frames = EventStreamBuffer()
    frames.add_data(answer.content)
    first, last = frames
    assert first.headers[":event-type"] == "PayloadPart"
    assert first.payload == b"one\n"
    assert last.headers[":message-type"] == "exception"
    assert last.headers[":exception-type"] == "ModelStreamError"
    assert json.loads(last.payload)["ErrorCode"] == "StreamBroken"


def test_a_container_is_told_when_the_client_goes(shared, endpoint):
    with stream(shared, endpoint, do="stream_on") as (_, parts):
        assert next(parts).startswith(b"more\n")
    shared.until(lambda: "nobody listens" in shared.log(endpoint))


def test_a_container_that_takes_too_long(local, tmp_path):
    own = local("--invocation-timeout", "2", "--stream-timeout", "2")
    name, never = own.endpoint(), str(tmp_path / "never")
    with pytest.raises(own.runtime.exceptions.ModelError, match="Your invocation timed out") as error:
        own.invoke(name, {"do": "wait", "path": never})
    assert error.value.response["OriginalStatusCode"] == 0
    with stream(own, name, do="wait", path=never, begin=True) as (_, parts):
        assert next(parts) == b"one\n"
        with pytest.raises(EventStreamError) as error:
            next(parts)
    assert "within the timeout period" in error.value.response["Error"]["Message"]


# Later


@pytest.fixture(scope="module")
def later(shared):
    outputs = {"S3OutputPath": "s3://answers/out/", "S3FailurePath": "s3://answers/failed"}
    config = {"OutputConfig": outputs, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1}}
    return shared.endpoint(shared.config(AsyncInferenceConfig=config))


def fetch(shared, location):
    bucket, key = location.removeprefix("s3://").split("/", 1)

    def there():
        try:
            return shared.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError:
            return None

    return shared.until(there)


def test_an_asynchronous_answer_comes_to_its_place(shared, later):
    answer = shared.runtime.invoke_endpoint_async(
        EndpointName=later, InputLocation=shared.put("in/1.json", b'{"a": 1}'), ContentType="application/json",
        Accept="text/csv", InferenceId="i-7",
    )  # fmt: skip
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "i-7"
    assert answer["OutputLocation"].startswith("s3://answers/out/") and answer["OutputLocation"].endswith(".out")
    assert answer["FailureLocation"].startswith("s3://answers/failed/")
    seen = json.loads(fetch(shared, answer["OutputLocation"]))
    assert seen["bytes"] == 8
    assert (seen["headers"]["content-type"], seen["headers"]["accept"]) == ("application/json", "text/csv")
    assert seen["headers"]["x-amzn-sagemaker-inference-id"] == "i-7"


def test_an_asynchronous_body_can_be_sent_along_and_its_answer_named(shared, later):
    answer = shared.runtime.invoke_endpoint_async(
        EndpointName=later, Body=b"{}", S3OutputPathExtension="today", Filename="answer.json"
    )
    assert answer["OutputLocation"] == "s3://answers/out/today/answer.json"
    assert json.loads(fetch(shared, answer["OutputLocation"]))["bytes"] == 2


def test_an_asynchronous_failure_comes_to_its_own_place(shared, later):
    body = json.dumps({"do": "refuse", "status": 400, "message": "no, thanks"}).encode()
    answer = shared.runtime.invoke_endpoint_async(EndpointName=later, Body=body)
    assert (
        'Received client error (400) from primary with message "no, thanks"'
        in fetch(shared, answer["FailureLocation"]).decode()
    )


def test_asynchronous_requests_wait_for_each_other_and_expire(shared, later, tmp_path):
    go = tmp_path / "go"
    runtime = shared.client("sagemaker-runtime", parameter_validation=False)  # for a time below a minute

    def ask(body, **options):
        return runtime.invoke_endpoint_async(EndpointName=later, Body=json.dumps(body).encode(), **options)

    first = ask({"do": "wait", "path": str(go)})
    shared.until(lambda: f"waiting for {go}" in shared.log(later))
    second = ask({}, RequestTTLSeconds=60)
    third = ask({"do": "wait", "path": str(tmp_path / "never")}, RequestTTLSeconds=1)
    assert b"expired" in fetch(shared, third["FailureLocation"])
    with pytest.raises(ClientError):
        shared.s3.head_object(Bucket="answers", Key=second["OutputLocation"].removeprefix("s3://answers/"))
    go.touch()
    assert fetch(shared, first["OutputLocation"]) == b"waited"
    assert json.loads(fetch(shared, second["OutputLocation"]))["path"] == "/invocations"


def test_what_asynchronous_endpoints_refuse(shared, later):
    with pytest.raises(ClientError, match="is an asynchronous endpoint"):
        shared.invoke(later)
    with pytest.raises(ClientError, match="input location s3://answers/none does not exist"):
        shared.runtime.invoke_endpoint_async(EndpointName=later, InputLocation="s3://answers/none")
    with pytest.raises(ClientError, match="exactly one of Body and InputLocation"):
        shared.runtime.invoke_endpoint_async(EndpointName=later)
    with pytest.raises(ClientError, match="128000"):
        shared.runtime.invoke_endpoint_async(EndpointName=later, Body=b"x" * 128_001)


# Many at once


def test_many_clients_at_once_are_all_answered(shared, endpoint):
    answers = []

    def ask():
        for _ in range(10):
            answers.append(shared.invoke(endpoint)["Body"]["path"])

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == ["/invocations"] * 160
