"""Create an asynchronous endpoint: inputs from S3 up to 1 GB, up to an hour each, no instances while nothing waits."""

from collections.abc import Sequence

import common

HOUR = {"HFSERVE_TIMEOUT": "3600", "HFSERVE_MAX_BODY": str(1 << 30)}
"""What the container is not told by itself."""


def main(argv: Sequence[str] | None = None) -> None:
    """python async_endpoint.py NAME --image … --model-data … --role … --output s3://bucket/answers/."""
    parser = common.parser(__doc__)
    common.add_model(parser)
    parser.add_argument("--output", required=True, help="s3://… where answers go; failures go to its failed/")
    parser.add_argument("--instance-type", default="ml.g4dn.xlarge")
    parser.add_argument("--concurrent", type=int, default=4, help="requests that an instance is sent at once")
    parser.add_argument("--max", type=int, default=0, help="scale from no instance to so many; 0: always one")
    given = parser.parse_args(argv)
    made, place = common.stamped(given.name), given.output.rstrip("/")
    model = common.create_model(made, given.role, common.container(given, **HOUR))
    common.create_endpoint(
        given.name, made, common.on_instances(model, given.instance_type, 1),
        AsyncInferenceConfig={
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": given.concurrent},
            "OutputConfig": {"S3OutputPath": place, "S3FailurePath": f"{place}/failed"},
        },
    )  # fmt: skip
    if given.max:
        scale(given.name, given.max, given.concurrent)


def scale(endpoint: str, most: int, concurrent: int) -> None:
    """By what waits for each instance; the first of them comes when anything waits."""
    resource, scaling = common.resource(endpoint), common.client("application-autoscaling")
    scaling.register_scalable_target(**resource, MinCapacity=0, MaxCapacity=most)
    scaling.put_scaling_policy(
        **resource, PolicyName=f"{endpoint}-backlog", PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": float(concurrent), "ScaleOutCooldown": 60, "ScaleInCooldown": 600,
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance", "Namespace": "AWS/SageMaker",
                "Dimensions": [{"Name": "EndpointName", "Value": endpoint}], "Statistic": "Average",
            },
        },
    )  # fmt: skip
    first = scaling.put_scaling_policy(
        **resource, PolicyName=f"{endpoint}-first", PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ExactCapacity", "MetricAggregationType": "Average", "Cooldown": 300,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
        },
    )  # fmt: skip
    common.alarm(
        f"{endpoint}-waiting", endpoint, "HasBacklogWithoutCapacity", Dimensions={"EndpointName": endpoint},
        Statistic="Average", Threshold=1.0, ComparisonOperator="GreaterThanOrEqualToThreshold", EvaluationPeriods=2,
        AlarmActions=[first["PolicyARN"]],
    )  # fmt: skip
    print(f"{endpoint}: 0 to {most} instances, by what waits")


if __name__ == "__main__":
    main()
