"""Update an endpoint with a canary: a little traffic first, and back to the old model when an alarm goes off."""

import argparse
from collections.abc import Sequence
from typing import Any

import common


def main(argv: Sequence[str] | None = None) -> None:
    """python update_canary.py NAME --model-data s3://…/model.tar.gz; what is not given stays as it is."""
    given = parsed(argv)
    sagemaker = common.client("sagemaker")
    told = sagemaker.describe_endpoint(EndpointName=given.name)
    old, count = told["EndpointConfigName"], told["ProductionVariants"][0]["CurrentInstanceCount"]
    config = sagemaker.describe_endpoint_config(EndpointConfigName=old)
    [variant] = config["ProductionVariants"]
    made = common.stamped(given.name)
    variant = {**variant, "ModelName": _next_model(made, variant["ModelName"], given)}
    kept = {name: config[name] for name in ("AsyncInferenceConfig", "DataCaptureConfig") if name in config}
    sagemaker.create_endpoint_config(
        EndpointConfigName=made, ProductionVariants=[{**variant, "InitialInstanceCount": count}], **kept
    )
    sagemaker.update_endpoint(
        EndpointName=given.name, EndpointConfigName=made,
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": routing(count, given),
                "TerminationWaitInSeconds": 120, "MaximumExecutionTimeoutInSeconds": given.wait + 3600,
            },
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in _alarms(given)]},
        },
    )  # fmt: skip
    print(f"{given.name}: being updated from {old} to {made}", flush=True)
    if common.settle(given.name)["EndpointConfigName"] != made:
        raise SystemExit(f"{given.name}: an alarm went off; it is {old} again")


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = common.parser(__doc__)
    common.add_model(parser, needed=False)
    parser.add_argument("--percent", type=int, default=10, help="of the instances that the canary has")
    parser.add_argument("--wait", type=int, default=600, help="seconds that the canary is watched")
    parser.add_argument("--errors", type=float, default=1.0, help="5XX answers a minute that end it")
    parser.add_argument("--latency", type=float, help="milliseconds of the model, 99th percentile, that end it")
    return parser.parse_args(argv)


def _next_model(name: str, old: str, given: argparse.Namespace) -> str:
    """The model as it was, with what is given in its place."""
    told = common.client("sagemaker").describe_model(ModelName=old)
    definition = dict(told["PrimaryContainer"])
    if given.image:
        definition["Image"] = given.image
    if given.model_data:
        for place in ("ModelDataUrl", "ModelDataSource"):
            definition.pop(place, None)
        definition |= common.files(given.model_data)
    definition["Environment"] = {
        **definition.get("Environment", {}), **dict(pair.split("=", 1) for pair in given.env),
    }  # fmt: skip
    return common.create_model(name, given.role or told["ExecutionRoleArn"], definition)


def routing(count: int, given: argparse.Namespace) -> dict[str, Any]:
    """A canary has half of the instances at most: of one there is none, and all of it is watched."""
    if count < 2:
        return {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": given.wait}
    size = {"Type": "CAPACITY_PERCENT", "Value": given.percent}
    return {"Type": "CANARY", "WaitIntervalInSeconds": given.wait, "CanarySize": size}


def _alarms(given: argparse.Namespace) -> list[str]:
    above = {"ComparisonOperator": "GreaterThanOrEqualToThreshold"}
    names = [
        common.alarm(
            f"{given.name}-5xx", given.name, "Invocation5XXErrors", Statistic="Sum", Threshold=given.errors, **above
        )
    ]
    if given.latency:
        slow = {"ExtendedStatistic": "p99", "Threshold": given.latency * 1000, "EvaluationPeriods": 3}
        names.append(common.alarm(f"{given.name}-latency", given.name, "ModelLatency", **slow, **above))
    return names


if __name__ == "__main__":
    main()
