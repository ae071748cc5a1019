"""How the requests of each task are read before a pipeline sees them: a form for every task."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hfserve.errors import InvalidInput
from hfserve.settings import Options
from hfserve.tasks.forms import kind, split, string
from hfserve.tasks.media import Samples, read_audio, read_film, read_image, read_two_images


def parts(data: Any) -> tuple[Any, Mapping[str, Any]]:
    """Inputs and parameters; a body without `inputs` is itself the input, and may still name its parameters."""
    inputs, parameters = split(data)
    if inputs is data and isinstance(data, dict):
        rest = {name: value for name, value in data.items() if name not in {"parameters", "options"}}
        return rest or None, object_in(data, "parameters", "parameters")
    return inputs, parameters


def fields(inputs: Any, parameters: Mapping[str, Any], form: "Form") -> tuple[Any, Mapping[str, Any]]:
    """The input that stands in an object under a name of its own, with the other fields for parameters."""
    name = next((name for name in form.names if isinstance(inputs, dict) and name in inputs), None)
    if name is None:
        return inputs, parameters
    return inputs[name], {**{n: value for n, value in inputs.items() if n != name}, **parameters}


def object_in(fields: Mapping[str, Any], name: str, place: str = "") -> Mapping[str, Any]:
    """The object under a name, empty when there is none; raises InvalidInput when it is something else."""
    value = fields.get(name) or {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{place or f'parameters.{name}'} is {kind(value)}; it has to be an object")
    return value


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pipeline, and what the settings let a request ask of it."""

    pipe: Any
    options: Options


def _image(value: Any, place: str, loaded: Loaded) -> Image.Image:
    return read_image(value, place, loaded.options)


def _two_images(value: Any, place: str, loaded: Loaded) -> tuple[Image.Image, ...]:
    return read_two_images(value, place, loaded.options)


def _film(value: Any, place: str, loaded: Loaded) -> bytes:
    return read_film(value, place, loaded.options)


def _audio(value: Any, place: str, loaded: Loaded) -> Samples:
    extractor = loaded.pipe.feature_extractor or getattr(loaded.pipe.processor, "feature_extractor", None)
    if extractor is None:
        raise InvalidInput(f"{place}: this model hears no sounds")
    return read_audio(value, place, int(extractor.sampling_rate), loaded.options)


def _text(value: Any, place: str, loaded: Loaded) -> str:
    return string(value, place)


def _masked(value: Any, place: str, loaded: Loaded) -> str:
    """A text with the model's own mask: [MASK] and <mask> mean the same to a client."""
    text, mask = _text(value, place, loaded), loaded.pipe.tokenizer.mask_token
    return text if mask in text else re.sub(r"\[MASK\]|<mask>", lambda _: str(mask), text)


def _pair_of_texts(value: Any, place: str, loaded: Loaded) -> Any:
    if isinstance(value, dict) and set(value) <= {"text", "text_pair"}:
        return {name: _text(text, f"{place}.{name}", loaded) for name, text in value.items()}
    return _text(value, place, loaded)


def _prompt(value: Any, place: str, loaded: Loaded) -> Any:
    """A text to go on with, or a chat."""
    if isinstance(value, list):
        return [_message(each, f"{place}[{i}]", loaded, _only_text) for i, each in enumerate(value)]
    return _message(value, place, loaded, _only_text) if isinstance(value, dict) else _text(value, place, loaded)


def _message(value: Any, place: str, loaded: Loaded, part: Callable[[Any, str, Any], Any]) -> dict[str, Any]:
    """One message of a chat, every part of its content read."""
    if not isinstance(value, dict) or not isinstance(value.get("role"), str) or "content" not in value:
        raise InvalidInput(f'{place} is not a message: {{"role": "user", "content": "…"}}')
    content = value["content"]
    if isinstance(content, list):
        content = [part(each, f"{place}.content[{i}]", loaded) for i, each in enumerate(content)]
    elif not isinstance(content, str):
        raise InvalidInput(f"{place}.content is {kind(content)}; it has to be a string or a list of parts")
    return {**value, "content": content}


def _only_text(value: Any, place: str, loaded: Loaded) -> dict[str, Any]:
    if not isinstance(value, dict) or value.get("type") != "text":
        raise InvalidInput(f'{place} is not text; this task takes parts as {{"type": "text", "text": "…"}} alone')
    return {"type": "text", "text": _text(value.get("text"), f"{place}.text", loaded)}


def _part(value: Any, place: str, loaded: Loaded) -> dict[str, Any]:
    """A part of a message, made anew from what was understood, so that nothing else reaches the processor."""
    form = str(value.get("type")).removesuffix("_url").removeprefix("input_") if isinstance(value, dict) else None
    if form not in {"image", "audio"}:
        return _only_text(value, place, loaded)
    names = [name for name in (form, f"{form}_url", f"input_{form}", "url", "base64", "data") if name in value]
    if not names:
        raise InvalidInput(f'{place}.{form} is missing: {{"type": "{form}", "{form}": "<base64>"}}')
    content = value[names[0]]
    if isinstance(content, dict) and content.keys() & {"url", "data"}:
        content = content.get("url") or content.get("data")
    return {"type": form, form: (_image if form == "image" else _audio)(content, f"{place}.{names[0]}", loaded)}


def _mixed(value: Any, place: str, loaded: Loaded) -> dict[str, Any]:
    """Text with images and sounds, or a chat, as the pipeline's keyword arguments."""
    if isinstance(value, dict) and "messages" in value:
        value = value["messages"]
    if isinstance(value, list):
        return {"text": [_in_parts(_message(each, f"{place}[{i}]", loaded, _part)) for i, each in enumerate(value)]}
    if not isinstance(value, dict):
        return {"text": _written(value, place, loaded)}
    if unknown := value.keys() - {"text", "image", "images", "audio"}:
        raise InvalidInput(f"{place}.{min(unknown)}: not known; there are audio, image, images, messages and text")
    shown = value.keys() - {"text"}
    read: dict[str, Any] = {"text": (_text if shown else _written)(value.get("text"), f"{place}.text", loaded)}
    if "image" in value or "images" in value:
        name = "images" if "images" in value else "image"
        given = value[name] if isinstance(value[name], list) else [value[name]]
        read["images"] = [_image(each, f"{place}.{name}", loaded) for each in given]
    if "audio" in value:
        read["audio"] = _audio(value["audio"], f"{place}.audio", loaded)
    return _as_chat(read, loaded)


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose content is a list, which is all that the pipelines can go on from."""
    content = message["content"]
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _written(value: Any, place: str, loaded: Loaded) -> str:
    if not _text(value, place, loaded):
        raise InvalidInput(f"{place} is empty: there is nothing to go on from")
    return str(value)


def _as_chat(read: dict[str, Any], loaded: Loaded) -> dict[str, Any]:
    """A picture has its place in a text; where the text of a chat model leaves none, a message makes one."""
    token, template = (
        getattr(loaded.pipe.processor, "image_token", None),
        getattr(loaded.pipe.processor, "chat_template", None),
    )
    if "images" not in read or not token or not template or token in read["text"]:
        return read
    parts = [{"type": "image", "image": picture} for picture in read["images"]]
    content = [*parts, {"type": "text", "text": read["text"]}]
    return {"text": [{"role": "user", "content": content}], "return_full_text": False}


def _table(value: Any, place: str, loaded: Loaded) -> dict[str, Any]:
    """A question about a table of columns; TAPAS takes every cell as text."""
    if not isinstance(value, dict) or not isinstance(value.get("table"), dict) or not value["table"]:
        raise InvalidInput(f'{place}.table is missing: {{"query": "…", "table": {{"City": ["Rome"], "Sales": ["7"]}}}}')
    columns = {name: column if isinstance(column, list) else [column] for name, column in value["table"].items()}
    if len({len(column) for column in columns.values()}) > 1:
        raise InvalidInput(f"{place}.table has columns of unequal length")
    query = value.get("query")
    queries = query if isinstance(query, list) and query else [query]
    for each in queries:
        _text(each, f"{place}.query", loaded)
    return {"table": {name: [str(cell) for cell in column] for name, column in columns.items()}, "query": query}


def _document(value: Any, place: str, loaded: Loaded) -> dict[str, Any]:
    """A question about an image, about words with their boxes, or both."""
    if not isinstance(value, dict) or not value.keys() & {"image", "word_boxes"}:
        raise InvalidInput(f'{place}.image is missing: {{"image": "<base64>", "question": "…"}}')
    read: dict[str, Any] = {"question": _text(value.get("question"), f"{place}.question", loaded)}
    if "image" in value:
        read["image"] = _image(value["image"], f"{place}.image", loaded)
    if "word_boxes" in value:
        read["word_boxes"] = _boxes(value["word_boxes"], f"{place}.word_boxes")
    return read


def _boxes(value: Any, place: str) -> list[tuple[str, list[int]]]:
    if not isinstance(value, list) or not value or not all(map(_is_word, value)):
        raise InvalidInput(
            f'{place} has to be a list of words and boxes, as ["Total", [10, 10, 90, 40]], in thousandths of the page'
        )
    return [(word, [int(edge) for edge in box]) for word, box in value]


def _is_word(value: Any) -> bool:
    """Whether it is a word with left, top, right and bottom; LayoutLM knows no place outside the page."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):
        return False
    box = value[1]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(edge, int | float) for edge in box):
        return False
    left, top, right, bottom = box
    return bool(0 <= left <= right <= 1000 and 0 <= top <= bottom <= 1000)


def _decision(value: Any, place: str, loaded: Loaded) -> dict[str, Any]:
    if not isinstance(value, dict) or "state" not in value or not isinstance(value.get("questions"), dict):
        raise InvalidInput(f'{place} has to be {{"state": …, "questions": {{name: {{"type", "instructions"}}}}}}')
    assets = object_in(value, "assets", f"{place}.assets")
    read = {name: _asset(asset, f"{place}.assets.{name}", loaded) for name, asset in assets.items()}
    return {"state": value["state"], "questions": value["questions"], **({"assets": read} if read else {})}


def _asset(value: Any, place: str, loaded: Loaded) -> Image.Image:
    return _image(value.get("data_base64") if isinstance(value, dict) else value, place, loaded)


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
    misfit: str = ""
    """What is wrong with an input whose tensors do not fit the model, where there is but one cause."""
    cut: str = ""
    """The parameter that makes the tokenizer cut what is too long, where the pipeline would let the model fail."""


_LABELS = frozenset({"candidate_labels"})
_WHISPER = frozenset({"language", "task", "condition_on_prev_tokens", "no_speech_threshold", "logprob_threshold"})
_UNREAD = "inputs has nothing that the model can read, or lacks the picture that it wants"
_SHORT = "the sound is too short for the model"
_VOICE = frozenset({"speaker_embeddings", "speaker_id", "tgt_lang"})

FORMS = {
    "any-to-any": Form(_mixed, one=_chat, spread=True, misfit=_UNREAD),
    "audio-classification": Form(_audio, ("audio",), misfit=_SHORT),
    "automatic-speech-recognition": Form(_audio, ("audio",), more=_WHISPER, misfit=_SHORT),
    "decision": Form(_decision),
    "depth-estimation": Form(_image, ("image",)),
    "document-question-answering": Form(_document),
    "feature-extraction": Form(_text, ("text",), whole=True, cut="tokenize_kwargs"),
    "fill-mask": Form(_masked, ("text",), whole=True, cut="tokenizer_kwargs"),
    "image-classification": Form(_image, ("image",)),
    "image-feature-extraction": Form(_image, ("image",)),
    "image-segmentation": Form(_image, ("image",)),
    "image-text-to-text": Form(_mixed, one=_chat, spread=True, misfit=_UNREAD),
    "keypoint-matching": Form(_two_images, ("images",), one=_flat),
    "mask-generation": Form(_image, ("image",)),
    "object-detection": Form(_image, ("image",)),
    "table-question-answering": Form(_table),
    "text-classification": Form(_pair_of_texts, whole=True),
    "text-generation": Form(_prompt, ("text", "messages"), one=_chat, whole=True),
    "text-to-audio": Form(
        _text, ("text",), more=_VOICE, misfit="inputs has none of the characters that the model can speak"
    ),
    "token-classification": Form(_text, ("text",), whole=True),
    "video-classification": Form(
        _film,
        ("video",),
        misfit="the film, or parameters.num_frames, gives another number of frames than the model takes",
    ),
    "zero-shot-audio-classification": Form(_audio, ("audio",), more=_LABELS, misfit=_SHORT),
    "zero-shot-classification": Form(_text, ("text", "sequences", "sequence"), more=_LABELS, whole=True),
    "zero-shot-image-classification": Form(_image, ("image",), more=_LABELS),
    "zero-shot-object-detection": Form(_image, ("image",), more=_LABELS),
}
