"""The toolkit's service, for code that makes its own of it: one that overrides a step keeps the others.

In `code/service.py`, served with SAGEMAKER_HANDLER=service:handle:

    class Service(HuggingFaceHandlerService):
        def preprocess(self, input_data, content_type, context=None): ...

    handle = Service().handle
"""

import inspect
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from hfserve import codecs, hooks
from hfserve.codecs.media import text
from hfserve.context import Headers
from hfserve.errors import ServeError
from hfserve.settings import Settings
from hfserve.tasks import detect
from sagemaker_huggingface_inference_toolkit import content_types, decoder_encoder
from sagemaker_huggingface_inference_toolkit.transformers_utils import get_pipeline, infer_task_from_model_architecture

STEPS = {
    "model_fn": "load", "input_fn": "preprocess", "predict_fn": "predict", "output_fn": "postprocess",
    "transform_fn": "transform_fn",
}  # fmt: skip
"""The steps that hooks in `code/inference.py` take over."""


class HuggingFaceHandlerService:
    """Loads a model once, and takes each request through preprocess, predict and postprocess.

    A step that takes one more argument gets the context for it.
    """

    def __init__(self) -> None:
        self.initialized = False
        self.attempted_init = False
        self.error: Any = None
        self.batch_size = 1
        self.device: int = -1
        self.model: Any = None
        self.model_dir: str | None = None
        self.manifest: Any = None
        self.context: Any = None

    def initialize(self, context: Any) -> None:
        """Load the model; called once, before the server is ready."""
        self.attempted_init = True
        self.context = context
        self.manifest = context.manifest
        self.model_dir = context.system_properties["model_dir"]
        self.batch_size = context.system_properties["batch_size"]
        self.validate_and_initialize_user_module()
        self.device = self.get_device()
        self.model = _call(self.load, self.model_dir, context=context)
        self.initialized = True

    def get_device(self) -> int:
        """The number of the worker's GPU, -1 where it has none."""
        gpu = self.context.system_properties.get("gpu_id")
        return -1 if gpu is None else int(gpu)

    def load(self, model_dir: str, context: Any = None) -> Any:
        """The model: the pipeline of HF_TASK, or of the task that the model's files tell."""
        return get_pipeline(task=self._task(Path(model_dir)), device=self.device, model_dir=model_dir)

    def preprocess(self, input_data: Any, content_type: str, context: Any = None) -> Any:
        """The body as what `predict` takes; `input_data` is text for JSON and CSV, else bytes."""
        return decoder_encoder.decode(input_data, content_type)

    def predict(self, data: Any, model: Any, context: Any = None) -> Any:
        """The model's answer to `{"inputs", "parameters"}`, or to bare inputs."""
        from hfserve.tasks import callables

        device = getattr(model, "device", "cpu")
        return callables.ask(model, data, Path(self.model_dir or ""), self._settings.options(str(device)))

    def postprocess(self, prediction: Any, accept: str, context: Any = None) -> Any:
        """The answer's body."""
        return decoder_encoder.encode(prediction, accept)

    def transform_fn(self, model: Any, input_data: Any, content_type: str, accept: str, context: Any = None) -> Any:
        """All three steps in a row."""
        data = _call(self.preprocess, input_data, content_type, context=context)
        prediction = _call(self.predict, data, model, context=context)
        return _call(self.postprocess, prediction, accept, context=context)

    def handle(self, data: Any, context: Any) -> list[Any] | None:
        """Answer each request; without one, which is how the server begins, load the model.

        An error keeps its status: ours have one each, PredictionException has its own, any other is a 500.
        """
        if not self.initialized:
            self.initialize(context)
        if data is None:
            return None
        try:
            return [self._answer(each["body"], index, context) for index, each in enumerate(data)]
        except Exception as error:
            raise _with_status(error) from error

    def validate_and_initialize_user_module(self) -> None:
        """Let the hooks in `code/inference.py`, when it has some, take over their steps."""
        program = self._settings.program
        code_dir = next((place for place in self._code_dirs() if (place / program).is_file()), None)
        if not code_dir or Path(program).stem == type(self).__module__ or not _names_hooks(code_dir / program):
            return
        found = hooks.find(code_dir, program, None)
        for name, step in STEPS.items():
            if hook := getattr(found, name):
                setattr(self, step, hook)

    @cached_property
    def _settings(self) -> Settings:
        return Settings.read()

    def _code_dirs(self) -> list[Path]:
        """Where user code may lie; not on the path is what a Hub model brings and nobody said to trust."""
        submitted = [Path(self._settings.submit_directory)] if self._settings.submit_directory else []
        places = [*submitted, Path(self.model_dir or "", "code"), self._settings.model_dir / "code"]
        return [place.absolute() for place in places if str(place.absolute()) in sys.path]

    def _task(self, model_dir: Path) -> str:
        if self._settings.task:
            return self._settings.task
        config = model_dir / "config.json"
        return infer_task_from_model_architecture(config) if config.is_file() else detect.detect(model_dir)

    def _answer(self, body: Any, index: int, context: Any) -> Any:
        headers = Headers(
            {name.lower(): value for name, value in context.request_processor[index].get_request_properties().items()}
        )
        sent = headers.get("content-type", "")
        content_type = codecs.essence(sent) or content_types.JSON
        if content_type in content_types.UTF8_TYPES:
            body = text(bytes(body), codecs.charset(sent))
        wanted = headers.get("x-amzn-sagemaker-accept") or headers.get("accept", "")
        accept = codecs.preferred(wanted) or self._settings.default_accept
        answer = _call(self.transform_fn, self.model, body, content_type, accept, context=context)
        if isinstance(answer, tuple):  # our hooks may name the type of their answer
            answer, accept = answer
        if context.get_response_content_type(index) is None:
            context.set_response_content_type(index, accept)
        return answer


def _call(step: Callable[..., Any], *arguments: Any, context: Any) -> Any:
    """Take a step, with the context when it has room for it."""
    try:
        inspect.signature(step).bind(*arguments, context)
    except TypeError:
        return step(*arguments)
    return step(*arguments, context)


def _names_hooks(path: Path) -> bool:
    source = path.read_text("utf-8", "replace")
    return any(name in source for name in hooks.HOOKS)


def _with_status(error: Exception) -> Exception:
    """Multi Model Server's PredictionException as an error of ours; others as they are."""
    from mms.service import PredictionException

    if not isinstance(error, PredictionException) or error.error_code not in range(400, 600):
        return error
    kinds = {kind.status: kind for kind in reversed(ServeError.__subclasses__())}
    told = kinds.get(error.error_code, ServeError)(str(error.message))
    told.status = error.error_code
    return told
