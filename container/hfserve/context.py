"""What a hook is told about its request, and what it may say about the answer (contract row 47)."""

import math
import re
from pathlib import Path
from typing import Any

from hfserve import __version__
from hfserve.errors import ModelError
from hfserve.messages import Request

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
MAX_CUSTOM_ATTRIBUTES = 1024
FRAMING = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE = re.compile(r"[\x20-\x7e]*")


class Headers(dict[str, str]):
    """Headers by lower-case names, found under any case."""

    def __missing__(self, key: str) -> str:
        if key != key.lower():
            return self[key.lower()]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and super().__contains__(key.lower())

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a header, whatever its case."""
        return super().get(key.lower(), default)


class RequestProcessor:
    """One request and what is said about its answer, under the names of Multi Model Server."""

    def __init__(self, headers: Headers) -> None:
        self._request = headers
        self._response = Headers()
        self._status = 200
        self._phrase = ""

    def get_request_property(self, key: str) -> str | None:
        """The value of a header of the request."""
        value: str | None = self._request.get(key)
        return value

    def get_request_properties(self) -> Headers:
        """All headers of the request."""
        return self._request

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Choose the status of the answer."""
        if not isinstance(code, int) or not 200 <= code <= 599:
            raise ModelError(f"the status of an answer should be a number from 200 to 599, not {code!r}")
        self._status, self._phrase = int(code), reason_phrase or ""

    def get_response_status_code(self) -> int:
        """The status of the answer."""
        return self._status

    def get_response_status_phrase(self) -> str:
        """The words beside the status; HTTP/2 has none, and nobody should read them."""
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer; raises ModelError when HTTP or SageMaker would not carry it."""
        name, value = str(key).lower(), str(value)
        if not _TOKEN.fullmatch(name):
            raise ModelError(f"{key!r} cannot be the name of a header")
        if name in FRAMING:
            raise ModelError(f"the header {key} is the server's to set")
        if not _VISIBLE.fullmatch(value):
            raise ModelError(f"the header {key} may hold visible ASCII on one line only")
        if name == CUSTOM_ATTRIBUTES and len(value) > MAX_CUSTOM_ATTRIBUTES:
            raise ModelError(f"SageMaker takes {MAX_CUSTOM_ATTRIBUTES} characters of {key}, not {len(value)}")
        self._response[name] = value

    def get_response_headers(self) -> Headers:
        """All headers set so far."""
        return self._response

    def get_response_header(self, key: str) -> str | None:
        """A header set so far."""
        value: str | None = self._response.get(key)
        return value


class Metrics:
    """Takes the calls of Multi Model Server's metrics, and keeps nothing."""

    def add_metric(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    add_counter = add_time = add_size = add_percent = add_error = add_metric


class Context:
    """What a hook is told about one request, and how it sets status and headers of the answer (contract row 47).

    The methods are those of Multi Model Server's context, where `idx` counts the requests of a batch: here it is 0.
    While the model loads there is no request: no headers, no id, no deadline.
    """

    model_name = "model"

    def __init__(self, request: Request | None, *, model_dir: Path, gpu_id: int | None = None) -> None:
        self._request = request
        self.headers = Headers({key.lower(): value for key, value in (request.headers if request else {}).items()})
        self.request_id = request.request_id if request else ""
        self.deadline = request.deadline if request else math.inf
        self.model_dir = model_dir
        self.manifest: dict[str, Any] = {}
        self.metrics = Metrics()
        self.request_processor = [RequestProcessor(self.headers)]
        self.system_properties = {
            "model_dir": str(model_dir), "gpu_id": gpu_id, "batch_size": 1,
            "server_name": "hfserve", "server_version": __version__,
        }  # fmt: skip

    @property
    def request(self) -> Request:
        """The request; there is none while the model loads."""
        if self._request is None:
            raise ModelError("there is no request while the model loads")
        return self._request

    def get_request_id(self, idx: int = 0) -> str:
        """The id of the request."""
        return self.request_id

    def get_request_header(self, idx: int, key: str) -> str | None:
        """The value of a header of the request, None when it has none."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int = 0) -> Headers:
        """All headers of the request."""
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Say what the answer is."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int = 0) -> str | None:
        """What the answer was said to be."""
        return self.request_processor[idx].get_response_header("content-type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of the answer."""
        self.request_processor[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int = 0) -> Headers:
        """All headers set so far."""
        return self.request_processor[idx].get_response_headers()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Choose the status of the answer."""
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Choose the status of the answer; it is the only one there is."""
        self.set_response_status(code, phrase)

    def get_response_status(self, idx: int = 0) -> tuple[int, str]:
        """The status of the answer and the words beside it."""
        return self.request_processor[idx].get_response_status_code(), self.request_processor[
            idx
        ].get_response_status_phrase()
