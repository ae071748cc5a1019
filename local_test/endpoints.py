"""The life of an endpoint: its variants, their instances, updates, restarts and its end."""

import contextlib
import random
import shutil
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_test import artifacts, names
from local_test.containers import Container, wait_ready
from local_test.errors import ServiceUnavailable, StartFailed, ValidationError, ValidationException
from local_test.multi_model import Front

if TYPE_CHECKING:
    from local_test.state import State

RESTART_PAUSES = (0.2, 1, 2, 5)
PING_EVERY = 5.0
MISSED_PINGS = 6
DRAIN_S = 60.0


class Instance:
    """A container that is started again whenever it ends, until it is told to end."""

    def __init__(self, state: "State", endpoint: "Endpoint", variant: "Variant") -> None:
        self.id = f"i-{uuid.uuid4().hex[:17]}"
        self.container: Container | None = None
        self.front: Front | None = None
        self.ready = False
        self.failure: str | None = None
        self.settled = threading.Event()
        self.busy = 0
        self._state, self._endpoint, self._variant = state, endpoint, variant
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Begin; `settled` says when it is ready, or has failed."""
        self._thread.start()

    def end(self, drain: float = 0) -> None:
        """End it, once it has answered what it was asked; returns when it has ended."""
        changed = self._endpoint.changed
        with changed:
            self._over.set()
            self.ready = False
            changed.notify_all()
            changed.wait_for(lambda: not self.busy, drain)
        if self.container:
            self.container.stop()
        if self._thread.ident:
            self._thread.join()

    def _keep(self) -> None:
        base = self._state.runs / f"{self._endpoint.name}-{self.id}"
        try:
            with self._state.shelf.lay(self._variant.definition, base / "ml"):
                self._start_again(base / "ml")
        except StartFailed as error:
            self.failure = str(error)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            self.failure = "Request to service failed. If failure persists after retry, contact customer support."
        finally:
            self.settled.set()
            shutil.rmtree(base, ignore_errors=True)

    def _start_again(self, base_dir: Path) -> None:
        patience = self._variant.config.get("ContainerStartupHealthCheckTimeoutInSeconds", self._state.startup_timeout)
        deadline = time.monotonic() + patience
        starts = 0
        while not self._over.is_set():
            if self.settled.is_set():
                deadline = time.monotonic() + patience
            self._serve(base_dir, deadline)
            if not self.settled.is_set() and time.monotonic() > deadline:
                raise StartFailed(
                    f"The primary container for production variant {self._variant.name} did not pass the ping health "
                    "check. Please check CloudWatch logs for this endpoint."
                )
            self._over.wait(RESTART_PAUSES[min(starts, len(RESTART_PAUSES) - 1)])
            starts += 1

    def _serve(self, base_dir: Path, deadline: float) -> None:
        state, definition = self._state, self._variant.definition
        container = state.images.start(
            definition["Image"], state.environment(definition), base_dir, f"{self._variant.name}/{self.id}",
            state.log_path(names.log_group(self._endpoint.name)),
        )  # fmt: skip
        try:
            self.container = container
            if self._over.is_set() or not wait_ready(container, deadline - time.monotonic()):
                return
            if definition.get("Mode") == "MultiModel":
                self.front = Front(container, state.store, definition["ModelDataUrl"])
            self._set_ready(True)
            self.settled.set()
            missed = 0
            while not container.ended(PING_EVERY) and missed < MISSED_PINGS:
                missed = 0 if container.ping() else missed + 1
                self._set_ready(not missed)
        finally:
            self._set_ready(False)
            container.stop()

    def _set_ready(self, ready: bool) -> None:
        with self._endpoint.changed:
            self.ready = ready and not self._over.is_set()
            self._endpoint.changed.notify_all()


class Variant:
    """A model with its instances and its share of the requests."""

    def __init__(self, config: dict[str, Any], definition: dict[str, Any]) -> None:
        self.config, self.definition = config, definition
        self.name: str = config["VariantName"]
        self.weight: float = config.get("InitialVariantWeight", 1.0)
        self.wanted: int = config.get("InitialInstanceCount", 1)
        self.instances: list[Instance] = []
        self._turn = 0

    def next(self) -> Instance | None:
        """The ready instance whose turn it is."""
        ready = [instance for instance in self.instances if instance.ready]
        self._turn += 1
        return ready[self._turn % len(ready)] if ready else None

    def describe(self) -> dict[str, Any]:
        """As DescribeEndpoint tells it."""
        image = {"SpecifiedImage": self.definition["Image"], "ResolvedImage": self.definition["Image"]}
        told: dict[str, Any] = {
            "VariantName": self.name, "DeployedImages": [image],
            "CurrentWeight": self.weight, "DesiredWeight": self.weight,
        }  # fmt: skip
        if "ServerlessConfig" in self.config:
            return {**told, "CurrentServerlessConfig": self.config["ServerlessConfig"]}
        return {**told, "CurrentInstanceCount": len(self.instances), "DesiredInstanceCount": self.wanted}


class Endpoint:
    """One endpoint; what takes long is done in the background, and its status says how far it is."""

    def __init__(self, state: "State", name: str, config: dict[str, Any]) -> None:
        self.name, self.config = name, config
        self.status = "Creating"
        self.failure: str | None = None
        self.created = self.modified = time.time()
        self.variants: dict[str, Variant] = {}
        self.changed = threading.Condition()
        self._async_running = 0
        self._state = state
        self._starting: list[Instance] = []
        self._leaving: list[Instance] = []
        self._sessions: dict[str, Instance] = {}

    # What the control plane does

    def create(self) -> None:
        """Bring it up."""
        self._begin("Creating", self._replace, self.config, {})

    def update(self, config: dict[str, Any], kept: dict[str, tuple[float, int]]) -> None:
        """Bring up another configuration beside, then let it take over; `kept`: weights and counts that stay."""
        self._begin("Updating", self._replace, config, kept)

    def delete(self) -> threading.Thread:
        """End it; the thread is over when it has ended."""
        return self._begin("Deleting", self._delete)

    def count(self, variant: str) -> int:
        """The instances that are wanted of a variant."""
        return self.variants[variant].wanted

    def scale(self, variant: str, count: int) -> None:
        """Want another number of instances."""
        self.resize({variant: count})

    def resize(self, counts: dict[str, int]) -> None:
        """Want other numbers of instances, of some variants."""
        for name, count in counts.items():
            self.variants[name].wanted = count
        self._begin("Updating", self._scale)

    def reweight(self, variant: str, weight: float) -> None:
        """Give a variant another share of the requests."""
        self.variants[variant].weight = weight

    def describe(self) -> dict[str, Any]:
        """As DescribeEndpoint tells it."""
        told: dict[str, Any] = {
            "EndpointName": self.name, "EndpointArn": names.arn("endpoint", self.name, self._state.region),
            "EndpointConfigName": self.config["EndpointConfigName"], "EndpointStatus": self.status,
            "CreationTime": self.created, "LastModifiedTime": self.modified,
        }  # fmt: skip
        if self.variants:
            told["ProductionVariants"] = [variant.describe() for variant in self.variants.values()]
        for shared in ("AsyncInferenceConfig", "DataCaptureConfig"):
            if shared in self.config:
                told[shared] = self.config[shared]
        if self.failure:
            told["FailureReason"] = self.failure
        return told

    # What the runtime asks

    @contextlib.contextmanager
    def instance(self, variant: str | None, session: str | None = None) -> Iterator[tuple[Variant, Instance]]:
        """The instance that takes the next request, busy for the time of the block."""
        with self.changed:
            picked, chosen = self._pick(variant, session)
            chosen.busy += 1
        try:
            yield picked, chosen
        finally:
            with self.changed:
                chosen.busy -= 1
                self.changed.notify_all()

    @contextlib.contextmanager
    def slot(self, per_instance: int, patience: float) -> Iterator[None]:
        """One of the places that the ready instances have for asynchronous requests; TimeoutError: none in time."""
        with self.changed:
            if not self.changed.wait_for(lambda: self._async_running < per_instance * self.ready_count, patience):
                raise TimeoutError
            self._async_running += 1
        try:
            yield
        finally:
            with self.changed:
                self._async_running -= 1
                self.changed.notify_all()

    def keep_session(self, session: str, instance: Instance) -> None:
        """Send what belongs to a session where the session is."""
        self._sessions[session] = instance

    def forget_session(self, session: str) -> None:
        """The session is over."""
        self._sessions.pop(session, None)

    @property
    def ready_count(self) -> int:
        """How many instances can take requests."""
        return sum(instance.ready for variant in self.variants.values() for instance in variant.instances)

    def _pick(self, name: str | None, session: str | None) -> tuple[Variant, Instance]:
        if self.status not in ("InService", "Updating"):
            raise ValidationError(f"Endpoint {self.name} of account {names.ACCOUNT} not found.")
        if name and name not in self.variants:
            raise ValidationError(f"Variant {name} of endpoint {self.name} of account {names.ACCOUNT} not found.")
        variants = [self.variants[name]] if name else list(self.variants.values())
        weights = [variant.weight for variant in variants]
        variant = random.choices(variants, weights if sum(weights) else None)[0]
        held = self._sessions.get(session or "")
        instance = held if held and held.ready else variant.next()
        if instance is None:
            raise ServiceUnavailable
        return variant, instance

    # In the background

    def _begin(self, status: str, work: Callable[..., list[Instance]], *given: Any) -> threading.Thread:
        with self._state.lock:
            self.status, self.modified = status, time.time()
        thread = threading.Thread(target=self._finish, args=(work, *given), daemon=True)
        thread.start()
        return thread

    def _finish(self, work: Callable[..., list[Instance]], *given: Any) -> None:
        failure, leaving = None, []
        try:
            leaving = work(*given)
        except StartFailed as error:
            failure = str(error)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            failure = "Request to service failed. If failure persists after retry, contact customer support."
        with self._state.lock:
            self._leaving = leaving
            if self.status != "Deleting":
                self.failure, self.modified = failure, time.time()
                self.status = "InService" if self.variants else "Failed"
        _end(leaving, DRAIN_S)

    def _replace(self, config: dict[str, Any], kept: dict[str, tuple[float, int]]) -> list[Instance]:
        variants = {}
        for described in config["ProductionVariants"]:
            variant = Variant(described, self._definition(described))
            variant.weight, variant.wanted = kept.get(variant.name, (variant.weight, variant.wanted))
            variants[variant.name] = variant
        for variant in variants.values():
            variant.instances = [Instance(self._state, self, variant) for _ in range(variant.wanted)]
        self._bring_up([instance for variant in variants.values() for instance in variant.instances])
        with self._state.lock:
            if self.status == "Deleting":
                return []
            old, self.variants, self.config = self.variants, variants, config
        return [instance for variant in old.values() for instance in variant.instances]

    def _scale(self) -> list[Instance]:
        leaving = []
        for variant in self.variants.values():
            missing = variant.wanted - len(variant.instances)
            fresh = [Instance(self._state, self, variant) for _ in range(missing)]
            try:
                self._bring_up(fresh)
            except StartFailed:
                variant.wanted = len(variant.instances)
                raise
            with self.changed:
                kept = variant.instances[: variant.wanted]
                surplus = variant.instances[variant.wanted :]
                variant.instances = kept + fresh
            leaving += surplus
        return leaving

    def _bring_up(self, instances: list[Instance]) -> None:
        with self._state.lock:
            if self.status == "Deleting":
                return
            self._starting = instances
            for instance in instances:
                instance.start()
        for instance in instances:
            instance.settled.wait()
        failure = next((instance.failure for instance in instances if instance.failure), None)
        if failure:
            _end(instances)
            raise StartFailed(failure)

    def _delete(self) -> list[Instance]:
        with self._state.lock:
            present = [instance for variant in self.variants.values() for instance in variant.instances]
            all_there = dict.fromkeys([*present, *self._starting, *self._leaving])
        _end(all_there)
        with self._state.lock:
            self._state.endpoints.pop(self.name, None)
        return []

    def _definition(self, variant: dict[str, Any]) -> dict[str, Any]:
        try:
            return artifacts.definition(self._state.describe_model(variant["ModelName"]))
        except ValidationException as error:
            raise StartFailed(error.message) from None


def _end(instances: Iterable[Instance], drain: float = 0) -> None:
    endings = [threading.Thread(target=instance.end, args=(drain,), daemon=True) for instance in instances]
    for ending in endings:
        ending.start()
    for ending in endings:
        ending.join()
