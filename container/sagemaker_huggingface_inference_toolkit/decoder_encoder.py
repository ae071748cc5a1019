"""Bodies into what pipelines take, and answers into bodies, as the toolkit shapes them and hfserve's codecs read them.

Beyond the toolkit: a Content-Type may have parameters, an Accept may be a list, JSON Lines and plain text are read too.
Unlike the toolkit: no pickle is loaded or written, so an array holds numbers or texts.
"""

from collections.abc import Mapping
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

from hfserve import codecs
from hfserve.codecs import Records
from hfserve.codecs.image import is_image
from hfserve.errors import NotAcceptable
from sagemaker_huggingface_inference_toolkit import content_types

if TYPE_CHECKING:
    from PIL.Image import Image

Content = str | bytes | bytearray | memoryview
PLAIN_IMAGES = {
    content_types.PNG: content_types.PNG,
    content_types.X_IMAGE: content_types.PNG,
    content_types.JPEG: content_types.JPEG,
}
"""Images that hfserve's codecs give too; Pillow writes the others as they are named."""


def decode(content: Content, content_type: str | None = content_types.JSON) -> Any:
    """What a body says; a table, an image and a sound come as `{"inputs": …}`.

    Raises BadRequest, UnsupportedMediaType or PayloadTooLarge.
    """
    kind = content_type or ""
    if isinstance(content, str):  # its charset has been read already
        content, kind = content.encode(), codecs.essence(kind)
    value = codecs.decode(bytes(content), kind)
    if isinstance(value, Records):
        return _records(value, is_table=codecs.essence(kind).endswith("/csv"))
    if isinstance(value, bytes):
        return {"inputs": value}
    return {"inputs": value.convert("RGB")} if is_image(value) else value


def decode_json(content: Content) -> Any:
    """The value that JSON says."""
    return decode(content, content_types.JSON)


def decode_csv(string_like: Content) -> Any:
    """`{"inputs": […]}`: the column of that name, or else a dict for each line."""
    return decode(string_like, content_types.CSV)


def decode_image(bpayload: Content) -> Any:
    """`{"inputs": image}`, the image in RGB."""
    return decode(bpayload, content_types.X_IMAGE)


def decode_audio(bpayload: Content) -> Any:
    """`{"inputs": bytes}`."""
    return decode(bpayload, content_types.X_AUDIO)


def encode(content: Any, accept_type: str | None = content_types.JSON) -> str | bytes:
    """An answer in the form that Accept likes best: text for JSON and CSV, bytes for arrays and images.

    Raises NotAcceptable when the answer has no such form.
    """
    accept = accept_type or content_types.ANY
    if is_image(content):
        chosen = codecs.negotiate(accept, [content_types.JSON, *content_types.VISION_TYPES], content_types.JSON)
        if chosen in content_types.VISION_TYPES:
            return encode_image(content, chosen)
    chosen = codecs.form(content, accept, content_types.JSON)
    body = codecs.encode(_plain(content), chosen)
    return body.decode() if chosen.startswith("text/") or "json" in chosen else body


def encode_json(content: Any, accept_type: str | None = None) -> str | bytes:
    """An answer as JSON: images are PNG in base64, NaN is null."""
    return encode(content, content_types.JSON)


def encode_csv(content: Any, accept_type: str | None = None) -> str | bytes:
    """A list of dicts as a table under the names of their keys."""
    return encode(content, content_types.CSV)


def encode_image(image: "Image", accept_type: str = content_types.PNG) -> bytes:
    """The bytes of an image in the format that its media type names; `image/x-image` is PNG."""
    kind = codecs.essence(accept_type)
    if not is_image(image) or kind not in content_types.VISION_TYPES:
        raise NotAcceptable(f"{type(image).__name__} is not given as {accept_type}; ask for application/json")
    if kind in PLAIN_IMAGES:
        return codecs.encode(image, PLAIN_IMAGES[kind])
    written = BytesIO()
    image.save(written, kind.partition("/")[2])
    return written.getvalue()


def _records(records: Records, *, is_table: bool) -> Any:
    for record in records:
        if isinstance(record, Exception):
            raise record
    if is_table:
        return {"inputs": [record.get("inputs", record) for record in records]}
    return list(records)


def _plain(value: Any) -> Any:
    """The value with its times as Python writes them; the codecs know the rest."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, datetime) else value
