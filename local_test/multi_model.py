"""A multi-model endpoint: loads a model when it is first asked for, and unloads what is least recently used."""

import hashlib
import http.client
import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from local_test.artifacts import unpack
from local_test.containers import Container
from local_test.errors import AwsError, StartFailed, ValidationError
from local_test.s3 import Store

PATIENCE = 60.0
"""Seconds a client waits for a model to load; after that it is told to come again, and the load goes on."""

LOAD_TIMEOUT = 360.0
MOST_TRIES = 3
"""Of one call, when the container has lost its model meanwhile."""

MOST_ORIGINAL = 2048

Send = Callable[[str], http.client.HTTPResponse]


class Front:
    """What stands before a container whose Mode is MultiModel; `prefix` is where its models are stored."""

    def __init__(self, container: Container, store: Store, prefix: str, *, patience: float = PATIENCE) -> None:
        self._container = container
        self._store = store
        self._prefix = prefix.rstrip("/") + "/"
        self._patience = patience
        self._lock = threading.Lock()
        self._loads: dict[str, Future[None]] = {}
        """By target model, the least recently used first."""

    def invoke(self, target_model: str, send: Send) -> http.client.HTTPResponse:
        """What the model answers to `send`, loaded first where it is not."""
        for _ in range(MOST_TRIES):
            load = self._loaded(target_model)
            answer = send(f"/models/{model_name(target_model)}/invoke")
            if answer.status == 404 and self._is_lost(target_model):
                self._forget(target_model, load)
            elif answer.status != 507 or not self._unload_one(besides=target_model):
                break
        return answer

    def _loaded(self, target_model: str) -> Future[None]:
        with self._lock:
            load = self._loads.pop(target_model, None)
            is_new = load is None
            load = self._loads[target_model] = load or Future()
        if is_new:
            threading.Thread(target=self._load, args=(target_model, load), daemon=True).start()
        try:
            load.result(self._patience)
        except TimeoutError:
            raise AwsError(
                "ModelNotReadyException", f"Model {target_model} is still being loaded; try your request again.", 429
            ) from None
        except AwsError:
            self._forget(target_model, load)
            raise
        return load

    def _is_lost(self, target_model: str) -> bool:
        """Whether a 404 means that the container has no such model, or is the model's own answer."""
        return self._ask("GET", f"/models/{model_name(target_model)}")[0] == 404

    def _forget(self, target_model: str, load: Future[None]) -> None:
        with self._lock:
            if self._loads.get(target_model) is load:
                del self._loads[target_model]

    def _load(self, target_model: str, load: Future[None]) -> None:
        """Download the model and have the container load it; how that ends is told to who waits for `load`."""
        try:
            body = json.dumps({"model_name": model_name(target_model), "url": self._downloaded(target_model)}).encode()
            status, text = self._ask("POST", "/models", body)
            while status == 507 and self._unload_one(besides=target_model):
                status, text = self._ask("POST", "/models", body)
            if status not in (200, 409):  # 409: it is loaded already
                raise _model_error(status, text)
        except AwsError as error:
            load.set_exception(error)
        except (OSError, http.client.HTTPException) as error:
            load.set_exception(_model_error(0, str(error)))
        else:
            load.set_result(None)

    def _downloaded(self, target_model: str) -> str:
        """The model's directory, as the container sees it."""
        uri = self._prefix + target_model.lstrip("/")
        if not self._store.exists(uri):
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            raise ValidationError(
                f"Failed to download model data(bucket: {bucket}, key: {key}). Please ensure that there is an object "
                "located at the URL and that the role passed to CreateModel has permissions to download the model."
            )
        folder = Path(self._container.base_dir) / "models" / model_name(target_model) / "model"
        if not folder.exists():
            partial = folder.with_name("partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            try:
                unpack(self._store, uri, partial)
            except StartFailed as error:
                raise ValidationError(str(error)) from error
            partial.rename(folder)
        return self._container.inside(folder)

    def _unload_one(self, *, besides: str) -> bool:
        """Unload the loaded model that was asked for longest ago; False: there is none."""
        with self._lock:
            loaded = (name for name, load in self._loads.items() if name != besides and load.done())
            oldest = next(loaded, None)
            if oldest is None:
                return False
            del self._loads[oldest]
        self._ask("DELETE", f"/models/{model_name(oldest)}")
        return True

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        address = urlsplit(self._container.url).netloc
        with closing(http.client.HTTPConnection(address, timeout=LOAD_TIMEOUT)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")


def model_name(target_model: str) -> str:
    """What the container knows a target model by."""
    return hashlib.md5(target_model.encode(), usedforsecurity=False).hexdigest()


def _model_error(status: int, text: str) -> AwsError:
    kind = "client" if 400 <= status < 500 else "server"
    return AwsError(
        "ModelError",
        f'Received {kind} error ({status}) from model with message "{text[:MOST_ORIGINAL]}"',
        424,
        OriginalStatusCode=status,
        OriginalMessage=text[:MOST_ORIGINAL],
    )
