"""Pictures, by Pillow: one is read from a body, and an answer that is one, or the masks of one, can be given as one."""

import sys
from colorsys import hsv_to_rgb
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from hfserve.codecs.media import Media
from hfserve.errors import BadRequest, NotAcceptable, PayloadTooLarge

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What Pillow may try: among its others is EPS, which starts Ghostscript."""
PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
SEGMENTS = 255
"""Colours of a label map, beside the black of no segment."""
GOLDEN = 0.618
"""Steps around the circle of hues that never come close to an earlier one."""


def decode(body: bytes, media: Media) -> "Image":
    """One picture, its pixels read; a small file could unpack to gigabytes, so they are counted first."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(BytesIO(body), formats=FORMATS)
        check_size(image, media.max_pixels)
        image.load()
    except PayloadTooLarge:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PayloadTooLarge("the image has more pixels than Pillow opens") from None
    except UnidentifiedImageError:
        raise BadRequest(f"this is not an image of a kind that is read here: {', '.join(FORMATS)}") from None
    except Exception as error:  # broken files get nearly anything out of Pillow's readers
        raise BadRequest(f"the image cannot be read: {error}") from None
    return image


def check_size(image: "Image", most: int) -> None:
    """Raise PayloadTooLarge for a picture with more pixels than the settings allow."""
    if image.width * image.height > most:
        raise PayloadTooLarge(
            f"the image has {image.width} × {image.height} pixels; this server takes {most} (HFSERVE_MAX_PIXELS)"
        )


def is_image(value: Any) -> bool:
    """Whether the value is a picture of Pillow's, which nobody can hold before Pillow is imported."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def png(image: "Image") -> bytes:
    """The picture as PNG."""
    file = BytesIO()
    other = "I;16" if image.mode == "I" else "RGB"
    (image if image.mode in PNG_MODES else image.convert(other)).save(file, "PNG")
    return file.getvalue()


def jpeg(image: "Image") -> bytes:
    """The picture as JPEG."""
    file = BytesIO()
    (image if image.mode in {"L", "RGB"} else image.convert("RGB")).save(file, "JPEG", quality=90)
    return file.getvalue()


def encode_png(result: Any) -> bytes:
    """The answer as a picture."""
    return png(_shown(result))


def encode_jpeg(result: Any) -> bytes:
    """The answer as a photograph."""
    return jpeg(_shown(result))


def fits(result: Any) -> bool:
    """Whether the answer is one picture, an object with exactly one, or the masks of one."""
    return _masks(result) is not None or _only_picture(result) is not None


def _shown(result: Any) -> "Image":
    masks = _masks(result)
    picture = label_map(masks) if masks else _only_picture(result)
    if picture is None:
        raise NotAcceptable("this answer is not one picture; ask for application/json")
    return picture


def _only_picture(result: Any) -> "Image | None":
    if isinstance(result, list | tuple) and len(result) == 1:
        result = result[0]
    if isinstance(result, dict):
        pictures = [value for value in result.values() if is_image(value)]
        result = pictures[0] if len(pictures) == 1 else None
    return result if is_image(result) else None


def _masks(result: Any) -> "list[Image] | None":
    """The masks of `[{"label", "score", "mask"}]` or `{"masks", "scores"}`, when all are of one size."""
    if isinstance(result, dict):
        masks = result.get("masks")
    else:
        rows = result if isinstance(result, list) else []
        masks = [row.get("mask") if isinstance(row, dict) else None for row in rows]
    if not isinstance(masks, list) or not masks or not all(map(is_image, masks)):
        return None
    return masks if len({mask.size for mask in masks}) == 1 else None


def label_map(masks: "list[Image]") -> "Image":
    """One picture in which the pixels of the n-th segment have the n-th colour; small segments lie on large ones."""
    from PIL import Image

    covered = [np.asarray(mask.convert("L")) > 127 for mask in masks]
    numbers = np.zeros(covered[0].shape, np.uint8)
    for i in sorted(range(len(masks)), key=lambda i: -int(covered[i].sum())):
        numbers[covered[i]] = i % SEGMENTS + 1
    picture = Image.fromarray(numbers)
    picture.putpalette([0, 0, 0, *(part for i in range(SEGMENTS) for part in _colour(i))])
    return picture


def _colour(number: int) -> list[int]:
    return [round(255 * part) for part in hsv_to_rgb(number * GOLDEN % 1, 0.65, 0.95)]
