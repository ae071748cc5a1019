"""Create a multi-model endpoint: every model.tar.gz below a prefix, loaded when it is first asked for."""

from collections.abc import Sequence

import common


def main(argv: Sequence[str] | None = None) -> None:
    """python multi_model.py NAME --image … --model-data s3://bucket/models/ --role …."""
    parser = common.parser(__doc__)
    common.add_model(parser)
    parser.add_argument("--instance-type", default="ml.m5.xlarge")
    parser.add_argument("--count", type=int, default=1)
    given = parser.parse_args(argv)
    made = common.stamped(given.name)
    definition = {
        "Image": given.image, "Environment": common.container(given)["Environment"], "Mode": "MultiModel",
        "ModelDataUrl": given.model_data, "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
    }  # fmt: skip
    model = common.create_model(made, given.role, definition)
    common.create_endpoint(given.name, made, common.on_instances(model, given.instance_type, given.count))
    print(f"{given.name}: name one of {given.model_data} as TargetModel, e.g. reviews.tar.gz")


if __name__ == "__main__":
    main()
