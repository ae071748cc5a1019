"""Scale an endpoint by target tracking on the concurrent requests per model, measured every ten seconds."""

from collections.abc import Sequence

import common


def main(argv: Sequence[str] | None = None) -> None:
    """python autoscale.py NAME --min 1 --max 4 --concurrent 16."""
    parser = common.parser(__doc__)
    parser.add_argument("--min", type=int, default=1)
    parser.add_argument("--max", type=int, default=4)
    parser.add_argument(
        "--concurrent", type=float, default=16.0,
        help="requests under way for each copy of the model; `hfserve bench` says how many it answers in time",
    )  # fmt: skip
    given = parser.parse_args(argv)
    resource = common.resource(given.name)
    scaling = common.client("application-autoscaling")
    scaling.register_scalable_target(**resource, MinCapacity=given.min, MaxCapacity=given.max)
    scaling.put_scaling_policy(
        **resource, PolicyName=f"{given.name}-concurrency", PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": given.concurrent, "ScaleOutCooldown": 60, "ScaleInCooldown": 300,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution",
            },
        },
    )  # fmt: skip
    print(f"{given.name}: {given.min} to {given.max} instances, {given.concurrent:g} requests at once for each model")


if __name__ == "__main__":
    main()
