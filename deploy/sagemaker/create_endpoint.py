"""Create a real-time endpoint: model, configuration, endpoint, and wait until it answers."""

from collections.abc import Sequence

import common


def main(argv: Sequence[str] | None = None) -> None:
    """python create_endpoint.py NAME --image … --model-data … --role …."""
    parser = common.parser(__doc__)
    common.add_model(parser)
    parser.add_argument("--instance-type", default="ml.g4dn.xlarge")
    parser.add_argument("--count", type=int, default=1, help="instances; two or more for availability and canaries")
    given = parser.parse_args(argv)
    made = common.stamped(given.name)
    model = common.create_model(made, given.role, common.container(given))
    common.create_endpoint(given.name, made, common.on_instances(model, given.instance_type, given.count))


if __name__ == "__main__":
    main()
