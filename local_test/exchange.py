"""One request to a container, and its answer as it comes; what goes wrong is a ModelError, as AWS words it."""

import contextlib
import http.client
import time
from collections.abc import Iterator, Mapping

from local_test import names
from local_test.endpoints import Endpoint, Instance
from local_test.errors import ModelError, ServiceUnavailable, ValidationError
from local_test.multi_model import Send
from local_test.state import State
from local_test.wire import PIECE

PREFIX = "X-Amzn-SageMaker-"
_BACK = ("Custom-Attributes", "New-Session-Id", "Closed-Session-Id")
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)
_NO_ANSWER = (
    "Amazon SageMaker could not get a response from the {} endpoint. This can occur when CPU or memory utilization is "
    "high. To check your utilization, see Amazon CloudWatch. To fix this problem, use an instance type with more CPU "
    "capacity or memory."
)


@contextlib.contextmanager
def ask(
    state: State, endpoint: Endpoint, headers: Mapping[str, str], body: bytes, timeout: float
) -> "Iterator[Exchange]":
    """Ask the instance whose turn it is; the block has its answer, whose status is 2xx."""
    session, model = headers.get(f"{PREFIX}Session-Id"), headers.get(f"{PREFIX}Target-Model")
    with endpoint.instance(headers.get(f"{PREFIX}Target-Variant"), session) as (variant, instance):
        exchange = Exchange(state, endpoint, instance, variant.name, time.monotonic() + timeout)
        try:
            exchange.begin(headers, body, model)
            yield exchange
        finally:
            exchange.close()


class Exchange:
    """The answer of a container; its pieces can be taken as they come, until the deadline."""

    def __init__(self, state: State, endpoint: Endpoint, instance: Instance, variant: str, deadline: float) -> None:
        self._state, self._endpoint, self._instance = state, endpoint, instance
        self.variant, self.deadline = variant, deadline
        self._connections: list[http.client.HTTPConnection] = []
        self._answer: http.client.HTTPResponse

    def begin(self, headers: Mapping[str, str], body: bytes, model: str | None) -> None:
        """Send the request, and wait for the head of the answer."""
        try:
            self._answer = self._routed(model, lambda path: self._send(path, headers, body))
            if not 200 <= self._answer.status < 300:
                raise self._refused(self._answer.status, self._answer.read())
        except TimeoutError:
            raise self._failed(0, _TIMED_OUT) from None
        except (OSError, http.client.HTTPException):
            raise self._failed(0, _NO_ANSWER.format(self._endpoint.name)) from None
        self._keep_session()

    def headers(self, content_type: str) -> dict[str, str]:
        """What the client is told; the model's content type under this name."""
        told = {content_type: self._answer.getheader("Content-Type"), "x-Amzn-Invoked-Production-Variant": self.variant}
        told |= {f"{PREFIX}{name}": self._answer.getheader(f"{PREFIX}{name}") for name in _BACK}
        return {name: value for name, value in told.items() if value is not None}

    def read(self) -> bytes:
        """The whole answer."""
        try:
            return b"".join(self.pieces())
        except TimeoutError:
            raise self._failed(0, _TIMED_OUT) from None
        except (OSError, http.client.HTTPException):
            status = self._answer.status
            sentence = f"Received server error ({status}) from primary and could not load the entire response body"
            raise self._error(sentence, status, "") from None

    def pieces(self) -> Iterator[bytes]:
        """The answer as it comes; a broken connection raises, as does the deadline."""
        while piece := self._next():
            yield piece
        if self._answer.length:
            raise http.client.IncompleteRead(b"", self._answer.length)

    def close(self) -> None:
        """Leave the container alone; it sees that nobody waits any more."""
        for connection in self._connections:
            connection.close()
        if hasattr(self, "_answer"):
            self._answer.close()

    def _routed(self, model: str | None, send: Send) -> http.client.HTTPResponse:
        front, name = self._instance.front, self._endpoint.name
        if front is None and model:
            raise ValidationError(
                f"Endpoint {name} is not a multi-model endpoint and does not support target model header {model}."
            )
        if front is None:
            return send("/invocations")
        if not model:
            raise ValidationError(f"Endpoint {name} is a multi-model endpoint and requires a target model header.")
        return front.invoke(model, send)

    def _send(self, path: str, headers: Mapping[str, str], body: bytes) -> http.client.HTTPResponse:
        container = self._instance.container
        if container is None:
            raise ServiceUnavailable
        connection = http.client.HTTPConnection("127.0.0.1", container.port, timeout=self._left())
        self._connections.append(connection)
        try:
            connection.connect()
        except ConnectionRefusedError:  # it has just ended, and nothing of the request has reached it
            raise ServiceUnavailable from None
        connection.request("POST", path, body, dict(headers))
        self._socket = connection.sock
        return connection.getresponse()

    def _next(self) -> bytes:
        if self._answer.isclosed():
            return b""
        self._socket.settimeout(self._left())
        return self._answer.read1(PIECE)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _keep_session(self) -> None:
        opened = self._answer.getheader(f"{PREFIX}New-Session-Id")
        closed = self._answer.getheader(f"{PREFIX}Closed-Session-Id")
        if opened:
            self._endpoint.keep_session(opened.partition(";")[0].strip(), self._instance)
        if closed:
            self._endpoint.forget_session(closed.strip())

    def _refused(self, status: int, content: bytes) -> ModelError:
        return self._failed(status, content.decode(errors="replace")[:2048])

    def _failed(self, status: int, message: str) -> ModelError:
        side = "client" if 400 <= status < 500 else "server"
        return self._error(f'Received {side} error ({status}) from primary with message "{message}"', status, message)

    def _error(self, sentence: str, status: int, message: str) -> ModelError:
        group = names.log_group(self._endpoint.name)
        return ModelError(
            sentence, status=status, original=message, log_group=group, region=self._state.region,
            account=names.ACCOUNT,
        )  # fmt: skip
