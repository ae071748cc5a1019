"""Asks /ping as Docker's HEALTHCHECK: exit status 0 when the answer is 200."""

import http.client
import os
import sys

PORT_VARIABLES = ("SAGEMAKER_BIND_TO_PORT", "PORT", "HFSERVE_PORT")


def main() -> int:
    """1 unless the server is ready."""
    port = next((os.environ[name] for name in PORT_VARIABLES if os.environ.get(name)), "8080")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=2)
    try:
        connection.request("GET", "/ping")
        reply = connection.getresponse()
        print(reply.status, reply.read(200).decode("utf-8", "replace"))
        return 0 if reply.status == 200 else 1
    except OSError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
