"""Delete an endpoint and all that these scripts made for it: scaling, alarms, configurations, models."""

import re
from collections.abc import Sequence
from typing import Any

import common
from botocore.exceptions import ClientError


def main(argv: Sequence[str] | None = None) -> None:
    """python teardown.py NAME."""
    given = common.parser(__doc__).parse_args(argv)
    sagemaker, scaling = common.client("sagemaker"), common.client("application-autoscaling")
    resource = common.resource(given.name)
    targets = scaling.describe_scalable_targets(
        ServiceNamespace=resource["ServiceNamespace"], ResourceIds=[resource["ResourceId"]]
    )
    if targets["ScalableTargets"]:
        scaling.deregister_scalable_target(**resource)
        print(f"{given.name}: scales no more")
    try:
        sagemaker.delete_endpoint(EndpointName=given.name)
        sagemaker.get_waiter("endpoint_deleted").wait(
            EndpointName=given.name, WaiterConfig={"Delay": common.PAUSE_S, "MaxAttempts": 360}
        )
        print(f"{given.name}: deleted")
    except ClientError as error:
        if "Could not find" not in str(error):
            raise
        print(f"{given.name}: there is no such endpoint")
    for kind in ("EndpointConfig", "Model"):
        for name in _made(sagemaker, kind, given.name):
            getattr(sagemaker, f"delete_{'endpoint_config' if kind == 'EndpointConfig' else 'model'}")(
                **{f"{kind}Name": name}
            )
            print(f"{name}: {kind} deleted")
    names = [f"{given.name}-{each}" for each in common.ALARMS]
    common.client("cloudwatch").delete_alarms(AlarmNames=names)
    print(f"{', '.join(names)}: alarms deleted, where they were")


def _made(sagemaker: Any, kind: str, endpoint: str) -> list[str]:
    """The names of what the scripts made for the endpoint."""
    pages = sagemaker.get_paginator("list_endpoint_configs" if kind == "EndpointConfig" else "list_models")
    found = (each[f"{kind}Name"] for page in pages.paginate(NameContains=f"{endpoint}-") for each in page[f"{kind}s"])
    return [name for name in found if re.fullmatch(rf"{re.escape(endpoint)}-\d{{8}}-\d{{6}}", name)]


if __name__ == "__main__":
    main()
