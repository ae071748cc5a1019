"""Run a transform job: every line below a prefix is a request, and gets a line in the output."""

from collections.abc import Sequence

import common
from botocore.exceptions import WaiterError


def main(argv: Sequence[str] | None = None) -> None:
    """python transform.py NAME --image … --model-data … --role … --input s3://…/in/ --output s3://…/out/."""
    parser = common.parser(__doc__)
    common.add_model(parser)
    parser.add_argument("--input", required=True, help="s3://… prefix of files of JSON Lines or CSV")
    parser.add_argument("--output", required=True, help="s3://… prefix of the answers, each file with .out added")
    parser.add_argument("--content-type", default="application/jsonlines")
    parser.add_argument("--instance-type", default="ml.g4dn.xlarge")
    parser.add_argument("--count", type=int, default=1)
    given = parser.parse_args(argv)
    made = common.stamped(given.name)
    model = common.create_model(made, given.role, common.container(given, HFSERVE_BAD_RECORDS="placeholder"))
    sagemaker = common.client("sagemaker")
    source = {"S3DataType": "S3Prefix", "S3Uri": given.input}
    sagemaker.create_transform_job(
        TransformJobName=made, ModelName=model, BatchStrategy="MultiRecord",
        ModelClientConfig={"InvocationsTimeoutInSeconds": 3600, "InvocationsMaxRetries": 1},
        TransformInput={
            "DataSource": {"S3DataSource": source}, "ContentType": given.content_type, "SplitType": "Line",
        },
        TransformOutput={"S3OutputPath": given.output, "AssembleWith": "Line"},
        TransformResources={"InstanceType": given.instance_type, "InstanceCount": given.count},
    )  # fmt: skip
    try:
        waiter = sagemaker.get_waiter("transform_job_completed_or_stopped")
        waiter.wait(TransformJobName=made, WaiterConfig={"Delay": common.PAUSE_S, "MaxAttempts": 1 << 20})
    except WaiterError as error:
        raise SystemExit(f"{made}: {error.last_response.get('FailureReason', error)}") from None
    print(f"{made}: {sagemaker.describe_transform_job(TransformJobName=made)['TransformJobStatus']}")


if __name__ == "__main__":
    main()
