"""What exists: models, endpoint configurations, endpoints, transform jobs and tags."""

import shutil
import threading
from pathlib import Path
from typing import Any, TypeVar

from local_test import names
from local_test.artifacts import Shelf
from local_test.containers import Images, end_leftovers
from local_test.endpoints import Endpoint
from local_test.errors import ValidationException
from local_test.s3 import Store

T = TypeVar("T")


class State:
    """One account in one region, on one directory."""

    def __init__(self, directory: Path, *, region: str, images: Images, startup_timeout: float = 480) -> None:
        self.directory, self.region, self.account = directory, region, names.ACCOUNT
        self.images = images
        self.startup_timeout = startup_timeout
        self.store = Store(directory / "s3")
        self.runs, self.logs = directory / "runs", directory / "logs"
        end_leftovers(self.runs)
        shutil.rmtree(self.runs, ignore_errors=True)
        self.shelf = Shelf(self.store, self.runs / "models")
        self.lock = threading.RLock()
        self.models: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.transform_jobs: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.scaling: dict[str, Any] = {}

    def describe_model(self, name: str) -> dict[str, Any]:
        """A model as CreateModel gave it."""
        return self._find(self.models, "model", name)

    def config(self, name: str) -> dict[str, Any]:
        """An endpoint configuration as CreateEndpointConfig gave it."""
        return self._find(self.configs, "endpoint-config", name, "endpoint configuration")

    def endpoint(self, name: str) -> Endpoint:
        """An endpoint of any state."""
        return self._find(self.endpoints, "endpoint", name)

    def transform_job(self, name: str) -> dict[str, Any]:
        """A transform job as DescribeTransformJob tells it."""
        return self._find(self.transform_jobs, "transform-job", name, "requested job with name")

    def log_path(self, group: str) -> Path:
        """The file of a log group."""
        return self.logs / f"{group.strip('/')}.log"

    def environment(self, definition: dict[str, Any]) -> dict[str, str]:
        """The variables of a model's container."""
        ours = {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region, "SAGEMAKER_REGION": self.region}
        multi = {"SAGEMAKER_MULTI_MODEL": "true"} if definition.get("Mode") == "MultiModel" else {}
        return {**ours, **multi, **definition.get("Environment", {})}

    def close(self) -> None:
        """End every endpoint, and wait for it."""
        endings = [endpoint.delete() for endpoint in list(self.endpoints.values())]
        for ending in endings:
            ending.join()
        self.images.stop_all()
        shutil.rmtree(self.runs, ignore_errors=True)

    def _find(self, things: dict[str, T], kind: str, name: str, called: str = "") -> T:
        with self.lock:
            if name in things:
                return things[name]
        raise ValidationException(f'Could not find {called or kind} "{names.arn(kind, name, self.region)}".')
