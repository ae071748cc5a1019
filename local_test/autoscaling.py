"""Application Auto Scaling for the variants of endpoints: recorded, checked as AWS does, and kept between its bounds.

Policies are kept and described, not carried out: nothing here measures a load.
"""

import re
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from local_test.errors import AwsError, ValidationException

if TYPE_CHECKING:
    from local_test.state import State

Body = dict[str, Any]

NAMESPACE, DIMENSION = "sagemaker", "sagemaker:variant:DesiredInstanceCount"
POLICY_TYPES = {
    "TargetTrackingScaling": "TargetTrackingScalingPolicyConfiguration",
    "StepScaling": "StepScalingPolicyConfiguration",
}

_RESOURCE = re.compile(r"endpoint/(?P<endpoint>[^/]+)/variant/(?P<variant>[^/]+)")


def handle(target: str, body: Body, state: "State") -> Body:
    """The answer to an operation of Application Auto Scaling."""
    if target not in _OPERATIONS:
        raise AwsError("UnknownOperationException", f"{target} is not emulated locally")
    if body.get("ServiceNamespace") != NAMESPACE or body.get("ScalableDimension", DIMENSION) != DIMENSION:
        raise ValidationException("Unsupported service namespace, resource type or scalable dimension")
    with state.lock:
        return _OPERATIONS[target](body, state)


def _register(body: Body, state: "State") -> Body:
    key = body["ResourceId"]
    targets = state.scaling.setdefault("targets", {})
    known = targets.get(key, {})
    bounds = {name: body.get(name, known.get(name)) for name in ("MinCapacity", "MaxCapacity")}
    for name, bound in bounds.items():
        if bound is None:
            raise ValidationException(f"{name} must be provided when registering a new scalable target")
    if bounds["MinCapacity"] > bounds["MaxCapacity"]:
        raise ValidationException("Maximum capacity cannot be less than minimum capacity")
    _fit(key, bounds["MinCapacity"], bounds["MaxCapacity"], state)
    arn = known.get("ScalableTargetARN") or _arn(
        state, "application-autoscaling", f"scalable-target/{uuid.uuid4().hex}"
    )
    suspended = {f"{name}Suspended": False for name in ("DynamicScalingIn", "DynamicScalingOut", "ScheduledScaling")}
    targets[key] = {
        "ServiceNamespace": NAMESPACE, "ResourceId": key, "ScalableDimension": DIMENSION, **bounds,
        "RoleARN": body.get("RoleARN", known.get("RoleARN", _role(state))),
        "CreationTime": known.get("CreationTime", time.time()),
        "SuspendedState": known.get("SuspendedState", suspended) | body.get("SuspendedState", {}),
        "ScalableTargetARN": arn,
    }  # fmt: skip
    return {"ScalableTargetARN": arn}


def _fit(resource: str, least: int, most: int, state: "State") -> None:
    """Bring the variant's instances between the bounds; refuse a variant that is not there."""
    found = _RESOURCE.fullmatch(resource)
    try:
        if not found:
            raise KeyError(resource)
        endpoint = state.endpoint(found["endpoint"])
        count = endpoint.count(found["variant"])
    except (KeyError, ValidationException):
        raise ValidationException(f"SageMaker resource doesn't exist: {resource}") from None
    wanted = min(max(count, least), most)
    if wanted != count:
        endpoint.scale(found["variant"], wanted)


def _describe_targets(body: Body, state: "State") -> Body:
    asked = body.get("ResourceIds")
    targets = state.scaling.get("targets", {}).values()
    return {"ScalableTargets": [target for target in targets if not asked or target["ResourceId"] in asked]}


def _deregister(body: Body, state: "State") -> Body:
    key = _registered(body, state)
    del state.scaling["targets"][key]
    policies = state.scaling.get("policies", {})
    state.scaling["policies"] = {id: policy for id, policy in policies.items() if policy["ResourceId"] != key}
    return {}


def _put_policy(body: Body, state: "State") -> Body:
    key = _registered(body, state)
    policies = state.scaling.setdefault("policies", {})
    known = policies.get((key, body["PolicyName"]), {})
    kind = body.get("PolicyType", known.get("PolicyType", "StepScaling"))
    if kind not in POLICY_TYPES:
        raise ValidationException(f"Unsupported policy type {kind}; one of {', '.join(POLICY_TYPES)} is expected")
    configuration = POLICY_TYPES[kind]
    if configuration not in body:
        raise ValidationException(f"{configuration} must be provided for policy type {kind}")
    if kind == "TargetTrackingScaling":
        _check_tracking(body[configuration])
    name = f"scalingPolicy:{uuid.uuid4()}:resource/{NAMESPACE}/{key}:policyName/{body['PolicyName']}"
    arn = known.get("PolicyARN") or _arn(state, "autoscaling", name)
    policies[key, body["PolicyName"]] = {
        "PolicyARN": arn, "PolicyName": body["PolicyName"], "ServiceNamespace": NAMESPACE, "ResourceId": key,
        "ScalableDimension": DIMENSION, "PolicyType": kind, configuration: body[configuration], "Alarms": [],
        "CreationTime": known.get("CreationTime", time.time()),
    }  # fmt: skip
    return {"PolicyARN": arn, "Alarms": []}


def _check_tracking(configuration: Body) -> None:
    specifications = {"PredefinedMetricSpecification", "CustomizedMetricSpecification"}
    if len(specifications & set(configuration)) != 1:
        raise ValidationException(f"Exactly one of {' and '.join(sorted(specifications))} must be provided")


def _describe_policies(body: Body, state: "State") -> Body:
    names, resource = body.get("PolicyNames"), body.get("ResourceId")
    return {
        "ScalingPolicies": [
            policy
            for (key, name), policy in state.scaling.get("policies", {}).items()
            if (not names or name in names) and (not resource or key == resource)
        ]
    }


def _delete_policy(body: Body, state: "State") -> Body:
    policies = state.scaling.get("policies", {})
    if policies.pop((body["ResourceId"], body["PolicyName"]), None) is None:
        raise AwsError("ObjectNotFoundException", f"No scaling policy found for {_described(body)}")
    return {}


def _describe_activities(body: Body, state: "State") -> Body:
    return {"ScalingActivities": []}


def _registered(body: Body, state: "State") -> str:
    key: str = body["ResourceId"]
    if key not in state.scaling.get("targets", {}):
        raise AwsError("ObjectNotFoundException", f"No scalable target registered for {_described(body)}")
    return key


def _described(body: Body) -> str:
    return f"service namespace: {NAMESPACE}, resource ID: {body['ResourceId']}, scalable dimension: {DIMENSION}"


def _arn(state: "State", service: str, name: str) -> str:
    return f"arn:aws:{service}:{state.region}:{state.account}:{name}"


def _role(state: "State") -> str:
    role = "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
    return f"arn:aws:iam::{state.account}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/{role}"


_OPERATIONS: dict[str, Callable[[Body, "State"], Body]] = {
    "RegisterScalableTarget": _register,
    "DescribeScalableTargets": _describe_targets,
    "DeregisterScalableTarget": _deregister,
    "PutScalingPolicy": _put_policy,
    "DescribeScalingPolicies": _describe_policies,
    "DeleteScalingPolicy": _delete_policy,
    "DescribeScalingActivities": _describe_activities,
}
