"""A loaded model with its hooks: takes requests apart into items, runs items, and puts answers together.

`Model.run(items) -> outcomes` is the only way to the model. When a shared pass raises, its items are run again one by
one, so that the guilty one fails alone.
"""

import contextlib
import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hfserve import codecs, hooks, openai, openapi, streaming
from hfserve.artifacts import Artifact
from hfserve.batch import Lines, answer_of
from hfserve.codecs import Records, parameters
from hfserve.context import Context
from hfserve.continuous import Steps
from hfserve.errors import (
    HookError,
    InvalidInput,
    LoadError,
    ModelError,
    NotAcceptable,
    NotFound,
    OutOfMemory,
    ServeError,
    first_line,
)
from hfserve.hooks import Hooks
from hfserve.logs import request_id
from hfserve.messages import JSON, Item, Job, Outcome, Part, Reply, Request, Stream
from hfserve.runtimes import device as devices
from hfserve.settings import Options, Settings
from hfserve.streaming import pieces
from hfserve.tasks import fetch, kinds
from hfserve.tasks.base import Task, TaskRunner, Telling, native

log = logging.getLogger(__name__)

TEXTUAL = ("application/json", "text/csv", "application/csv")
TABLES = ("text/csv", "application/csv")
NAMED_CUTS = 10


class Model(Protocol):
    """What a worker serves."""

    task: str
    concurrent: bool
    """Whether several lanes may be in `run` at once."""
    slow_to_read: bool
    """Whether reading even a small request may take long: it names files by URL, or unpacks to a long sound."""

    steps: Sequence[Steps]
    """What makes stepwise items, each in a thread of its own; none where there are no such items."""

    def prepare(self, request: Request) -> Job:
        """Take a request apart; raises ServeError when it cannot be read."""

    def run(self, items: Sequence[Item], threads: int) -> list[Outcome]:
        """An outcome for each item; never raises an Exception."""

    def warm_up(self) -> None:
        """Answer an example, so that the first request is as fast as the second; raises LoadError."""

    def openapi(self) -> dict[str, Any]:
        """What is served; after `warm_up`, with the example as it was answered."""


class TaskModel:
    """A task without hooks: many requests share a pass."""

    def __init__(self, runner: TaskRunner, settings: Settings) -> None:
        self.task = runner.task.name
        self.concurrent = runner.concurrent
        self.steps: Sequence[Steps] = getattr(runner, "steps", ())
        self._runner = runner
        self._tells = isinstance(runner, Telling)
        self._settings = settings
        self.slow_to_read = bool(settings.allow_urls) or runner.task.takes in kinds.PLAYED
        self._answered: Any = openapi.UNANSWERED

    def prepare(self, request: Request) -> Job:
        """The items of each record of the body; a body without records is one."""
        if lines := self._lines(request):
            return self._by_lines(lines, request)
        data = _read(request, self._settings)
        if answering := openai.read(request.path, data, self._runner, self._settings.model_name, request.request_id):
            return self._in_openai_words(answering)
        data, form = streaming.asked(data, request.accept, of_texts=self._tells)
        records = _each(data) if form and not self._tells else data if isinstance(data, Records) else [data]
        items: list[Item] = []
        bounds = []
        for number, record in enumerate(records):
            start = len(items)
            items += self._items(record, f"record {number + 1}: " if isinstance(data, Records) else "")
            bounds.append(slice(start, len(items)))
        self._count(items)
        cuts = _told_of_cuts(item.cut for item in items)
        if form and self._tells:
            items = self._told(items)
            return Job(items, _never, self._texts(items, form), cuts)
        if form:
            return Job(items, _never, self._answers(records, items, bounds, form), cuts)

        def finish(outcomes: Sequence[Outcome]) -> Reply:
            _raise_first(outcomes)
            answers = [
                self._runner.result(record, outcomes[bound]) for record, bound in zip(records, bounds, strict=True)
            ]
            answer = answers if isinstance(data, Records) else answers[0]
            return replace(_encoded(answer, request, self._settings.default_accept), headers=cuts)

        return Job(items, finish)

    def _lines(self, request: Request) -> Lines | None:
        """The lines of a body that are answered by lines; tokens of texts may be asked for instead."""
        asks_for_tokens = self._tells and not self._settings.batch and streaming.form(codecs.preferred(request.accept))
        if asks_for_tokens or request.path in openai.PATHS:
            return None
        return Lines.of(request, self._settings, takes=self._runner.task.takes, of_all=[BrokenDevice])

    def _by_lines(self, lines: Lines, request: Request) -> Job:
        headers: dict[str, str] = {}
        cuts: set[str] = set()

        def read(record: Any) -> list[Item]:
            fetch.until.set(request.deadline)
            items = self._runner.items(record)
            self._count(items)
            if cut := {item.cut for item in items if item.cut} - cuts:
                cuts.update(cut)
                headers.update(_told_of_cuts(sorted(cuts)))
            return items

        def tell(record: Any, outcomes: Sequence[Outcome]) -> Any:
            _raise_first(outcomes)
            return self._runner.result(record, outcomes)

        return lines.job(read, tell, headers)

    def _count(self, items: Sequence[Item]) -> None:
        if len(items) > self._settings.max_items:
            raise InvalidInput(f"{len(items)} inputs in one request; this server takes {self._settings.max_items}")

    def _in_openai_words(self, answering: openai.Answering) -> Job:
        """A request of OpenAI's: an item for each choice."""
        items = [item for data in answering.requests for item in self._runner.items(data)]
        cuts = _told_of_cuts(item.cut for item in items)

        def finish(outcomes: Sequence[Outcome]) -> Reply:
            _raise_first(outcomes)
            return Reply(body=codecs.encode(answering.body(items, outcomes), JSON), headers=cuts)

        if not answering.streams:
            return Job(items, finish)
        items = self._told(items)
        assert isinstance(self._runner, Telling)
        events = [self._runner.events(item) for item in items]
        form = streaming.FORMS[streaming.EVENTS]

        def told(number: int, piece: Any) -> bytes:
            return b"".join(map(form.event, answering.events(number, items[number], events[number].of(piece))))

        def end() -> bytes:
            return b"".join(map(form.event, answering.last())) + form.end

        return Job(items, _never, Stream(form.content_type, told=told, end=end), cuts)

    def _told(self, items: Sequence[Item]) -> list[Item]:
        assert isinstance(self._runner, Telling)
        return [self._runner.told(item) for item in items]

    def _texts(self, items: Sequence[Item], form: streaming.Form) -> Stream:
        """Every token as an event; of plain text, what it adds."""
        assert isinstance(self._runner, Telling)
        events = [self._runner.events(item) for item in items]

        def told(number: int, piece: Any) -> bytes:
            event = events[number].of(piece)
            if form.content_type == streaming.PLAIN:
                return form.event(event["token"]["text"])
            return form.event({"input": number, **event} if len(items) > 1 else event)

        if form.content_type == streaming.PLAIN and len(items) > 1:
            raise InvalidInput("a stream of plain text is of one input; ask for text/event-stream, or send one")
        return Stream(form.content_type, told=told, end=lambda: form.end)

    def _answers(
        self, records: Sequence[Any], items: Sequence[Item], bounds: Sequence[slice], form: streaming.Form
    ) -> Stream:
        """The answer of each input as an event."""
        if form.content_type == streaming.PLAIN:
            raise NotAcceptable(f"this task streams {streaming.EVENTS} and {streaming.LINES}")

        def answered(record: Any, outcomes: Sequence[Outcome]) -> bytes:
            _raise_first(outcomes)
            return form.event(self._runner.result(record, outcomes))

        bounded = zip(records, bounds, strict=True)
        parts = (Part(items[bound], partial(answered, record)) for record, bound in bounded)
        return Stream(form.content_type, parts=parts, end=lambda: form.end)

    def run(self, items: Sequence[Item], threads: int) -> list[Outcome]:
        """A shared pass; singly when it raises."""
        with devices.threads(threads):
            return run_or_retry(self._runner.run, items)

    def warm_up(self) -> None:
        """Run the task's example, alone and in company."""
        example = (
            {"inputs": self._runner.task.example}
            if not _is_body(self._runner.task.example)
            else self._runner.task.example
        )
        for _ in range(2):
            items = self._runner.items(example)
            outcomes = self.run(items, 1)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    return self._example_failed(outcome)
            self._answered = json.loads(codecs.encode(self._runner.result(example, outcomes), JSON))
        return None

    def openapi(self) -> dict[str, Any]:
        """The task's types, and its example with the answer."""
        options = self._settings.options("cpu")
        return openapi.document(
            self._runner.task, options, model=self._settings.model_name, answer=self._answered,
            openai=openai.bodies(self._runner),
        )  # fmt: skip

    def _example_failed(self, error: BaseException) -> None:
        """A native task answers its example; some models of other tasks want more than an example can know."""
        sentence = f"the model loaded but cannot answer the example of {self.task}: {error}"
        if self._runner.task.native:
            raise LoadError(sentence) from error
        log.warning(sentence)

    def _items(self, record: Any, place: str) -> list[Item]:
        if isinstance(record, ServeError):
            raise type(record)(f"{place}{record}")
        try:
            return self._runner.items(record)
        except ServeError as error:
            raise type(error)(f"{place}{error}") from error


class HookModel:
    """The user's functions, with defaults for those that are not defined (contract rows 45-48).

    All of them run on a lane, input_fn and output_fn too: code written for one thread stays on one.
    """

    def __init__(
        self, functions: Hooks, model: Any, runner: TaskRunner | None, settings: Settings, *,
        model_dir: Path, gpu_id: int | None,
    ) -> None:  # fmt: skip
        self.task = runner.task.name if runner else settings.task or "custom"
        self.steps: Sequence[Steps] = ()
        self.concurrent = False
        self.slow_to_read = False
        self._hooks = functions
        self._model = model
        self._runner = runner
        self._settings = settings
        self._model_dir = model_dir
        self._gpu_id = gpu_id

    def prepare(self, request: Request) -> Job:
        """One item: what a request means is for the hooks to say."""
        if lines := self._lines(request):
            return self._by_lines(lines, request)

        def finish(outcomes: Sequence[Outcome]) -> Reply:
            _raise_first(outcomes)
            reply: Reply = outcomes[0]
            return reply

        return Job([self._item(request)], finish)

    def _lines(self, request: Request) -> Lines | None:
        """The lines of a body that the user's code does not read itself, each of them a request of its own."""
        own = self._hooks.input_fn or self._hooks.transform_fn or self._hooks.handle
        return None if own else Lines.of(request, self._settings, of_all=[BrokenDevice])

    def _by_lines(self, lines: Lines, request: Request) -> Job:
        headers = {**request.headers, "content-type": JSON, "accept": JSON, "x-amzn-sagemaker-accept": JSON}

        def read(record: Any) -> list[Item]:
            return [self._item(replace(request, body=codecs.encode(record, JSON), headers=headers, query=""))]

        def tell(record: Any, outcomes: Sequence[Outcome]) -> Any:
            _raise_first(outcomes)
            return answer_of(outcomes[0])

        return lines.job(read, tell)

    def _item(self, request: Request) -> Item:
        return Item(request, batch_key="predict_batch_fn" if self._hooks.predict_batch_fn else object())

    def run(self, items: Sequence[Item], threads: int) -> list[Outcome]:
        """Each request through the hooks; predict_batch_fn sees all of them at once."""
        contexts = [Context(item.data, model_dir=self._model_dir, gpu_id=self._gpu_id) for item in items]
        with devices.threads(threads):
            if self._hooks.handle:
                return [self._caught(self._handle, context) for context in contexts]
            if self._hooks.transform_fn:
                return [self._caught(self._transform, context) for context in contexts]
            data = [self._caught(self._input, context) for context in contexts]
            predictions = self._predictions(data, contexts)
            return [
                prediction if isinstance(prediction, BaseException) else self._caught(self._output, context, prediction)
                for prediction, context in zip(predictions, contexts, strict=True)
            ]

    def warm_up(self) -> None:
        """Run model_warmup_fn, when the user has one."""
        if self._hooks.model_warmup_fn:
            context = Context(None, model_dir=self._model_dir, gpu_id=self._gpu_id)
            _guarded("model_warmup_fn", self._hooks.model_warmup_fn, str(self._model_dir), self._model, context)

    @property
    def talks(self) -> bool:
        """Whether bidi_fn answers whole connections."""
        return self._hooks.bidi_fn is not None

    def bidi(self, frames: Any, request: Request) -> Any:
        """What bidi_fn makes of the frames of a connection: an iterator of answers, async or not."""
        assert self._hooks.bidi_fn
        context = Context(request, model_dir=self._model_dir, gpu_id=self._gpu_id)
        return self._hooks.bidi_fn(frames, self._model, context)

    def failure(self, error: Exception) -> ServeError:
        """An error of bidi_fn as a client is told of it."""
        return error if isinstance(error, ServeError) else _user_error(error)

    def openapi(self) -> dict[str, Any]:
        """A task's types where the hooks leave requests and answers to it; else what any model of the user's takes."""
        own, options, model = self._hooks, self._settings.options("cpu"), self._settings.model_name
        if self._runner is None or own.input_fn or own.output_fn or own.transform_fn:
            return openapi.custom(options, model=model)
        return openapi.document(self._runner.task, options, model=model)

    def _caught(self, function: Callable[..., Any], context: Context, *arguments: Any) -> Any:
        token = request_id.set(context.request.request_id)
        try:
            return function(context, *arguments)
        except ServeError as error:
            return error
        except Exception as error:
            return _user_error(error)
        finally:
            request_id.reset(token)

    def _handle(self, context: Context) -> Reply:
        assert self._hooks.handle
        request = context.request
        answers = self._hooks.handle([{"body": bytearray(request.body)}], context)
        if not isinstance(answers, list) or len(answers) != 1:
            raise ModelError("handle(data, context) should return a list with one answer for each of data")
        return self._reply(answers[0], JSON, context)

    def _transform(self, context: Context) -> Reply:
        assert self._hooks.transform_fn
        accept = self._accept(context.request)
        answer = self._hooks.transform_fn(self._model, _body(context.request), _type(context.request), accept, context)
        return self._reply(answer, accept, context)

    def _input(self, context: Context) -> Any:
        request = context.request
        if self._hooks.input_fn:
            return self._hooks.input_fn(_body(request), _type(request), context)
        data = _read(request, self._settings)
        if isinstance(data, Records):
            _raise_first(data)
            return list(data)
        return data

    def _predictions(self, data: list[Any], contexts: list[Context]) -> list[Outcome]:
        good = [i for i, each in enumerate(data) if not isinstance(each, BaseException)]
        if self._hooks.predict_batch_fn:
            outcomes = run_or_retry(lambda some: self._predict_batch([data[i] for i in some], contexts[some[0]]), good)
        else:
            outcomes = [self._caught(self._predict, contexts[i], data[i]) for i in good]
        predictions = list(data)
        for i, outcome in zip(good, outcomes, strict=True):
            predictions[i] = outcome
        return predictions

    def _predict_batch(self, data: list[Any], context: Context) -> list[Any]:
        assert self._hooks.predict_batch_fn
        answers = list(self._hooks.predict_batch_fn(data, self._model, context))
        if len(answers) != len(data):
            raise ModelError(f"predict_batch_fn got {len(data)} items and returned {len(answers)} answers")
        return answers

    def _predict(self, context: Context, data: Any) -> Any:
        if self._hooks.predict_fn:
            return self._hooks.predict_fn(data, self._model, context)
        if self._runner:
            items = self._runner.items(data)
            outcomes = run_or_retry(self._runner.run, items)
            _raise_first(outcomes)
            return self._runner.result(data, outcomes)
        if not callable(self._model):
            raise NotFound("this model answers /invocations-bidirectional-stream only; define predict_fn for requests")
        inputs = data.pop("inputs", data) if isinstance(data, dict) else data
        parameters = data.pop("parameters", None) or {} if isinstance(data, dict) else {}
        return self._model(inputs, **parameters)

    def _output(self, context: Context, prediction: Any) -> Reply:
        accept = self._accept(context.request)
        if self._hooks.output_fn:
            return self._reply(self._hooks.output_fn(prediction, accept, context), accept, context)
        if _is_stream(prediction) or isinstance(prediction, bytes):
            return self._reply(prediction, accept, context)
        reply = _encoded(prediction, context.request, self._settings.default_accept)
        return self._dressed(reply, context)

    def _reply(self, answer: Any, content_type: str, context: Context) -> Reply:
        """What output_fn, transform_fn or handle returned, as a reply: body, (body, content_type), or a generator."""
        if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], str):
            answer, content_type = answer
        if _is_stream(answer):
            return self._dressed(
                Reply(content_type=content_type, chunks=_telling(pieces(answer, content_type))), context
            )
        if isinstance(answer, str):
            answer = answer.encode()
        elif not isinstance(answer, bytes | bytearray | memoryview):
            content_type = content_type if content_type in codecs.offers(answer) else JSON
            answer = codecs.encode(answer, content_type)
        return self._dressed(Reply(body=bytes(answer), content_type=content_type), context)

    def _dressed(self, reply: Reply, context: Context) -> Reply:
        """The reply with the status and headers that the hooks set on the context."""
        headers = {k.lower(): v for k, v in context.get_response_headers(0).items()}
        content_type = headers.pop("content-type", reply.content_type)
        return replace(reply, status=context.get_response_status(0)[0], content_type=content_type, headers=headers)

    def _accept(self, request: Request) -> str:
        """The type that the client wants most, as hooks compare it with a plain string."""
        best = codecs.preferred(request.accept)
        return self._settings.default_accept if best in {"", "*/*"} else best


def load(artifact: Artifact, settings: Settings, *, slot: int = 0) -> Model:
    """Load what the artifact holds; raises StartError with a sentence."""
    from hfserve.runtimes import lean
    from hfserve.tasks import detect, table

    functions = hooks.find(artifact.code_dir, settings.program, settings.handler)
    device = devices.choose(settings.device, slot)
    devices.check(device)
    gpu_id = int(device.partition(":")[2] or 0) if device.startswith("cuda") else None
    context = Context(None, model_dir=artifact.model_dir, gpu_id=gpu_id)
    model_dir = str(artifact.model_dir)
    if functions.pre_model_fn:
        _guarded("pre_model_fn", functions.pre_model_fn, model_dir, context)
    if functions.handle:
        _guarded("handle", functions.handle, None, context)
        return HookModel(functions, None, None, settings, model_dir=artifact.model_dir, gpu_id=gpu_id)
    if functions.model_fn:
        model = _guarded("model_fn", functions.model_fn, model_dir, context)
        answering = (functions.predict_fn, functions.predict_batch_fn, functions.transform_fn, functions.bidi_fn)
        if not (any(answering) or callable(model)):
            raise HookError(f"model_fn returned {type(model).__name__}, which cannot be called; define predict_fn too")
        runner = (
            None
            if functions.predict_fn or functions.predict_batch_fn
            else _runner_of(model, artifact.model_dir, settings.options(device))
        )
        return HookModel(functions, model, runner, settings, model_dir=artifact.model_dir, gpu_id=gpu_id)
    task = table.find(settings.task or detect.detect(artifact.model_dir))
    options = settings.options(device)
    if device == "cpu" and not functions.any and not options.trust_remote_code:
        lean.preload()
    predicting = functions.predict_fn or functions.predict_batch_fn or functions.transform_fn
    if predicting or functions.bidi_fn:
        from hfserve.tasks import callables

        pipe = callables.load(task, artifact.model_dir, options)
        own = None if predicting else getattr(pipe, "runner", None) or _runner_of(pipe, artifact.model_dir, options)
        return HookModel(functions, pipe, own, settings, model_dir=artifact.model_dir, gpu_id=gpu_id)
    runner = _runner(task, artifact.model_dir, options)
    if functions.any:
        return HookModel(functions, None, runner, settings, model_dir=artifact.model_dir, gpu_id=gpu_id)
    return TaskModel(runner, settings)


def _runner(task: Task, model_dir: Path, options: Options) -> TaskRunner:
    """What runs the task: our own code where there is some and the tokenizer allows it, else the pipeline."""
    from hfserve.runtimes.tokenizing import NoFastTokenizer

    if task.native:
        try:
            return native(task, model_dir, options)
        except NoFastTokenizer as error:
            log.warning("%s runs one request at a time: %s", task.name, error)
    from hfserve.tasks.pipeline import PipelineRunner
    from hfserve.tasks.telling import TellingPipelineRunner

    return (TellingPipelineRunner if task.streams else PipelineRunner)(task, model_dir, options)


def _runner_of(model: Any, model_dir: Path, options: Options) -> TaskRunner | None:
    """A pipeline that model_fn returned is asked as ours is, so that no client can make it fetch or open things."""
    from hfserve.tasks import table

    if not type(model).__module__.startswith("transformers.pipelines.") or model.task not in table.TASKS:
        return None
    from hfserve.tasks.pipeline import PipelineRunner

    return PipelineRunner(table.TASKS[model.task], model_dir, options, pipe=model)


def run_or_retry(run: Callable[[Sequence[Any]], list[Any]], items: Sequence[Any]) -> list[Outcome]:
    """A shared pass; when it raises, each item alone, so that only the guilty fail."""
    if not items:
        return []
    try:
        outcomes = run(items)
        if len(outcomes) != len(items):
            raise ModelError(f"{len(items)} items were run and {len(outcomes)} outcomes came back")
        return [_told(outcome) for outcome in outcomes]
    except ServeError as error:
        failure: Exception = error
    except Exception as error:
        failure = _user_error(error)
    if len(items) == 1:
        return [failure]
    log.warning("a batch of %d failed and is run again one by one: %s", len(items), failure)
    return [run_or_retry(run, [item])[0] for item in items]


def _guarded(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a hook at load; its failure is the user's sentence, its traceback goes to the log."""
    try:
        return function(*arguments)
    except Exception as error:
        log.exception("%s failed", name)
        raise HookError(f"{name} raised {type(error).__name__}: {error}{hooks.where(error)}") from error


def _told(outcome: Outcome) -> Outcome:
    """An outcome whose error, when it is one, is fit for a client."""
    plain = isinstance(outcome, Exception) and not isinstance(outcome, ServeError)
    return _user_error(outcome) if plain else outcome


async def _telling(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of user code, whose error, when there is one, is fit for a client."""
    async with contextlib.aclosing(chunks) as source:  # type: ignore[type-var]
        try:
            async for chunk in source:
                yield chunk
        except Exception as error:
            raise _told(error) from error


def _user_error(error: Exception) -> ServeError:
    log.error("the model or its code failed", exc_info=error)
    if devices.broken(error):
        return BrokenDevice(f"the GPU cannot be used any more: {first_line(error)}")
    if devices.out_of_memory(error):
        return OutOfMemory(f"out of memory: {first_line(error)}{hooks.where(error)}")
    return ModelError(f"{type(error).__name__}: {error}{hooks.where(error)}")


class BrokenDevice(ModelError):
    """The GPU cannot be used any more by this process; the worker must be replaced."""


def _raise_first(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _told_of_cuts(cuts: Iterable[str]) -> dict[str, str]:
    """The header that names what was truncated, the first few of many."""
    cut = list(dict.fromkeys(cut for cut in cuts if cut))
    more = [f"and {len(cut) - NAMED_CUTS} more"] if len(cut) > NAMED_CUTS else []
    return {"X-HFServe-Truncated": ", ".join(cut[:NAMED_CUTS] + more)} if cut else {}


def _encoded(answer: Any, request: Request, default: str) -> Reply:
    content_type = codecs.form(answer, request.accept, default)
    return Reply(body=codecs.encode(answer, content_type), content_type=content_type)


def _read(request: Request, settings: Settings) -> Any:
    """The body as a value, with the parameters beside it. A table is one list of inputs, as the toolkit has it."""
    fetch.until.set(request.deadline)
    beside = parameters.beside(request.query, request.headers)
    data = codecs.decode(request.body, request.content_type, max_pixels=settings.max_pixels)
    if isinstance(data, Records) and codecs.essence(request.content_type) in TABLES:
        data = _table(data)
    return parameters.under(beside, data)


def _table(records: Records) -> dict[str, Any]:
    """One list of inputs; a lone column is named inputs."""
    _raise_first(records)
    return {"inputs": [record["inputs"] if set(record) == {"inputs"} else record for record in records]}


def _body(request: Request) -> str | bytes:
    """The body as hooks expect it: text for JSON and CSV, bytes otherwise (contract row 46)."""
    kind = codecs.essence(request.content_type) or JSON
    if kind not in TEXTUAL and not kind.endswith("+json"):
        return request.body
    try:
        return request.body.decode(codecs.charset(request.content_type))
    except (UnicodeDecodeError, LookupError) as error:
        raise InvalidInput(f"the body is not text in {codecs.charset(request.content_type)}: {error}") from None


def _type(request: Request) -> str:
    return codecs.essence(request.content_type) or JSON


def _is_stream(answer: Any) -> bool:
    return isinstance(answer, Iterator | AsyncIterator) or inspect.isgenerator(answer)


def _each(data: Any) -> Sequence[Any]:
    """A record for each input of a list, with the same parameters."""
    if isinstance(data, Records):
        return data
    if isinstance(data, dict) and isinstance(data.get("inputs"), list):
        return [{**data, "inputs": each} for each in data["inputs"]]
    return data if isinstance(data, list) else [data]


def _never(outcomes: Sequence[Outcome]) -> Reply:
    raise AssertionError("a stream has no reply at its end")


def _is_body(example: Any) -> bool:
    return isinstance(example, dict) and "inputs" in example
