"""InvokeEndpointAsync: input from S3, the answer into S3, in between a queue."""

import json
import threading
import uuid

from local_test import names
from local_test.endpoints import Endpoint
from local_test.errors import AwsError, ValidationError
from local_test.exchange import PREFIX, ask
from local_test.state import State
from local_test.wire import Answer, Request

INLINE_LIMIT = 128_000
CONCURRENT = 4  # what SageMaker chooses when nothing is said is not told


class Later:
    """Takes requests that are answered in S3; a thread waits for each."""

    def __init__(self, state: State) -> None:
        self._state = state

    def answer(self, endpoint: Endpoint, request: Request, headers: dict[str, str]) -> Answer:
        """Say where the answer will be, and see to it."""
        body, location = request.body.read(INLINE_LIMIT + 1), request.headers.get(f"{PREFIX}InputLocation")
        if bool(body) == bool(location):
            raise ValidationError("Provide exactly one of Body and InputLocation.")
        if len(body) > INLINE_LIMIT:
            raise ValidationError(f"Body must have length less than or equal to {INLINE_LIMIT}.")
        if location and not self._state.store.exists(location):
            raise ValidationError(f"The input location {location} does not exist or cannot be read.")
        inference_id = headers.setdefault(f"{PREFIX}Inference-Id", str(uuid.uuid4()))
        ttl = _seconds(request, "RequestTTLSeconds", 21_600, 21_600)
        timeout = _seconds(request, "InvocationTimeoutSeconds", 900, 3600)
        output, failure = self._locations(endpoint, request)
        threading.Thread(
            target=self._see_to, args=(endpoint, headers, body, location, output, failure, ttl, timeout), daemon=True
        ).start()
        told = {f"{PREFIX}OutputLocation": output, f"{PREFIX}FailureLocation": failure}
        return Answer(
            json.dumps({"InferenceId": inference_id}).encode(), 202, {"Content-Type": "application/json", **told}
        )

    def _locations(self, endpoint: Endpoint, request: Request) -> tuple[str, str]:
        outputs = endpoint.config["AsyncInferenceConfig"].get("OutputConfig", {})
        bucket = names.default_bucket(self._state.region)
        output = outputs.get("S3OutputPath", f"s3://{bucket}/async-endpoint-outputs/{endpoint.name}")
        failure = outputs.get("S3FailurePath", f"s3://{bucket}/async-endpoint-failures/{endpoint.name}")
        extension = request.headers.get(f"{PREFIX}S3OutputPathExtension", "").strip("/")
        name = str(uuid.uuid4())
        file = request.headers.get(f"{PREFIX}Filename", f"{name}.out")
        return "/".join(filter(None, [output.rstrip("/"), extension, file])), f"{failure.rstrip('/')}/{name}-error.out"

    def _see_to(
        self, endpoint: Endpoint, headers: dict[str, str], body: bytes, location: str | None, output: str, failure: str,
        ttl: float, timeout: float,
    ) -> None:  # fmt: skip
        try:
            with endpoint.slot(_concurrent(endpoint), ttl):
                content = self._state.store.get(location) if location else body
                with ask(self._state, endpoint, headers, content, timeout) as exchange:
                    answer = exchange.read()
            self._state.store.put(output, answer)
        except AwsError as error:
            self._state.store.put(failure, error.message.encode())
        except TimeoutError:
            self._state.store.put(failure, f"The request waited {ttl:g} seconds and has expired.".encode())
        except FileNotFoundError:
            self._state.store.put(failure, f"The input location {location} does not exist.".encode())


def _concurrent(endpoint: Endpoint) -> int:
    client = endpoint.config["AsyncInferenceConfig"].get("ClientConfig", {})
    return int(client.get("MaxConcurrentInvocationsPerInstance", CONCURRENT))


def _seconds(request: Request, name: str, default: float, most: float) -> float:
    given = float(request.headers.get(f"{PREFIX}{name}", default))
    if not 0 < given <= most:
        raise ValidationError(f"{name} must be between 1 and {most:g}.")
    return given
