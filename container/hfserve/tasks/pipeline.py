"""Serves every task that has no code of its own through transformers' pipelines, one request at a time.

What a client sends is read here, before a pipeline sees it: transformers takes any string in the place of an image, a
sound or a film for a URL to fetch or a file to open, and we do neither. Media come as bytes, as base64 or as a data
URL. In answers, pictures (masks, depth) are PNG in base64 and sounds are WAV in base64, as the Hub's API gives them.
"""

import base64
import contextlib
import importlib.util
import inspect
import io
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hfserve.codecs import image as pictures
from hfserve.errors import BadRequest, InvalidInput, LoadError, PayloadTooLarge, ServeError, UnsupportedMediaType
from hfserve.messages import Item, Outcome
from hfserve.runtimes import torch as runtime
from hfserve.tasks.base import Task
from hfserve.tasks.forms import kind, split

LONGEST_MESSAGE = 300
SECONDS_TO_DECODE = 30
LEAST_RATE, MOST_RATE = 4_000, 400_000
NEEDS = {"mask-generation": "torchvision", "table-question-answering": "pandas", "video-classification": "av"}
"""Packages that a task's pipeline imports, some of them only when a request is there."""


def build(
    task_name: str,
    model_dir: Path,
    *,
    device: str,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    dtype: Any = None,
) -> Any:
    """transformers' pipeline of a directory on a device; raises LoadError with the reason."""
    from transformers import pipeline

    pickled = runtime.only_pickles(model_dir, allowed=allow_pickle)
    package = NEEDS.get(task_name)
    if package and not importlib.util.find_spec(package):
        raise LoadError(f"{task_name} needs the package {package}, which is not installed")
    make: Any = pipeline
    try:
        return make(
            task_name, model=str(model_dir), device=device, trust_remote_code=trust_remote_code,
            dtype=dtype or (torch.float32 if device == "cpu" else "auto"),
            model_kwargs={"use_safetensors": not pickled, "weights_only": True},
        )  # fmt: skip
    except Exception as error:
        raise LoadError(f"the {task_name} model did not load: {_reason(error)}") from error


class PipelineRunner:
    """A task run by transformers' pipeline; each request is one item, and no two share a pass."""

    concurrent = False

    def __init__(
        self, task: Task, model_dir: Path, *, device: str, trust_remote_code: bool = False, allow_pickle: bool = False,
        dtype: Any = None, pipe: Any = None,
    ) -> None:  # fmt: skip
        self.task = task
        self.pipe = pipe or build(
            task.name,
            model_dir,
            device=device,
            trust_remote_code=trust_remote_code,
            allow_pickle=allow_pickle,
            dtype=dtype,
        )
        self._form = FORMS[task.name]
        self._names = _names(self.pipe) | self._form.more
        self._generation = _generation(self.pipe)

    def items(self, data: Any) -> list[Item]:
        """The whole request as one item."""
        inputs, parameters = _fields(*_parts(data), self._form)
        if inputs is None:
            raise InvalidInput(f"inputs is missing; {self.task.name} takes {self.task.takes}")
        if isinstance(inputs, list) and not self._form.one(inputs):
            read = [self._form.read(each, f"inputs[{i}]", self.pipe) for i, each in enumerate(inputs)]
        else:
            read = self._form.read(inputs, "inputs", self.pipe)
        return [Item((read, self._parameters(parameters)), batch_key=object())]

    def run(self, items: Sequence[Item]) -> list[Outcome]:
        """The pipeline's answer to each item as JSON takes it, or what is wrong with the item."""
        return [self._outcome(*item.data) for item in items]

    def result(self, data: Any, results: Sequence[Any]) -> Any:
        """The answer to the request, which was one item."""
        return results[0]

    def _outcome(self, inputs: Any, parameters: Mapping[str, Any]) -> Outcome:
        from transformers.pipelines.base import PipelineException

        try:
            with runtime.memory_guard():
                return jsonable(self._answer(inputs, parameters))
        except ServeError as error:
            return error
        except (ValueError, TypeError, PipelineException) as error:
            return _refusal(_first_line(error), error)
        except (IndexError, RuntimeError) as error:
            if not _too_long(inputs, self.pipe):
                raise
            return _refusal(f"the input is longer than the {_limit(self.pipe)} tokens that the model takes", error)

    def _answer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        if isinstance(inputs, list) and (not inputs or not self._form.whole):
            return [self._answer(each, parameters) for each in inputs]
        if self._form.spread:
            return self.pipe(**{**inputs, **parameters})
        with _openable(inputs) as opened:
            return self.pipe(opened, **parameters)

    def _parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The pipeline's keyword arguments; raises InvalidInput for one that it does not take, or misses."""
        parameters = {**given, **_object(given, "generate_kwargs")}
        parameters.pop("generate_kwargs", None)
        if unknown := parameters.keys() - self._names - self._generation:
            more = ", and what generate() takes" if self._generation else ""
            raise InvalidInput(
                f"parameters.{min(unknown)}: not known; there are {', '.join(sorted(self._names))}{more}"
            )
        for name in NESTED & parameters.keys():
            if unknown := _object(parameters, name).keys() - OF_TOKENIZERS:
                known = ", ".join(sorted(OF_TOKENIZERS))
                raise InvalidInput(f"parameters.{name}.{min(unknown)}: not known; there are {known}")
        if "candidate_labels" in self._form.more:
            parameters["candidate_labels"] = _labels(parameters.get("candidate_labels"))
            _check_template(parameters.get("hypothesis_template", "{}"))
        if self._form.cut and "truncation" not in parameters:
            parameters[self._form.cut] = {"truncation": True, **parameters.get(self._form.cut, {})}
        return self._placed(parameters)

    def _placed(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Some pipelines take what is for `generate()` in an argument of its own."""
        takes = inspect.signature(self.pipe._sanitize_parameters).parameters
        if "forward_params" in takes:
            parameters["forward_params"] = {n: _tensor(parameters.pop(n)) for n in self._form.more & parameters.keys()}
        if "generate_kwargs" in takes and takes["generate_kwargs"].kind is not inspect.Parameter.VAR_KEYWORD:
            others = sorted(parameters.keys() - self._names - {"forward_params"})
            parameters["generate_kwargs"] = {name: parameters.pop(name) for name in others}
        return parameters


# Requests


def _parts(data: Any) -> tuple[Any, Mapping[str, Any]]:
    """Inputs and parameters; a body without `inputs` is itself the input, and may still name its parameters."""
    inputs, parameters = split(data)
    if inputs is data and isinstance(data, dict):
        rest = {name: value for name, value in data.items() if name not in {"parameters", "options"}}
        return rest or None, _object(data, "parameters", "parameters")
    return inputs, parameters


def _fields(inputs: Any, parameters: Mapping[str, Any], form: "Form") -> tuple[Any, Mapping[str, Any]]:
    """The input that stands in an object under a name of its own, with the other fields for parameters."""
    name = next((name for name in form.names if isinstance(inputs, dict) and name in inputs), None)
    if name is None:
        return inputs, parameters
    return inputs[name], {**{n: value for n, value in inputs.items() if n != name}, **parameters}


def _object(fields: Mapping[str, Any], name: str, place: str = "") -> Mapping[str, Any]:
    value = fields.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{place or f'parameters.{name}'} is {kind(value)}; it has to be an object")
    return value


def _labels(labels: Any) -> list[str]:
    """Candidate labels; a string holds several, between commas."""
    names = [label.strip() for label in labels.split(",")] if isinstance(labels, str) else labels
    if not names:
        raise InvalidInput('parameters.candidate_labels is missing: a list of labels such as ["good", "bad"]')
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InvalidInput("parameters.candidate_labels has to be a list of strings, none of them empty")
    return names


def _check_template(template: Any) -> None:
    """Python fills the template in, where `{:>99999999}` would fill the memory as well."""
    if not isinstance(template, str) or "{}" not in template or re.search("[{}]", template.replace("{}", "")):
        raise InvalidInput("parameters.hypothesis_template has to be a string with {} in the place of the label")


def _text(value: Any, place: str, pipe: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{place} is {kind(value)}; it has to be a string")
    return value


def _masked(value: Any, place: str, pipe: Any) -> str:
    """A text with the model's own mask: [MASK] and <mask> mean the same to a client."""
    text, mask = _text(value, place, pipe), pipe.tokenizer.mask_token
    return text if mask in text else re.sub(r"\[MASK\]|<mask>", lambda _: str(mask), text)


def _pair_of_texts(value: Any, place: str, pipe: Any) -> Any:
    if isinstance(value, dict) and set(value) <= {"text", "text_pair"}:
        return {name: _text(text, f"{place}.{name}", pipe) for name, text in value.items()}
    return _text(value, place, pipe)


def _prompt(value: Any, place: str, pipe: Any) -> Any:
    """A text to go on with, or a chat."""
    if isinstance(value, list):
        return [_message(each, f"{place}[{i}]", pipe, _only_text) for i, each in enumerate(value)]
    return _message(value, place, pipe, _only_text) if isinstance(value, dict) else _text(value, place, pipe)


def _message(value: Any, place: str, pipe: Any, part: Callable[[Any, str, Any], Any]) -> dict[str, Any]:
    """One message of a chat, every part of its content read."""
    if not isinstance(value, dict) or not isinstance(value.get("role"), str) or "content" not in value:
        raise InvalidInput(f'{place} is not a message: {{"role": "user", "content": "…"}}')
    content = value["content"]
    if isinstance(content, list):
        content = [part(each, f"{place}.content[{i}]", pipe) for i, each in enumerate(content)]
    elif not isinstance(content, str):
        raise InvalidInput(f"{place}.content is {kind(content)}; it has to be a string or a list of parts")
    return {**value, "content": content}


def _only_text(value: Any, place: str, pipe: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("type") != "text":
        raise InvalidInput(f'{place} is not text; this task takes parts as {{"type": "text", "text": "…"}} alone')
    return {"type": "text", "text": _text(value.get("text"), f"{place}.text", pipe)}


def _part(value: Any, place: str, pipe: Any) -> dict[str, Any]:
    """A part of a message, made anew from what was understood, so that nothing else reaches the processor."""
    form = str(value.get("type")).removesuffix("_url").removeprefix("input_") if isinstance(value, dict) else None
    if form not in {"image", "audio"}:
        return _only_text(value, place, pipe)
    names = [name for name in (form, f"{form}_url", f"input_{form}", "url", "base64", "data") if name in value]
    if not names:
        raise InvalidInput(f'{place}.{form} is missing: {{"type": "{form}", "{form}": "<base64>"}}')
    content = value[names[0]]
    if isinstance(content, dict) and content.keys() & {"url", "data"}:
        content = content.get("url") or content.get("data")
    return {"type": form, form: (_image if form == "image" else _audio)(content, f"{place}.{names[0]}", pipe)}


def _mixed(value: Any, place: str, pipe: Any) -> dict[str, Any]:
    """Text with images and sounds, or a chat, as the pipeline's keyword arguments."""
    if isinstance(value, dict) and "messages" in value:
        value = value["messages"]
    if isinstance(value, list):
        return {"text": [_message(each, f"{place}[{i}]", pipe, _part) for i, each in enumerate(value)]}
    if not isinstance(value, dict):
        return {"text": _text(value, place, pipe)}
    if unknown := value.keys() - {"text", "image", "images", "audio"}:
        raise InvalidInput(f"{place}.{min(unknown)}: not known; there are audio, image, images, messages and text")
    read: dict[str, Any] = {"text": _text(value.get("text"), f"{place}.text", pipe)}
    if "image" in value or "images" in value:
        name = "images" if "images" in value else "image"
        given = value[name] if isinstance(value[name], list) else [value[name]]
        read["images"] = [_image(each, f"{place}.{name}", pipe) for each in given]
    if "audio" in value:
        read["audio"] = _audio(value["audio"], f"{place}.audio", pipe)
    return _as_chat(read, pipe)


def _as_chat(read: dict[str, Any], pipe: Any) -> dict[str, Any]:
    """A picture has its place in a text; where the text of a chat model leaves none, a message makes one."""
    token, template = getattr(pipe.processor, "image_token", None), getattr(pipe.processor, "chat_template", None)
    if "images" not in read or not token or not template or token in read["text"]:
        return read
    parts = [{"type": "image", "image": picture} for picture in read["images"]]
    content = [*parts, {"type": "text", "text": read["text"]}]
    return {"text": [{"role": "user", "content": content}], "return_full_text": False}


def _table(value: Any, place: str, pipe: Any) -> dict[str, Any]:
    """A question about a table of columns; TAPAS takes every cell as text."""
    if not isinstance(value, dict) or not isinstance(value.get("table"), dict) or not value["table"]:
        raise InvalidInput(f'{place}.table is missing: {{"query": "…", "table": {{"City": ["Rome"], "Sales": ["7"]}}}}')
    columns = {name: column if isinstance(column, list) else [column] for name, column in value["table"].items()}
    if len({len(column) for column in columns.values()}) > 1:
        raise InvalidInput(f"{place}.table has columns of unequal length")
    query = value.get("query")
    queries = query if isinstance(query, list) and query else [query]
    for each in queries:
        _text(each, f"{place}.query", pipe)
    return {"table": {name: [str(cell) for cell in column] for name, column in columns.items()}, "query": query}


def _document(value: Any, place: str, pipe: Any) -> dict[str, Any]:
    """A question about an image, about words with their boxes, or both."""
    if not isinstance(value, dict) or not value.keys() & {"image", "word_boxes"}:
        raise InvalidInput(f'{place}.image is missing: {{"image": "<base64>", "question": "…"}}')
    read: dict[str, Any] = {"question": _text(value.get("question"), f"{place}.question", pipe)}
    if "image" in value:
        read["image"] = _image(value["image"], f"{place}.image", pipe)
    if "word_boxes" in value:
        read["word_boxes"] = _boxes(value["word_boxes"], f"{place}.word_boxes")
    return read


def _boxes(value: Any, place: str) -> Any:
    for each in value if isinstance(value, list) else [None]:
        if not (isinstance(each, list) and len(each) == 2 and isinstance(each[1], list) and len(each[1]) == 4):
            raise InvalidInput(f'{place} has to be a list of words and boxes, as ["Total", [10, 10, 90, 40]]')
    return value


def _decision(value: Any, place: str, pipe: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or "state" not in value or not isinstance(value.get("questions"), dict):
        raise InvalidInput(f'{place} has to be {{"state": …, "questions": {{name: {{"type", "instructions"}}}}}}')
    assets = _object(value, "assets", f"{place}.assets")
    read = {name: _asset(asset, f"{place}.assets.{name}", pipe) for name, asset in assets.items()}
    return {"state": value["state"], "questions": value["questions"], **({"assets": read} if read else {})}


def _asset(value: Any, place: str, pipe: Any) -> Image.Image:
    return _image(value.get("data_base64") if isinstance(value, dict) else value, place, pipe)


# Media


def _image(value: Any, place: str, pipe: Any) -> Image.Image:
    """An image from Pillow, bytes, base64, a data URL or an array of bytes."""
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in {2, 3}:
        return Image.fromarray(value)
    try:
        return pictures.decode(_content(value, place, "an image"), "")
    except BadRequest as error:
        raise InvalidInput(f"{place}: {error}") from None


def _two_images(value: Any, place: str, pipe: Any) -> tuple[Image.Image, ...]:
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidInput(f"{place} has to be a list of two images")
    return tuple(_image(each, f"{place}[{i}]", pipe) for i, each in enumerate(value))


def _film(value: Any, place: str, pipe: Any) -> bytes:
    content = _content(value, place, "a video")
    if content.lstrip()[:8].startswith((b"#EXTM3U", b"ffconcat")):
        raise InvalidInput(f"{place} is a list of other files, which are not read")
    return content


def _audio(value: Any, place: str, pipe: Any) -> "np.ndarray[Any, Any]":
    """Samples at the model's rate, from samples, bytes, base64 or a data URL."""
    extractor = pipe.feature_extractor or pipe.processor.feature_extractor
    wanted = int(extractor.sampling_rate)
    if isinstance(value, np.ndarray):
        value = {"array": value, "sampling_rate": wanted}
    if isinstance(value, dict):
        samples, rate = _samples(value, place), value.get("sampling_rate")
    else:
        samples, rate = _decoded(_content(value, place, "audio"), place, wanted)
    if not isinstance(rate, int) or not LEAST_RATE <= rate <= MOST_RATE:
        raise InvalidInput(f"{place}.sampling_rate has to be a number from {LEAST_RATE} to {MOST_RATE}")
    if samples.ndim != 1 or not samples.size:
        raise InvalidInput(f"{place} has to be one channel of sound, and not empty")
    return resampled(samples, rate, wanted)


def _samples(value: Mapping[str, Any], place: str) -> "np.ndarray[Any, Any]":
    name = "raw" if "raw" in value else "array"
    try:
        return np.asarray(value.get(name), np.float32)
    except (TypeError, ValueError):
        raise InvalidInput(f"{place}.{name} has to be a list of numbers, next to sampling_rate") from None


def _content(value: Any, place: str, what: str) -> bytes:
    """The bytes of what was sent; a string is base64 or a data URL, never a place to fetch or open."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise InvalidInput(f"{place} is {kind(value)}; it has to be {what} in base64")
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError:
        message = f"{place} is not {what} in base64; URLs are not fetched and paths are not opened"
        raise InvalidInput(message) from None


def _decoded(content: bytes, place: str, wanted: int) -> tuple["np.ndarray[Any, Any]", int]:
    """Samples and rate of a sound: WAV is read here, other kinds by ffmpeg where there is one."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        try:
            return _wav(content)
        except (KeyError, ValueError, ZeroDivisionError, struct.error):
            raise InvalidInput(f"{place} is a WAV file that cannot be read: broken, or of a rare kind") from None
    if not shutil.which("ffmpeg"):
        raise UnsupportedMediaType(f"{place} is not WAV, the only kind of audio that is read without ffmpeg installed")
    # The input may name no other: a playlist could open files and addresses.
    command = ["ffmpeg", "-nostdin", "-v", "quiet", "-protocol_whitelist", "pipe", "-i", "pipe:0"]
    command += ["-ac", "1", "-ar", str(wanted), "-f", "f32le", "pipe:1"]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=SECONDS_TO_DECODE)
    except subprocess.TimeoutExpired:
        raise PayloadTooLarge(f"{place} took more than {SECONDS_TO_DECODE} seconds to decode") from None
    if not done.stdout:
        raise InvalidInput(f"{place} is not audio that ffmpeg can read")
    return np.frombuffer(done.stdout, np.float32), wanted


def _wav(content: bytes) -> tuple["np.ndarray[Any, Any]", int]:
    """One channel of samples from -1 to 1, and their rate; whole numbers or floating point."""
    chunks = dict(_chunks(content))
    form = chunks[b"fmt "]
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", form)
    if tag == EXTENSIBLE:
        (tag,) = struct.unpack_from("<H", form, 24)
    width = bits // 8
    data = chunks[b"data"][: len(chunks[b"data"]) // (width * channels) * width * channels]
    if (tag, bits) == (1, 24):
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, bits = wide.tobytes(), 32
    dtype, zero, scale = SAMPLES[tag, bits]
    samples = (np.frombuffer(data, dtype).astype(np.float32) - zero) / scale
    return samples.reshape(-1, channels).mean(axis=1), rate


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        yield name, content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


EXTENSIBLE = 0xFFFE
SAMPLES = {
    (1, 8): ("u1", 128, 128),
    (1, 16): ("<i2", 0, 1 << 15),
    (1, 32): ("<i4", 0, 1 << 31),
    (3, 32): ("<f4", 0, 1),
    (3, 64): ("<f8", 0, 1),
}
"""Of each kind of WAV: how a sample is written, which one is silence, and how loud is 1."""


def resampled(samples: "np.ndarray[Any, Any]", rate: int, wanted: int) -> "np.ndarray[Any, Any]":
    """The same sound at another rate, by its spectrum: the pipelines would need torchaudio for it."""
    count = max(1, round(len(samples) * wanted / rate))
    if count == len(samples):
        return np.asarray(samples, np.float32)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return np.asarray(np.fft.irfft(spectrum, count) * (count / len(samples)), np.float32)


@contextlib.contextmanager
def _openable(inputs: Any) -> Iterator[Any]:
    """What the pipeline takes; it reads films from files alone."""
    if not isinstance(inputs, bytes):
        yield inputs
        return
    with tempfile.NamedTemporaryFile(prefix="hfserve-", suffix=".video") as file:
        file.write(inputs)
        file.flush()
        yield file.name


# Answers


def jsonable(value: Any) -> Any:
    """An answer in what JSON knows: numbers and lists for tensors, base64 for pictures and sounds.

    A chat comes back with its answer, yet without the pictures and sounds that the client sent.
    """
    if isinstance(value, Mapping):
        if value.get("type") in {"image", "audio"}:
            return {"type": value["type"]}
        if {"audio", "sampling_rate"} <= value.keys() and isinstance(value["audio"], np.ndarray):
            return {**value, "audio": _wav_of(value["audio"], value["sampling_rate"])}
        return {name: jsonable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(each) for each in value]
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu()
        return jsonable((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())
    if isinstance(value, np.ndarray) and value.dtype == np.bool_ and value.ndim == 2:
        return _png_of(Image.fromarray(value))
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return _png_of(value) if isinstance(value, Image.Image) else value


def _png_of(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _wav_of(sound: "np.ndarray[Any, Any]", rate: int) -> str:
    """16-bit WAV in base64; `sound` is (samples,) or (channels, samples)."""
    frames = np.atleast_2d(np.squeeze(sound)).T
    data = (np.clip(np.nan_to_num(frames), -1, 1) * 32767).astype("<i2").tobytes()
    channels = frames.shape[1]
    form = struct.pack("<8sIHHIIHH", b"WAVEfmt ", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    head = struct.pack("<4sI", b"RIFF", 36 + len(data)) + form + struct.pack("<4sI", b"data", len(data))
    return base64.b64encode(head + data).decode()


# Tasks


def _never(inputs: list[Any]) -> bool:
    return False


def _chat(inputs: list[Any]) -> bool:
    return bool(inputs) and isinstance(inputs[0], dict) and "role" in inputs[0]


def _flat(inputs: list[Any]) -> bool:
    return bool(inputs) and not isinstance(inputs[0], list)


@dataclass(frozen=True, slots=True)
class Form:
    """How the requests of a task are read, and how its pipeline takes them."""

    read: Callable[[Any, str, Any], Any]
    """From one input, its place in the request and the pipeline, to what the pipeline takes."""
    names: tuple[str, ...] = ()
    """Under which the input may stand in an object that holds parameters too."""
    more: frozenset[str] = frozenset()
    """Parameters that the signatures of the pipeline do not tell."""
    one: Callable[[list[Any]], bool] = _never
    """Whether a list is one input."""
    whole: bool = False
    """Whether the pipeline gets a list of inputs as it is, rather than each alone."""
    spread: bool = False
    """Whether the input is the pipeline's keyword arguments."""
    cut: str = ""
    """The parameter that makes the tokenizer cut what is too long, where the pipeline would let the model fail."""


_LABELS = frozenset({"candidate_labels"})
_WHISPER = frozenset({"language", "task", "condition_on_prev_tokens", "no_speech_threshold", "logprob_threshold"})
_VOICE = frozenset({"speaker_embeddings", "speaker_id", "tgt_lang"})

FORMS = {
    "any-to-any": Form(_mixed, one=_chat, spread=True),
    "audio-classification": Form(_audio, ("audio",)),
    "automatic-speech-recognition": Form(_audio, ("audio",), more=_WHISPER),
    "decision": Form(_decision),
    "depth-estimation": Form(_image, ("image",)),
    "document-question-answering": Form(_document),
    "feature-extraction": Form(_text, ("text",), whole=True, cut="tokenize_kwargs"),
    "fill-mask": Form(_masked, ("text",), whole=True, cut="tokenizer_kwargs"),
    "image-classification": Form(_image, ("image",)),
    "image-feature-extraction": Form(_image, ("image",)),
    "image-segmentation": Form(_image, ("image",)),
    "image-text-to-text": Form(_mixed, one=_chat, spread=True),
    "keypoint-matching": Form(_two_images, ("images",), one=_flat),
    "mask-generation": Form(_image, ("image",)),
    "object-detection": Form(_image, ("image",)),
    "table-question-answering": Form(_table),
    "text-classification": Form(_pair_of_texts, whole=True),
    "text-generation": Form(_prompt, ("text", "messages"), one=_chat, whole=True),
    "text-to-audio": Form(_text, ("text",), more=_VOICE),
    "token-classification": Form(_text, ("text",), whole=True),
    "video-classification": Form(_film, ("video",)),
    "zero-shot-audio-classification": Form(_audio, ("audio",), more=_LABELS),
    "zero-shot-classification": Form(_text, ("text", "sequences", "sequence"), more=_LABELS, whole=True),
    "zero-shot-image-classification": Form(_image, ("image",), more=_LABELS),
    "zero-shot-object-detection": Form(_image, ("image",), more=_LABELS),
}

CLOSED = frozenset({
    "timeout", "tesseract_config", "processor_kwargs", "image_processor_kwargs", "preprocess_params", "forward_params",
    "return_type", "offset_mapping", "generation_mode", "cache_config", "cache_implementation", "compile_config",
    "continuous_batching_config", "watermarking_config", "transformers_version", "return_dict_in_generate",
    "output_attentions", "output_hidden_states", "output_logits", "output_scores", "stop_strings",
})  # fmt: skip
"""What the pipelines take and a client may not say: files, addresses and commands, or forms that break the answer."""
NESTED = frozenset({"tokenize_kwargs", "tokenizer_kwargs", "tokenizer_encode_kwargs"})
OF_TOKENIZERS = frozenset({"add_special_tokens", "max_length", "padding", "truncation"})


def _names(pipe: Any) -> frozenset[str]:
    """The parameters that a pipeline tells by its signatures."""
    takes = inspect.signature(pipe._sanitize_parameters).parameters.values()
    names = {each.name for each in takes if each.kind is not each.VAR_KEYWORD}
    if any(each.kind is each.VAR_KEYWORD for each in takes):
        for step in (pipe.preprocess, pipe._forward, pipe.postprocess):
            _, *others = inspect.signature(step).parameters.values()
            names |= {each.name for each in others if each.kind is not each.VAR_KEYWORD}
    return frozenset(names | {"batch_size"}) - CLOSED


def _generation(pipe: Any) -> frozenset[str]:
    """The parameters of `generate()`: those of its configuration, and none that could make it load or run code."""
    takes = inspect.signature(pipe._sanitize_parameters).parameters
    if not pipe.model.can_generate() or "generate_kwargs" not in takes:
        return frozenset()
    from transformers import GenerationConfig

    make: Any = GenerationConfig
    return frozenset(name for name in vars(make()) if not name.startswith("_")) - CLOSED


def _tensor(value: Any) -> Any:
    try:
        return torch.tensor(value) if isinstance(value, list) else value
    except (TypeError, ValueError):
        raise InvalidInput("parameters.speaker_embeddings has to be a list of lists of numbers") from None


# Errors


def _reason(error: Exception) -> str:
    """Why a model did not load; transformers hides it among the tracebacks of all classes that it tried."""
    found = re.search(r"^[\w.]*(?:Error|Exception): .+", str(error), re.MULTILINE)
    return found[0][:LONGEST_MESSAGE] if found else runtime.first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:LONGEST_MESSAGE] or type(error).__name__


def _too_long(inputs: Any, pipe: Any) -> bool:
    """Whether a text is beyond the model: it fails then with an error of tensors that says nothing of the text."""
    texts = [text for text in (inputs if isinstance(inputs, list) else [inputs]) if isinstance(text, str)]
    if not texts or not pipe.tokenizer or not _limit(pipe):
        return False
    return any(len(pipe.tokenizer(text)["input_ids"]) > _limit(pipe) for text in texts)


def _limit(pipe: Any) -> Any:
    return getattr(pipe.model.config, "max_position_embeddings", None)


def _refusal(message: str, cause: Exception) -> InvalidInput:
    refusal = InvalidInput(message)
    refusal.__cause__ = cause
    return refusal
