"""SageMaker's control plane: an operation is a function from a request to an answer.

What was set is echoed, and nothing else: an SDK takes `{}` for something that is there.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from local_test import artifacts, jobs, names, transform
from local_test.endpoints import Endpoint
from local_test.errors import AwsError, ValidationException
from local_test.state import State

Body = dict[str, Any]


def handle(target: str, body: Body, state: State) -> Body:
    """Answer one operation of the API."""
    operation = _OPERATIONS.get(target)
    if operation is None:
        raise AwsError("UnknownOperationException", f"SageMaker.{target} is not emulated locally")
    try:
        if target == "CreateModel":
            _check_model(state, body)
        with state.lock:
            return operation(state, body)
    except KeyError as error:
        raise ValidationException(
            f"1 validation error detected: Value null at '{error.args[0]}' failed to satisfy constraint: "
            "Member must not be null"
        ) from None


# Models


def _check_model(state: State, body: Body) -> None:
    """What needs no lock, for an engine takes its time to say whether it has an image."""
    names.check("modelName", body["ModelName"])
    if len(body.get("Containers", [])) > 1:
        raise AwsError("UnknownOperationException", "Models of several containers are not emulated locally")
    definition = artifacts.definition(body)
    _check_environment(definition.get("Environment", {}))
    if not state.images.known(definition["Image"]):
        raise ValidationException(
            f"Requested image {definition['Image']} not found. "
            "(Locally, `up --image 'PATTERN=COMMAND'` says what stands for it.)"
        )


def _create_model(state: State, body: Body) -> Body:
    name = body["ModelName"]
    _must_be_new(state, state.models, "model", name, "model")
    container = artifacts.definition(body)
    source = artifacts.source(container)
    comes_later = container.get("Mode") == "MultiModel"
    if source and not comes_later and not artifacts.is_there(state.store, *source):
        raise ValidationException(f"Could not find model data at {source[0]}.")
    return _add(state, state.models, "model", name, body, "ModelArn")


def _check_environment(variables: dict[str, str]) -> None:
    wrong = [name for name in variables if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name)]
    long = [name for name, value in variables.items() if len(value) > 1024]
    if wrong:
        raise ValidationException(
            f"1 validation error detected: Map key '{wrong[0]}' at 'primaryContainer.environment' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: [a-zA-Z_][a-zA-Z0-9_]*"
        )
    if long:
        raise ValidationException(
            f"1 validation error detected: Map value at 'primaryContainer.environment.{long[0]}' failed to satisfy "
            "constraint: Member must have length less than or equal to 1024"
        )


def _describe_model(state: State, body: Body) -> Body:
    return _without_tags(state.describe_model(body["ModelName"]))


def _delete_model(state: State, body: Body) -> Body:
    state.describe_model(body["ModelName"])
    del state.models[body["ModelName"]]
    return {}


def _list_models(state: State, body: Body) -> Body:
    return _page("Models", state.models.values(), ("ModelName", "ModelArn", "CreationTime"), body)


# Endpoint configurations


def _create_config(state: State, body: Body) -> Body:
    name = body["EndpointConfigName"]
    names.check("endpointConfigName", name)
    _must_be_new(state, state.configs, "endpoint-config", name, "endpoint configuration")
    for i, variant in enumerate(body["ProductionVariants"], 1):
        names.check(f"productionVariants.{i}.member.variantName", variant["VariantName"])
        state.describe_model(variant["ModelName"])
        if "ServerlessConfig" not in variant:
            _check_instances(i, variant)
    return _add(state, state.configs, "endpoint-config", name, body, "EndpointConfigArn")


def _check_instances(number: int, variant: Body) -> None:
    if not variant.get("InstanceType", "ml.").startswith("ml."):
        raise ValidationException(
            f"1 validation error detected: Value '{variant['InstanceType']}' at 'productionVariants.{number}.member."
            "instanceType' failed to satisfy constraint: Member must satisfy enum value set"
        )
    if variant.get("InitialInstanceCount", 1) < 1 and "ManagedInstanceScaling" not in variant:
        raise ValidationException(
            f"1 validation error detected: Value '{variant['InitialInstanceCount']}' at 'productionVariants.{number}."
            "member.initialInstanceCount' failed to satisfy constraint: Member must have value greater than or equal "
            "to 1"
        )


def _describe_config(state: State, body: Body) -> Body:
    return _without_tags(state.config(body["EndpointConfigName"]))


def _delete_config(state: State, body: Body) -> Body:
    state.config(body["EndpointConfigName"])
    del state.configs[body["EndpointConfigName"]]
    return {}


def _list_configs(state: State, body: Body) -> Body:
    told = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
    return _page("EndpointConfigs", state.configs.values(), told, body)


# Endpoints


def _create_endpoint(state: State, body: Body) -> Body:
    name = body["EndpointName"]
    names.check("endpointName", name)
    _must_be_new(state, state.endpoints, "endpoint", name, "endpoint")
    endpoint = Endpoint(state, name, state.config(body["EndpointConfigName"]))
    state.endpoints[name] = endpoint
    arn = names.arn("endpoint", name, state.region)
    _tag(state, arn, body)
    endpoint.create()
    return {"EndpointArn": arn}


def _describe_endpoint(state: State, body: Body) -> Body:
    return state.endpoint(body["EndpointName"]).describe()


def _list_endpoints(state: State, body: Body) -> Body:
    told = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
    wanted = body.get("StatusEquals")
    described = [endpoint.describe() for endpoint in state.endpoints.values()]
    return _page("Endpoints", [one for one in described if wanted in (None, one["EndpointStatus"])], told, body)


def _update_endpoint(state: State, body: Body) -> Body:
    endpoint = _settled(state, body)
    config = state.config(body["EndpointConfigName"])
    kept = {}
    if body.get("RetainAllVariantProperties"):
        kept = {name: (variant.weight, variant.wanted) for name, variant in endpoint.variants.items()}
    endpoint.update(config, kept)
    return {"EndpointArn": names.arn("endpoint", endpoint.name, state.region)}


def _reweight(state: State, body: Body) -> Body:
    endpoint = _settled(state, body)
    wanted = body["DesiredWeightsAndCapacities"]
    for one in wanted:
        if one["VariantName"] not in endpoint.variants:
            raise ValidationException(f'Could not find variant "{one["VariantName"]}" of endpoint "{endpoint.name}".')
    for one in wanted:
        if "DesiredWeight" in one:
            endpoint.reweight(one["VariantName"], one["DesiredWeight"])
    endpoint.resize(
        {one["VariantName"]: one["DesiredInstanceCount"] for one in wanted if "DesiredInstanceCount" in one}
    )
    return {"EndpointArn": names.arn("endpoint", endpoint.name, state.region)}


def _delete_endpoint(state: State, body: Body) -> Body:
    endpoint = state.endpoint(body["EndpointName"])
    if endpoint.status != "Deleting":
        endpoint.delete()
        state.tags.pop(names.arn("endpoint", endpoint.name, state.region), None)
    return {}


def _settled(state: State, body: Body) -> Endpoint:
    endpoint = state.endpoint(body["EndpointName"])
    arn = names.arn("endpoint", endpoint.name, state.region)
    if endpoint.status == "Failed":
        raise ValidationException(f'Cannot update endpoint "{arn}" in Failed state; only DeleteEndpoint is possible.')
    if endpoint.status != "InService":
        raise ValidationException(f'Cannot update in-progress endpoint "{arn}".')
    return endpoint


# Batch transform


def _create_job(state: State, body: Body) -> Body:
    name = body["TransformJobName"]
    names.check("transformJobName", name)
    if name in state.transform_jobs:
        raise AwsError(
            "ResourceInUse", f"Job name must be unique within an AWS account and region, and {name} is used."
        )
    model = state.describe_model(body["ModelName"])
    transform.check(body)
    arn = names.arn("transform-job", name, state.region)
    now = time.time()
    told = {
        **body, "TransformJobArn": arn, "TransformJobStatus": "InProgress", "CreationTime": now,
        "TransformStartTime": now,
    }  # fmt: skip
    state.transform_jobs[name] = told
    _tag(state, arn, body)
    jobs.Job(state, told, model).start()
    return {"TransformJobArn": arn}


def _describe_job(state: State, body: Body) -> Body:
    return _without_tags(state.transform_job(body["TransformJobName"]))


def _list_jobs(state: State, body: Body) -> Body:
    told = (
        "TransformJobName",
        "TransformJobArn",
        "CreationTime",
        "TransformEndTime",
        "TransformJobStatus",
        "FailureReason",
    )
    return _page("TransformJobSummaries", state.transform_jobs.values(), told, body)


def _stop_job(state: State, body: Body) -> Body:
    job = state.transform_job(body["TransformJobName"])
    if job["TransformJobStatus"] != "InProgress":
        raise ValidationException(
            f"The request was rejected because the transform job is in status {job['TransformJobStatus']}."
        )
    job["TransformJobStatus"] = "Stopping"
    return {}


# Tags


def _add_tags(state: State, body: Body) -> Body:
    _tag(state, body["ResourceArn"], body)
    return _list_tags(state, body)


def _list_tags(state: State, body: Body) -> Body:
    return {"Tags": [{"Key": key, "Value": value} for key, value in state.tags.get(body["ResourceArn"], {}).items()]}


def _delete_tags(state: State, body: Body) -> Body:
    for key in body["TagKeys"]:
        state.tags.get(body["ResourceArn"], {}).pop(key, None)
    return {}


# Shared


def _must_be_new(state: State, things: dict[str, Any], kind: str, name: str, called: str) -> None:
    if name in things:
        raise ValidationException(f'Cannot create already existing {called} "{names.arn(kind, name, state.region)}".')


def _add(state: State, things: dict[str, Body], kind: str, name: str, body: Body, arn_member: str) -> Body:
    arn = names.arn(kind, name, state.region)
    things[name] = {**body, arn_member: arn, "CreationTime": time.time()}
    _tag(state, arn, body)
    return {arn_member: arn}


def _tag(state: State, arn: str, body: Body) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in body.get("Tags") or []}
    state.tags.setdefault(arn, {}).update(tags)


def _without_tags(thing: Body) -> Body:
    return {key: value for key, value in thing.items() if key != "Tags"}


def _page(member: str, things: Any, told: tuple[str, ...], body: Body) -> Body:
    wanted = body.get("NameContains", "")
    found = [thing for thing in things if wanted in thing[told[0]]]
    newest = body.get("SortOrder", "Descending") == "Descending"
    found.sort(key=lambda thing: thing["CreationTime"], reverse=newest)
    start, most = int(body.get("NextToken") or 0), body.get("MaxResults", 100)
    shown = [{key: thing[key] for key in told if key in thing} for thing in found[start : start + most]]
    more = {"NextToken": str(start + most)} if len(found) > start + most else {}
    return {member: shown, **more}


_OPERATIONS: dict[str, Callable[[State, Body], Body]] = {
    "CreateModel": _create_model,
    "DescribeModel": _describe_model,
    "DeleteModel": _delete_model,
    "ListModels": _list_models,
    "CreateEndpointConfig": _create_config,
    "DescribeEndpointConfig": _describe_config,
    "DeleteEndpointConfig": _delete_config,
    "ListEndpointConfigs": _list_configs,
    "CreateEndpoint": _create_endpoint,
    "DescribeEndpoint": _describe_endpoint,
    "ListEndpoints": _list_endpoints,
    "UpdateEndpoint": _update_endpoint,
    "UpdateEndpointWeightsAndCapacities": _reweight,
    "DeleteEndpoint": _delete_endpoint,
    "CreateTransformJob": _create_job,
    "DescribeTransformJob": _describe_job,
    "ListTransformJobs": _list_jobs,
    "StopTransformJob": _stop_job,
    "AddTags": _add_tags,
    "ListTags": _list_tags,
    "DeleteTags": _delete_tags,
}
