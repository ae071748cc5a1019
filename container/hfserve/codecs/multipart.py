"""Forms: files beside fields, as a browser or `curl -F` sends them.

A part called `inputs` is the input, and so is the only file, whatever its name. Several files and known fields, such as
`image` and `question`, make an object of inputs. `parameters` is a JSON object; every other field is a parameter.
"""

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from hfserve.codecs import image, json_
from hfserve.codecs.media import Media, charset, essence, text, value
from hfserve.errors import BadRequest, ServeError
from hfserve.messages import JSON

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 1000
INPUTS = frozenset({
    "text", "text_pair", "prompt", "messages", "question", "context", "query", "table", "word_boxes", "sequences",
    "source_sentence", "sentences", "texts", "choices", "image", "images", "audio", "video", "state", "questions",
    "assets",
})  # fmt: skip
"""Fields that are inputs, not parameters."""
BARE = ("text", "messages", "prompt", "sequences")
"""Of those, the ones that are the whole input where they stand alone."""
NAMELESS = ("inputs", "file", "files", "upload", "data")
"""Names of files that say nothing; beside other inputs they are called by what they hold."""
MEDIA = ("image", "audio", "video")


@dataclass(slots=True)
class Part:
    """One part: its headers as they came, and its content."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)


def decode(body: bytes, media: Media) -> dict[str, Any]:
    """Inputs and parameters of a form."""
    inputs: dict[str, Any] = {}
    files: dict[str, str] = {}
    object_of: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for part in _parts(body, media.boundary):
        name, kind, is_file = _told(part)
        read = _content(part, name, kind, media, is_file)
        if name == "parameters":
            object_of |= _object(read)
        elif is_file or name == "inputs" or name in INPUTS:
            _add(inputs, name, _input(read))
        else:
            _add(fields, name, value(read) if isinstance(read, str) else read)
        if is_file:
            files[name] = kind.partition("/")[0]
    form, parameters = {"inputs": _whole(inputs, files)}, {**object_of, **fields}
    return {**form, "parameters": parameters} if parameters else form


def _parts(body: bytes, boundary: str) -> list[Part]:
    """The parts between the boundaries; raises BadRequest when the form is broken."""
    if not boundary:
        raise BadRequest("the Content-Type multipart/form-data names no boundary; let your HTTP library write it")
    parts: list[Part] = []
    ended: list[bool] = []
    try:
        parser = MultipartParser(boundary.encode(), _callbacks(parts, ended))
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"the form is broken: {error}") from None
    if not ended:
        raise BadRequest(f"the form is broken: it does not end with the boundary --{boundary[:70]}--")
    if not parts:
        raise BadRequest("the form has no parts; send a part called inputs, or a file")
    return parts


def _callbacks(parts: list[Part], ended: list[bool]) -> "MultipartCallbacks":
    name, content = bytearray(), bytearray()

    def begin() -> None:
        if len(parts) == MAX_PARTS:
            raise BadRequest(f"the form has more than {MAX_PARTS} parts")
        parts.append(Part())

    def end_header() -> None:
        parts[-1].headers.append((name.decode("latin-1").lower(), content.decode(errors="replace")))
        name.clear()
        content.clear()

    return {
        "on_part_begin": begin,
        "on_header_field": lambda data, start, end: name.extend(data[start:end]),
        "on_header_value": lambda data, start, end: content.extend(data[start:end]),
        "on_header_end": end_header,
        "on_part_data": lambda data, start, end: parts[-1].content.extend(data[start:end]),
        "on_end": lambda: ended.append(True),
    }


def _told(part: Part) -> tuple[str, str, bool]:
    """A part's name and media type, and whether it is a file."""
    headers = dict(part.headers)
    _, told = parse_options_header(headers.get("content-disposition", "").encode())
    if b"name" not in told:
        raise BadRequest('the form has a part without a name; each needs Content-Disposition: form-data; name="…"')
    name, filename = told[b"name"].decode(errors="replace"), told.get(b"filename", b"").decode(errors="replace")
    kind = _kind(headers.get("content-type", ""), filename)
    return name, kind, b"filename" in told or kind.partition("/")[0] in MEDIA


def _kind(content_type: str, filename: str) -> str:
    """A part's media type; clients that do not know it say so, or say nothing, and the file's name may tell."""
    told = essence(content_type)
    return told if told not in {"", "application/octet-stream"} else mimetypes.guess_type(filename)[0] or told


def _content(part: Part, name: str, kind: str, media: Media, is_file: bool) -> Any:
    """A picture, a JSON value, text for a field or a file of text, else bytes."""
    content, own = bytes(part.content), Media(charset(dict(part.headers).get("content-type", "")))
    try:
        if kind.startswith("image/"):
            return image.decode(content, media)
        if kind == JSON:
            return json_.decode(content, own)
        return content if is_file and not kind.startswith("text/") else text(content, own.charset)
    except ServeError as error:
        raise type(error)(f"part {name[:50]}: {error}") from None


def _input(read: Any) -> Any:
    """An input; a field that is a list or an object says so in JSON, all else is text, `42` too."""
    parsed = value(read) if isinstance(read, str) and read.lstrip()[:1] in {"[", "{"} else None
    return parsed if isinstance(parsed, list | dict) else read


def _object(read: Any) -> Mapping[str, Any]:
    parsed = value(read) if isinstance(read, str) else read
    if not isinstance(parsed, dict):
        raise BadRequest('the part parameters has to be a JSON object such as {"top_k": 2}')
    return parsed


def _add(fields: dict[str, Any], name: str, read: Any) -> None:
    """A field that comes again is a list."""
    if name not in fields:
        fields[name] = read
    elif isinstance(fields[name], _Several):
        fields[name].append(read)
    else:
        fields[name] = _Several([fields[name], read])


class _Several(list[Any]):
    """The values of a field that came more than once."""


def _whole(inputs: dict[str, Any], files: Mapping[str, str]) -> Any:
    """The input: the only one, or all of them as an object."""
    if not inputs:
        raise BadRequest("the form has no input; send a part called inputs, or a file")
    name, *others = inputs
    if not others and (name == "inputs" or name in files or name in BARE):
        return inputs[name]
    object_of = inputs.pop("inputs") if isinstance(inputs.get("inputs"), dict) else {}
    named = {files[name] if name in NAMELESS and files.get(name) in MEDIA else name: inputs[name] for name in inputs}
    if "inputs" in named or len(named) < len(inputs):
        raise BadRequest(f"the form has several inputs ({', '.join(inputs)}); give each a name that tells what it is")
    return {**object_of, **named}
