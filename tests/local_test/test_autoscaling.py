"""Application Auto Scaling: what is registered is described again, and an endpoint is kept between its bounds."""

import threading

import pytest
from local_test.autoscaling import DIMENSION, handle
from local_test.errors import AwsError, ValidationException

RESOURCE = "endpoint/one/variant/AllTraffic"
TARGET = {"ServiceNamespace": "sagemaker", "ResourceId": RESOURCE, "ScalableDimension": DIMENSION}
TRACKING = {"TargetValue": 70.0, "PredefinedMetricSpecification": {"PredefinedMetricType": "X"}}
POLICY = {
    **TARGET, "PolicyName": "busy", "PolicyType": "TargetTrackingScaling",
    "TargetTrackingScalingPolicyConfiguration": TRACKING,
}  # fmt: skip


class OneEndpoint:
    """A state with one endpoint, of one variant with one instance."""

    region, account = "us-east-1", "111122223333"

    def __init__(self):
        self.lock, self.scaling, self.counts = threading.RLock(), {}, {"AllTraffic": 1}

    def endpoint(self, name):
        if name != "one":
            raise ValidationException(f"Could not find endpoint {name}")
        return self

    def count(self, variant):
        return self.counts[variant]

    def scale(self, variant, count):
        self.counts[variant] = count


@pytest.fixture
def state():
    return OneEndpoint()


def register(state, **members):
    return handle("RegisterScalableTarget", TARGET | {"MinCapacity": 1, "MaxCapacity": 4} | members, state)


def test_a_target_is_described_as_it_was_registered(state):
    arn = register(state)["ScalableTargetARN"]
    (found,) = handle("DescribeScalableTargets", {"ServiceNamespace": "sagemaker"}, state)["ScalableTargets"]
    assert (found["ScalableTargetARN"], found["MinCapacity"], found["MaxCapacity"]) == (arn, 1, 4)
    asked = {"ServiceNamespace": "sagemaker", "ResourceIds": ["endpoint/two/variant/AllTraffic"]}
    assert handle("DescribeScalableTargets", asked, state) == {"ScalableTargets": []}


def test_an_endpoint_is_brought_between_its_bounds(state):
    register(state, MinCapacity=2)
    assert state.counts == {"AllTraffic": 2}
    register(state, MinCapacity=0, MaxCapacity=1)
    assert state.counts == {"AllTraffic": 1}


def test_what_is_registered_again_keeps_what_is_not_said(state):
    arn = register(state)["ScalableTargetARN"]
    again = handle("RegisterScalableTarget", TARGET | {"MaxCapacity": 9}, state)
    (found,) = handle("DescribeScalableTargets", TARGET, state)["ScalableTargets"]
    assert again["ScalableTargetARN"] == arn
    assert (found["MinCapacity"], found["MaxCapacity"]) == (1, 9)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"MinCapacity": 5}, "Maximum capacity cannot be less than minimum capacity"),
        ({"MinCapacity": None}, "MinCapacity must be provided"),
        ({"ResourceId": "endpoint/two/variant/AllTraffic"}, "doesn't exist"),
        ({"ResourceId": "endpoint/one/variant/Other"}, "doesn't exist"),
        ({"ResourceId": "one"}, "doesn't exist"),
        ({"ServiceNamespace": "ecs"}, "Unsupported service namespace"),
        ({"ScalableDimension": "ecs:service:DesiredCount"}, "Unsupported service namespace"),
    ],
)
def test_what_cannot_be_registered_is_refused(state, members, words):
    with pytest.raises(ValidationException, match=words):
        register(state, **members)


def test_a_policy_lives_and_dies_with_its_target(state):
    with pytest.raises(AwsError, match="No scalable target registered") as error:
        handle("PutScalingPolicy", POLICY, state)
    assert error.value.code == "ObjectNotFoundException"
    register(state)
    put = handle("PutScalingPolicy", POLICY, state)
    assert handle("PutScalingPolicy", POLICY, state) == put
    (found,) = handle("DescribeScalingPolicies", {"ServiceNamespace": "sagemaker"}, state)["ScalingPolicies"]
    assert found["PolicyARN"] == put["PolicyARN"]
    assert found["TargetTrackingScalingPolicyConfiguration"] == TRACKING
    handle("DeregisterScalableTarget", TARGET, state)
    assert handle("DescribeScalingPolicies", TARGET, state) == {"ScalingPolicies": []}


def test_a_policy_is_deleted_once(state):
    register(state)
    handle("PutScalingPolicy", POLICY, state)
    handle("DeleteScalingPolicy", POLICY, state)
    with pytest.raises(AwsError, match="No scaling policy found"):
        handle("DeleteScalingPolicy", POLICY, state)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"PolicyType": "Guessing"}, "Unsupported policy type"),
        ({"PolicyType": "StepScaling"}, "StepScalingPolicyConfiguration must be provided"),
        ({"TargetTrackingScalingPolicyConfiguration": {"TargetValue": 1.0}}, "Exactly one of"),
    ],
)
def test_a_policy_that_says_too_little_is_refused(state, members, words):
    register(state)
    with pytest.raises(ValidationException, match=words):
        handle("PutScalingPolicy", POLICY | members, state)


def test_other_operations_are_said_to_be_unknown(state):
    with pytest.raises(AwsError, match="not emulated") as error:
        handle("PutScheduledAction", TARGET, state)
    assert error.value.code == "UnknownOperationException"
