"""Create a serverless endpoint: CPU, paid by the request, for requests of at most 4 MB and 60 seconds."""

from collections.abc import Sequence

import common


def main(argv: Sequence[str] | None = None) -> None:
    """python serverless.py NAME --image … --model-data … --role … --memory 6144."""
    parser = common.parser(__doc__)
    common.add_model(parser)
    parser.add_argument(
        "--memory", type=int, default=4096, choices=range(1024, 6145, 1024), help="MB; also decides cores"
    )
    parser.add_argument(
        "--concurrent", type=int, default=5, help="requests answered at once, each by a copy of its own"
    )
    given = parser.parse_args(argv)
    made = common.stamped(given.name)
    model = common.create_model(made, given.role, common.container(given, HFSERVE_WORKERS="1"))
    limits = {"MemorySizeInMB": given.memory, "MaxConcurrency": given.concurrent}
    variant = {"VariantName": common.VARIANT, "ModelName": model, "ServerlessConfig": limits}
    common.create_endpoint(given.name, made, variant)


if __name__ == "__main__":
    main()
