"""Version 2 of the SageMaker Python SDK, as a notebook uses it against AWS."""

import json
import os
import uuid
from pathlib import Path

os.environ["SAGEMAKER_SUPPRESS_V2_WARNING"] = "1"

import numpy as np
import sagemaker
from botocore.exceptions import ClientError
from checks import IMAGE, MODELS, NEGATIVE, POSITIVE, call, labels, raises, say, until
from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.deserializers import CSVDeserializer, JSONDeserializer, NumpyDeserializer
from sagemaker.huggingface import HuggingFaceModel
from sagemaker.iterators import LineIterator
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer, DataSerializer, IdentitySerializer, JSONSerializer, NumpySerializer

say(client="sagemaker, version 2", version=sagemaker.__version__)

session = sagemaker.Session()
bucket = session.default_bucket()
run = f"sdk2-{uuid.uuid4().hex[:8]}"
MACHINE = {"initial_instance_count": 1, "instance_type": "ml.m5.large"}


def model_of(name, **more):
    data = session.upload_data(str(MODELS / f"{name}.tar.gz"), bucket, f"{run}/models")
    return HuggingFaceModel(image_uri=IMAGE, model_data=data, sagemaker_session=session, **more)


def in_service(predictor):
    """Ask more often than the SDK's 30 seconds."""

    def status():
        told = session.sagemaker_client.describe_endpoint(EndpointName=predictor.endpoint_name)
        assert told["EndpointStatus"] != "Failed", told
        return told["EndpointStatus"] == "InService"

    until(status, predictor.endpoint_name)


with call("MultiDataModel(model_data_prefix, model).deploy(), add_model, list_models"):
    many = MultiDataModel(f"{run}-many", f"s3://{bucket}/{run}/many/", model=model_of("classifier"))
    many.add_model(str(MODELS / "classifier.tar.gz"))
    shared = many.deploy(**MACHINE, serializer=JSONSerializer(), deserializer=JSONDeserializer(), wait=False)
    many.add_model(str(MODELS / "seer.tar.gz"))
    assert list(many.list_models()) == ["classifier.tar.gz", "seer.tar.gz"]

with call("HuggingFaceModel.deploy(async_inference_config, wait=False)"):
    output, failure = f"s3://{bucket}/{run}/done", f"s3://{bucket}/{run}/failed"
    later = model_of("classifier").deploy(
        **MACHINE, async_inference_config=AsyncInferenceConfig(output_path=output, failure_path=failure), wait=False
    )

with call("HuggingFaceModel(image_uri, model_data).deploy(): role omitted, waited for"):
    writer = model_of("writer").deploy(**MACHINE)

with call("Predictor.predict: JSON"):
    body = {"inputs": "Once upon", "parameters": {"max_new_tokens": 3, "do_sample": False}}
    once = writer.predict(body)
    assert once[0]["generated_text"] and writer.predict(body) == once

with call("Predictor.predict_stream, LineIterator"):
    body["parameters"]["max_new_tokens"] = 5
    lines = list(writer.predict_stream(body | {"stream": True}, iterator=LineIterator))
    assert len(lines) >= 5, lines

with call("Predictor.predict: a container's error is botocore's ModelError"):
    with raises(ClientError) as error:
        writer.predict({"inputs": 3})
    assert error.value.response["Error"]["Code"] == "ModelError"
    assert error.value.response["OriginalStatusCode"] == 422

with call("HuggingFaceModel(entry_point, source_dir).create: repacked; Predictor.update_endpoint(model_name)"):
    code = str(Path(__file__).parent / "numbers_code")
    numbers = model_of("writer", entry_point="inference.py", source_dir=code)
    numbers.create(instance_type=MACHINE["instance_type"])
    writer.update_endpoint(**MACHINE, model_name=numbers.name, wait=False)
    in_service(writer)

with call("Predictor.predict: NumpySerializer, NumpyDeserializer"):
    arrays = Predictor(writer.endpoint_name, session, NumpySerializer(), NumpyDeserializer())
    asked = np.arange(6, dtype="float32").reshape(2, 3)
    assert (arrays.predict(asked) == asked * 2).all()

with call("Predictor.predict(target_model): JSONSerializer, JSONDeserializer"):
    in_service(shared)
    assert labels(shared.predict(POSITIVE, target_model="classifier.tar.gz")) == ["POSITIVE"]

with call("Predictor.predict(target_model): CSVSerializer, CSVDeserializer"):
    tables = Predictor(shared.endpoint_name, session, CSVSerializer(), CSVDeserializer())
    rows = tables.predict([["inputs"], ["I love this"], ["I hate this"]], target_model="classifier.tar.gz")
    assert [row[0] for row in rows] == ["label", "POSITIVE", "NEGATIVE"], rows

with call("Predictor.predict(target_model): an image, IdentitySerializer and DataSerializer"):
    picture = MODELS / "cat.png"
    pictures = Predictor(shared.endpoint_name, session, IdentitySerializer("image/png"), JSONDeserializer())
    seen = pictures.predict(picture.read_bytes(), target_model="seer.tar.gz")
    assert seen[0]["label"] and 0 < seen[0]["score"] <= 1
    pictures.serializer = DataSerializer("image/png")
    assert pictures.predict(str(picture), target_model="seer.tar.gz") == seen

with call("Predictor.predict(target_model): a model that is not there is botocore's ValidationError"):
    with raises(ClientError) as error:
        shared.predict(POSITIVE, target_model="none.tar.gz")
    assert error.value.response["Error"]["Code"] == "ValidationError"
    assert "Failed to download model data" in error.value.response["Error"]["Message"]

with call("AsyncPredictor.predict, predict_async"):
    in_service(later)
    often = WaiterConfig(max_attempts=150, delay=1)
    assert labels(later.predict(NEGATIVE, waiter_config=often)) == ["NEGATIVE"]
    answer = later.predict_async(POSITIVE)
    assert labels(answer.get_result(often)) == ["POSITIVE"]
    assert answer.output_path.startswith(output)

with call("Transformer.transform, wait"):
    classifier = model_of("classifier")
    classifier.create(instance_type=MACHINE["instance_type"])
    job = classifier.transformer(
        1, MACHINE["instance_type"], strategy="MultiRecord", assemble_with="Line", accept="application/jsonlines",
        output_path=f"s3://{bucket}/{run}/out",
    )  # fmt: skip
    lines = "\n".join(map(json.dumps, (POSITIVE, NEGATIVE, POSITIVE)))
    session.upload_string_as_file_body(lines, bucket, f"{run}/in/one.jsonl")
    job.transform(
        f"s3://{bucket}/{run}/in", content_type="application/jsonlines", split_type="Line", wait=False, logs=False
    )
    job.wait(logs=False)
    stored = session.read_s3_file(bucket, f"{run}/out/one.jsonl.out")
    assert labels(map(json.loads, stored.splitlines())) == ["POSITIVE", "NEGATIVE", "POSITIVE"]

with call("Predictor.delete_model, delete_endpoint"):
    writer.delete_model()
    for predictor in (writer, later, shared):
        predictor.delete_endpoint()
    ours = {writer.endpoint_name, later.endpoint_name, shared.endpoint_name}

    def gone():
        listed = session.sagemaker_client.list_endpoints()["Endpoints"]
        return not ours & {one["EndpointName"] for one in listed}

    until(gone, "the end of the endpoints")

# AsyncPredictor.predict leaves a thread that goes on waiting for a failure.
os._exit(0)
