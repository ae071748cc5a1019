"""The life of a transform job: its container, its status, and its end."""

import shutil
import threading
import time
import traceback
from typing import Any

from local_test import artifacts, transform
from local_test.containers import Container, wait_ready
from local_test.errors import AwsError, StartFailed
from local_test.state import State

FINAL = ("Completed", "Failed", "Stopped")


class Job:
    """One job in the background; `told` is what DescribeTransformJob tells of it."""

    def __init__(self, state: State, told: dict[str, Any], model: dict[str, Any]) -> None:
        self._state, self._told, self._model = state, told, model
        self._definition = artifacts.definition(model)
        self._base_dir = state.runs / f"transform-{told['TransformJobName']}" / "ml"

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            with self._state.shelf.lay(self._definition, self._base_dir):
                transform.run(self._told, self._model, self._state.store, self._launch, self._update)
        except (StartFailed, AwsError, OSError) as error:
            self._fail(str(error))
        except Exception as error:
            traceback.print_exc()
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            shutil.rmtree(self._base_dir.parent, ignore_errors=True)

    def _launch(self, environment: dict[str, str]) -> Container:
        name = self._told["TransformJobName"]
        variables = {**self._state.environment(self._definition), **self._told.get("Environment", {}), **environment}
        log = self._state.log_path(f"/aws/sagemaker/TransformJobs/{name}")
        container = self._state.images.start(self._definition["Image"], variables, self._base_dir, name, log)
        end = time.monotonic() + self._state.startup_timeout
        while not wait_ready(container, min(1.0, end - time.monotonic())):
            if self._stopping or not container.alive or time.monotonic() > end:
                container.stop()
                raise StartFailed("The container did not pass the ping health check. Please check CloudWatch logs.")
        return container

    @property
    def _stopping(self) -> bool:
        return bool(self._told["TransformJobStatus"] == "Stopping")

    def _fail(self, reason: str) -> None:
        stopped = {"TransformJobStatus": "Stopped"}
        self._update(stopped if self._stopping else {"TransformJobStatus": "Failed", "FailureReason": reason})

    def _update(self, change: dict[str, Any]) -> None:
        with self._state.lock:
            self._told.update(change)
            if self._told["TransformJobStatus"] in FINAL:
                self._told.setdefault("TransformEndTime", time.time())
