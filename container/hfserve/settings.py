"""All that can be set, read once into one frozen object; the only reader of the environment.

What wins: a flag of the command line, then the variables of a setting in the order they are listed (SageMaker's,
the toolkit's, then HFSERVE_*), then the default. A variable that is set and empty counts as unset.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, FiniteFloat, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from hfserve.errors import SettingsError

MIB = 1 << 20
BATCH_S = 3600.0
BATCH_MB, UNLIMITED_MB = 100, 1024
"""Batch transform's own limits of a request: seconds, and megabytes of its body where one is set and where none is."""
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
OWN_MMS_KEYS = frozenset(
    {"inference_address", "management_address", "model_store", "load_models", "decode_input_request"}
)


def _field(default: Any, *variables: str, help: str, **rules: Any) -> Any:
    return Field(default, validation_alias=AliasChoices(*variables), description=help, **rules)


class Settings(BaseSettings):
    """What this server does, as set by flags and variables."""

    model_config = SettingsConfigDict(
        frozen=True, populate_by_name=True, case_sensitive=True, env_ignore_empty=True, extra="ignore",
        protected_namespaces=(),
    )  # fmt: skip

    # What is served
    model: str | None = _field(None, "HFSERVE_MODEL", "HF_MODEL_ID", help="Model directory, model.tar.gz or Hub id.")
    task: str | None = _field(None, "HF_TASK", "HFSERVE_TASK", help="Task; found from the model's files when unset.")
    revision: str | None = _field(None, "HF_MODEL_REVISION", help="Branch, tag or commit of a Hub model.")
    token: SecretStr | None = _field(None, "HF_TOKEN", "HF_API_TOKEN", help="Token for private Hub models.", repr=False)
    trust_remote_code: bool = _field(False, "HF_TRUST_REMOTE_CODE", help="Run Python code that a Hub model brings.")
    base_dir: Path = _field(Path("/opt/ml"), "SAGEMAKER_BASE_DIR", help="Where SageMaker puts `model/`.")
    program: str = _field("inference.py", "SAGEMAKER_PROGRAM", help="File of the hooks, in the model's `code/`.")
    submit_directory: str | None = _field(
        None, "SAGEMAKER_SUBMIT_DIRECTORY", help="Directory of the hooks, when it is not the model's `code/`."
    )
    handler: str | None = _field(
        None, "SAGEMAKER_HANDLER", help="A Multi Model Server custom service, as `module` or `module:function`."
    )
    install_requirements: bool = _field(
        True, "HFSERVE_INSTALL_REQUIREMENTS", help="Install `code/requirements.txt` before the model loads."
    )
    network_isolation: bool = _field(
        False,
        "HFSERVE_NETWORK_ISOLATION",
        help="No way out: requirements only from wheels in `code/`, nothing downloaded.",
    )
    hub_offline: bool = _field(False, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", help="Never ask the Hub.")
    allow_pickle: bool = _field(
        False,
        "HFSERVE_ALLOW_PICKLE",
        help="Load a pickle-only checkpoint (weights only) when there are no safetensors.",
    )

    multi_model: bool = _field(
        False, "SAGEMAKER_MULTI_MODEL",
        help="Serve many models instead of one, loaded and unloaded by requests to `/models`.",
    )  # fmt: skip
    models: str | None = _field(
        None, "HFSERVE_MODELS",
        help="Models that `POST /predict` may load: a directory that holds them, or, between commas, `name=directory`, "
        "directories and Hub ids.",
    )  # fmt: skip
    max_models: int | None = _field(
        None, "HFSERVE_MAX_MODELS", ge=1, help="Most models that `POST /predict` keeps; unset: as memory allows."
    )
    memory_mb: int | None = _field(
        None, "HFSERVE_MEMORY_MB", ge=1, help="Memory for all of many models, in MiB; unset: the machine's or cgroup's."
    )
    preload: bool = _field(
        True, "HFSERVE_PRELOAD",
        help="Of many models, make workers from a process that has imported the libraries already, which they share.",
    )  # fmt: skip

    # How it is reached
    host: str = _field("127.0.0.1", "HFSERVE_HOST", help="Address to listen on; the image sets 0.0.0.0.")
    port: int = _field(
        8080,
        "SAGEMAKER_BIND_TO_PORT",
        "PORT",
        "HFSERVE_PORT",
        ge=0,
        le=65535,
        help="Port to listen on; 0 takes a free one.",
    )
    engine: Literal["auto", "mms", "asgi"] = _field(
        "auto",
        "HFSERVE_ENGINE",
        help="`mms`: nginx and Multi Model Server; `asgi`: no MMS; `auto`: mms where it can run.",
    )
    nginx: bool = _field(
        True, "HFSERVE_NGINX", help="Put nginx in front where it is installed; the engine mms needs it."
    )
    default_accept: str = _field(
        "application/json",
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
        help="Form of an answer when Accept is missing or */*.",
    )
    max_body: int = _field(
        25 * MIB, "SAGEMAKER_MAX_REQUEST_SIZE", "MMS_MAX_REQUEST_SIZE", "HFSERVE_MAX_BODY", ge=1,
        help="Largest request body, in bytes.",
    )  # fmt: skip
    max_payload_mb: int | None = _field(
        None, "SAGEMAKER_MAX_PAYLOAD_IN_MB", ge=0, help="Batch transform's largest body, in MB; raises the limit above."
    )
    batch: bool = _field(False, "SAGEMAKER_BATCH", help="Whether a transform job sends the requests.")
    bad_records: Literal["fail", "placeholder"] = _field(
        "fail", "HFSERVE_BAD_RECORDS",
        help="A bad line fails the whole body of JSON Lines, or `placeholder`: its error is answered in its place.",
    )  # fmt: skip
    max_items: int = _field(10_000, "HFSERVE_MAX_ITEMS", ge=1, help="Most inputs in one request.")
    max_new_tokens: int = _field(
        16_384, "HFSERVE_MAX_NEW_TOKENS", ge=1, help="Most tokens that a request may have generated."
    )
    max_labels: int = _field(1_000, "HFSERVE_MAX_LABELS", ge=1, help="Most candidate labels in one request.")
    max_pixels: int = _field(50_000_000, "HFSERVE_MAX_PIXELS", ge=1, help="Most pixels of one picture.")
    max_audio_s: FiniteFloat = _field(3_600, "HFSERVE_MAX_AUDIO", gt=0, help="Most seconds of one sound.")
    allow_urls: str = _field(
        "", "HFSERVE_ALLOW_URLS",
        help="Fetch pictures, sounds and films that a request names by URL: `1` from public addresses, or the hosts "
        "to fetch from, between commas; empty: from nowhere.",
    )  # fmt: skip

    # How it runs
    workers: int | None = _field(
        None, "SAGEMAKER_MODEL_SERVER_WORKERS", "SAGEMAKER_NUM_MODEL_WORKERS", "MMS_DEFAULT_WORKERS_PER_MODEL",
        "HFSERVE_WORKERS", ge=1,
        help="Worker processes, each with a copy of the model and its share of the cores; unset: one per GPU, on CPU "
        "one for every eight cores.",
    )  # fmt: skip
    lanes: int | None = _field(
        None, "HFSERVE_LANES", ge=1,
        help="Threads of a worker that run batches; unset: one per core of its share on CPU, two on GPU, one for "
        "code/inference.py.",
    )  # fmt: skip
    device: str = _field("auto", "HFSERVE_DEVICE", help="`cpu`, `cuda`, `cuda:1` …; `auto`: a GPU where there is one.")
    runtime: Literal["auto", "torch", "openvino"] = _field(
        "auto", "HFSERVE_RUNTIME",
        help="What text encoders are computed with on CPU: `auto` takes the faster of torch's own layers and "
        "oneDNN's, if the answers are the same.",
    )  # fmt: skip
    calibration: str | None = _field(
        None, "HFSERVE_CALIBRATION",
        help="For int8: a text file of sentences like those that will be sent, one a line, a tab between the two of a "
        "pair; a relative path is looked for in the model's directory first.",
    )  # fmt: skip
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = _field(
        "auto", "HFSERVE_DTYPE",
        help="Precision of the model: `auto` is float32 on CPU, bfloat16 on a GPU since Ampere, float16 on older; "
        "int8 is for text encoders with OpenVINO. How far it changes an encoder's answers is logged at load.",
    )  # fmt: skip
    max_batch: int | None = _field(
        None, "SAGEMAKER_TS_BATCH_SIZE", "HFSERVE_MAX_BATCH", ge=1,
        help="Most items run together; 1 turns batching off; unset: 32 on CPU, 64 on GPU.",
    )  # fmt: skip
    max_batch_tokens: int | None = _field(
        None, "HFSERVE_MAX_BATCH_TOKENS", ge=1,
        help="Most tokens run together, padding included; one item always runs; unset: 256 on CPU, 4096 on GPU.",
    )  # fmt: skip
    kv_cache_mb: int | None = _field(
        None, "HFSERVE_KV_CACHE_MB", ge=1,
        help="Memory for the keys and values of all texts being generated, in MiB; unset: half of what is free.",
    )  # fmt: skip
    batch_delay_ms: FiniteFloat = _field(
        0, "SAGEMAKER_TS_MAX_BATCH_DELAY", "HFSERVE_BATCH_DELAY_MS", ge=0,
        help="Milliseconds that a free lane waits for company; 0 runs what is there, which is fastest.",
    )  # fmt: skip
    max_queued: int = _field(
        256, "MMS_JOB_QUEUE_SIZE", "HFSERVE_MAX_QUEUED", ge=1, help="Most requests waiting; one more is answered 503."
    )
    timeout_s: FiniteFloat | None = _field(
        None, "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", "HFSERVE_TIMEOUT", gt=0,
        help="Seconds a request may take, waiting included, before it is answered 504; unset: 60, in batch "
        "transform 3600.",
    )  # fmt: skip
    timeout_min: FiniteFloat | None = _field(
        None, "SAGEMAKER_MODEL_SERVER_TIMEOUT", gt=0, help="The same in minutes, when the seconds are unset."
    )
    stream_s: FiniteFloat = _field(
        480, "HFSERVE_STREAM_TIMEOUT", gt=0,
        help="Seconds a stream may take once it has begun; then it ends with an error. SageMaker ends it after 480.",
    )  # fmt: skip
    body_timeout_s: FiniteFloat = _field(
        30, "HFSERVE_BODY_TIMEOUT", gt=0, help="Seconds between two pieces of a request body before it is answered 408."
    )
    startup_timeout_s: FiniteFloat = _field(
        600, "SAGEMAKER_STARTUP_TIMEOUT", "HFSERVE_STARTUP_TIMEOUT", gt=0, help="Seconds a worker may take to load."
    )
    drain_s: FiniteFloat = _field(
        25, "HFSERVE_DRAIN", ge=0, help="Seconds that accepted requests get to end after SIGTERM."
    )
    hang_s: FiniteFloat = _field(
        30, "HFSERVE_HANG", gt=0, help="Seconds of silence, or past its deadline, after which a worker is replaced."
    )
    vmargs: str = _field("", "SAGEMAKER_MODEL_SERVER_VMARGS", help="More arguments for the Java virtual machine.")
    mms: dict[str, str] = _field({}, "MMS_", help="Any other setting of Multi Model Server, as MMS_<KEY>.")

    # What it tells
    log: Literal["auto", "json", "text"] = _field(
        "auto", "HFSERVE_LOG", help="`json`, `text` for people, or `auto`: text on a terminal."
    )
    log_level: int = _field(
        20, "SAGEMAKER_CONTAINER_LOG_LEVEL", "HFSERVE_LOG_LEVEL", help="Least level: a number or name."
    )
    region: str | None = _field(None, "SAGEMAKER_REGION", "AWS_REGION", help="AWS region, for hooks that ask.")
    playground: Literal["auto", "on", "off"] = _field(
        "auto", "HFSERVE_PLAYGROUND", help="A page at `/` to try the model; `auto`: on, except on SageMaker."
    )
    run_dir: Path | None = _field(
        None,
        "HFSERVE_RUN_DIR",
        help="Directory of sockets and configuration; unset: a temporary one, removed at the end.",
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _level_by_name(cls, value: Any) -> Any:
        return LEVELS.get(str(value).upper(), value)

    @field_validator("dtype")
    @classmethod
    def _int8_by_openvino(cls, value: str, others: ValidationInfo) -> str:
        if value == "int8" and (others.data.get("runtime") != "openvino" or not others.data.get("calibration")):
            raise ValueError("also set HFSERVE_RUNTIME=openvino, and HFSERVE_CALIBRATION to a file of sentences")
        return value

    @classmethod
    def read(cls, **flags: Any) -> Self:
        """Settings from flags (None: not given) and the environment; raises SettingsError naming what is wrong."""
        given = {name: value for name, value in flags.items() if value is not None}
        given.setdefault("mms", _mms_keys(os.environ))
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError("; ".join(_complaint(detail, flags) for detail in error.errors())) from None

    @classmethod
    def load(cls, run_dir: Path) -> Self:
        """The settings that the supervisor wrote into the run directory; tokens come by the environment alone."""
        return cls.model_validate_json((run_dir / "settings.json").read_bytes())

    def save(self, place: Path, *, run_dir: Path | None = None, workers: int = 1) -> None:
        """Write the settings into a directory, for the workers, who are told how many they are and the run directory.

        That is the same place, unless it is of one model of many.
        """
        told = self.model_copy(update={"run_dir": run_dir or place, "workers": workers})
        (place / "settings.json").write_text(told.model_dump_json(exclude={"token"}))

    @property
    def many(self) -> bool:
        """Whether models come and go, instead of one that is always there."""
        return self.multi_model or self.models is not None

    @property
    def timeout(self) -> float:
        """Seconds a request may take: the seconds win over the minutes (contract row 37)."""
        if self.timeout_s is not None:
            return self.timeout_s
        if self.timeout_min is not None:
            return self.timeout_min * 60
        return BATCH_S if self.batch else 60.0

    @property
    def body_limit(self) -> int:
        """Bytes a request body may have; 0 MB of batch transform means no limit of SageMaker's (contract row 16)."""
        unsaid, unlimited = (BATCH_MB, UNLIMITED_MB) if self.batch else (0, 0)
        return max(self.max_body, (unsaid if self.max_payload_mb is None else self.max_payload_mb or unlimited) * MIB)

    @property
    def on_sagemaker(self) -> bool:
        """Whether SageMaker started this process."""
        return "SAGEMAKER_REGION" in os.environ

    def options(self, device: str) -> "Options":
        """What these settings decide for a task on a device."""
        shared = {name: getattr(self, name) for name in Options.__dataclass_fields__ if name != "device"}
        return Options(device=device, **shared)

    @property
    def has_playground(self) -> bool:
        """Whether there is a page at `/`."""
        return self.playground == "on" or (self.playground == "auto" and not self.on_sagemaker)

    @property
    def model_name(self) -> str:
        """The model's name for people: a path of this machine is nobody's business."""
        return Path(self.model).name if self.model and Path(self.model).exists() else self.model or ""

    @property
    def model_dir(self) -> Path:
        """Where SageMaker puts the model."""
        return self.base_dir / "model"


@dataclass(frozen=True, slots=True)
class Options:
    """What the settings decide for a task: how its model is loaded, and how much a request may ask of it."""

    device: str = "cpu"
    dtype: str = "auto"
    runtime: Literal["auto", "torch", "openvino"] = "auto"
    calibration: str | None = None
    run_dir: Path | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    allow_urls: str = ""
    max_new_tokens: int = 16_384
    lanes: int | None = None
    max_batch: int | None = None
    kv_cache_mb: int | None = None
    max_labels: int = 1_000
    max_pixels: int = 50_000_000
    max_audio_s: float = 3_600


def names(field: FieldInfo) -> list[str]:
    """The variables of a field, the one that wins first."""
    alias = field.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []


def sources(flags: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting came from: a flag, the name of a variable, or the default."""
    environ = os.environ if environ is None else environ
    found = {}
    for name, field in Settings.model_fields.items():
        variable = next((v for v in names(field) if environ.get(v)), None)
        if name == "mms" and _mms_keys(environ):
            variable = "MMS_*"
        flag = f"--{name.replace('_', '-')}" if name != "model" else "MODEL"
        found[name] = flag if flags.get(name) is not None else variable or "default"
    return found


def shown(settings: Settings) -> dict[str, str]:
    """Every setting as text; secrets masked."""
    return {name: "" if value is None else str(value) for name, value in settings}


def child_environment(**changes: str) -> dict[str, str]:
    """The environment for a child process, changed."""
    return {**os.environ, **changes}


def markdown() -> str:
    """docs/settings.md, written from the fields themselves."""
    lines = ["# Settings", "", (sys.modules[__name__].__doc__ or "").partition("\n\n")[2].strip(), ""]
    lines += ["| setting | variables, first wins | default | what it does |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variables = ", ".join(f"`{v}`" for v in names(field))
        default = "unset" if field.default is None else f"`{field.default}`" if field.default != "" else "empty"
        lines.append(f"| `{name}` | {variables} | {default} | {_cell(field.description)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _mms_keys(environ: Mapping[str, str]) -> dict[str, str]:
    known = {variable for field in Settings.model_fields.values() for variable in names(field)}
    keys = {k: v for k, v in environ.items() if k.startswith("MMS_") and v and k not in known}
    return {
        k.removeprefix("MMS_").lower(): v for k, v in keys.items() if k.removeprefix("MMS_").lower() not in OWN_MMS_KEYS
    }


def _complaint(detail: Any, flags: Mapping[str, Any]) -> str:
    place = str(detail["loc"][0]) if detail["loc"] else "settings"
    name = next((n for n, field in Settings.model_fields.items() if place in {n, *names(field)}), place)
    variables = names(Settings.model_fields[name]) if name in Settings.model_fields else []
    variable = next((v for v in variables if os.environ.get(v)), place)
    given = f"--{name.replace('_', '-')}" if flags.get(name) is not None else variable
    return f"{given}={detail['input']!r}: {detail['msg'].removeprefix('Value error, ')}"
