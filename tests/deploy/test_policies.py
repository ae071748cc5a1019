"""The policies of deploy/sagemaker allow what is used, and no more."""

import ast
import json
import re
from pathlib import Path
from string import Template

import boto3
import pytest
from policy_sentry.querying.actions import get_action_data

DEPLOY = Path(__file__).parents[2] / "deploy" / "sagemaker"
NAMES = {
    "region": "us-east-1", "account": "111122223333", "bucket": "models", "repository": "hfserve", "name": "reviews",
    "role": "arn:aws:iam::111122223333:role/hfserve",
}  # fmt: skip
POLICIES = sorted(path.stem for path in (DEPLOY / "policies").glob("*.json"))
WAITED = {
    "endpoint_deleted": "sagemaker:DescribeEndpoint",
    "transform_job_completed_or_stopped": "sagemaker:DescribeTransformJob",
}
PAGED = {"list_models": "sagemaker:ListModels", "list_endpoint_configs": "sagemaker:ListEndpointConfigs"}
SERVICES = ("sagemaker", "application-autoscaling", "cloudwatch")


def policy(name):
    return json.loads(Template((DEPLOY / "policies" / f"{name}.json").read_text()).substitute(NAMES))


def actions(name):
    return {action for statement in policy(name)["Statement"] for action in statement["Action"]}


def called():
    """The actions of what the scripts call."""
    operations = {}
    for service in SERVICES:
        client = boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        operations |= {python: f"{service}:{aws}" for python, aws in client.meta.method_to_api_mapping.items()}
    for path in DEPLOY.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in operations:
                yield operations[node.attr]
            if isinstance(node, ast.Constant) and (known := (WAITED | PAGED).get(node.value)):
                yield known


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "trust"])
def test_every_action_is_one_of_iam_and_takes_its_resources_and_conditions(name):
    for statement in policy(name)["Statement"]:
        keys = {key for test in statement.get("Condition", {}).values() for key in test}
        fitting = set()
        for action in statement["Action"]:
            service, _, verb = action.partition(":")
            forms = get_action_data(service, verb).get(service, [])
            assert forms, f"{action} is no action of IAM"
            assert keys <= {key for form in forms for key in form["condition_keys"]}, action
            fits = {arn for arn in statement["Resource"] for form in forms if _fits(arn, form["resource_arn_format"])}
            assert fits, f"{action} takes none of {statement['Resource']}"
            fitting |= fits
        assert fitting == set(statement["Resource"]), "a resource that none of the actions takes"


def _fits(arn, form):
    """Whether an ARN has the form that an action takes, such as arn:${Partition}:s3:::${BucketName}."""
    pattern = re.sub(r"\\\$\\\{\w+\\\}", ".*", re.escape(form))
    return arn == form or (form != "*" and bool(re.fullmatch(pattern, arn)))


def test_the_scripts_may_do_what_they_do_and_nothing_else():
    # What SageMaker and Application Auto Scaling ask of the caller while they do it.
    beside = {
        "sagemaker:AddTags",
        "sagemaker:DeleteModel",
        "sagemaker:DeleteEndpointConfig",
        "iam:PassRole",
        "iam:CreateServiceLinkedRole",
        "cloudwatch:DescribeAlarms",
        "sagemaker:UpdateEndpointWeightsAndCapacities",
    }
    assert actions("deploy") - beside == set(called()) - beside


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_has_wildcards_for_actions_or_for_what_can_be_named(name):
    unnamed = {
        "ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "application-autoscaling:DescribeScalableTargets",
        "sagemaker:ListModels", "sagemaker:ListEndpointConfigs",
    }  # fmt: skip
    for statement in policy(name)["Statement"]:
        action = statement["Action"]
        assert "*" not in str(action)
        assert statement.get("Resource") != ["*"] or unnamed.issuperset(action)


def test_only_sagemaker_of_this_account_takes_the_role_and_only_it_is_handed_over():
    [trusted] = policy("trust")["Statement"]
    assert trusted["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert trusted["Condition"] == {"StringEquals": {"aws:SourceAccount": NAMES["account"]}}
    [passing] = [s for s in policy("deploy")["Statement"] if s["Action"] == ["iam:PassRole"]]
    assert passing["Resource"] == [NAMES["role"]]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
