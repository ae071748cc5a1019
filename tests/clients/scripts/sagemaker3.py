"""Version 3 of the SageMaker Python SDK, as a notebook uses it against AWS."""

import importlib.metadata
import json
import uuid

import boto3
from botocore.exceptions import ClientError
from checks import IMAGE, MODELS, POSITIVE, ROLE, call, labels, raises, say
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.resources import Endpoint, EndpointConfig
from sagemaker.core.shapes import ProductionVariant
from sagemaker.serve import ModelBuilder

say(client="sagemaker, version 3", version=importlib.metadata.version("sagemaker"))

session = Session()
run = f"sdk3-{uuid.uuid4().hex[:8]}"
bucket = session.default_bucket()
data = f"s3://{bucket}/{run}/classifier.tar.gz"
s3 = boto3.client("s3")
s3.upload_file(str(MODELS / "classifier.tar.gz"), bucket, f"{run}/classifier.tar.gz")

with call("ModelBuilder(image_uri, s3_model_data_url).build()"):
    builder = ModelBuilder(image_uri=IMAGE, s3_model_data_url=data, role_arn=ROLE, instance_type="ml.m5.large")
    model = builder.build(model_name=f"{run}-model")
    assert model.model_name == f"{run}-model"

with call("ModelBuilder.deploy()"):
    endpoint = builder.deploy(endpoint_name=run, initial_instance_count=1, instance_type="ml.m5.large")
    assert endpoint.endpoint_status == "InService"

with call("Endpoint.invoke"):
    answer = endpoint.invoke(body=json.dumps(POSITIVE), content_type="application/json", accept="application/json")
    assert labels(answer.body.read()) == ["POSITIVE"]
    assert answer.invoked_production_variant == "AllTraffic"

with call("Endpoint.invoke: a container's error is botocore's ModelError"):
    with raises(ClientError) as error:
        endpoint.invoke(body=b"{", content_type="application/json")
    assert error.value.response["Error"]["Code"] == "ModelError"

with call(
    "Endpoint.invoke_with_response_stream",
    broken="broken in the SDK, which takes the stream apart as if it were an object: boto3 streams",
    shown="'EventStream' object has no attribute 'get'",
):
    endpoint.invoke_with_response_stream(body=json.dumps(POSITIVE), content_type="application/json")

with call(
    "ModelBuilder.deploy(update_endpoint=True)",
    broken="broken in the SDK, which calls itself with an argument it does not know: Endpoint.update updates",
    shown="create_endpoint_config() got an unexpected keyword argument 'model_name'",
):
    builder.deploy(endpoint_name=run, initial_instance_count=1, update_endpoint=True)

with call("EndpointConfig.create, Endpoint.update, Endpoint.get, wait_for_status"):
    variant = ProductionVariant(
        variant_name="AllTraffic", model_name=model.model_name, initial_instance_count=1, instance_type="ml.m5.large"
    )
    EndpointConfig.create(endpoint_config_name=f"{run}-2", production_variants=[variant])
    endpoint.endpoint_config_name = f"{run}-2"
    endpoint.update()
    endpoint.wait_for_status("InService", poll=1)
    assert Endpoint.get(endpoint_name=run).endpoint_config_name == f"{run}-2"

with call("ModelBuilder.transformer, Transformer.transform, wait"):
    s3.put_object(Bucket=bucket, Key=f"{run}/in/one.jsonl", Body=json.dumps(POSITIVE))
    job = builder.transformer(
        instance_count=1, instance_type="ml.m5.large", strategy="MultiRecord", assemble_with="Line",
        accept="application/jsonlines", output_path=f"s3://{bucket}/{run}/out",
    )  # fmt: skip
    job.transform(
        f"s3://{bucket}/{run}/in", content_type="application/jsonlines", split_type="Line", wait=False, logs=False
    )
    job.wait(logs=False)
    stored = s3.get_object(Bucket=bucket, Key=f"{run}/out/one.jsonl.out")["Body"].read()
    assert labels([json.loads(stored)]) == ["POSITIVE"]

with call("Endpoint.delete, wait_for_delete, Model.delete"):
    endpoint.delete()
    endpoint.wait_for_delete(poll=1)
    model.delete()
    with raises(ClientError):
        Endpoint.get(endpoint_name=run)
