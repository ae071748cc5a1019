"""Images, by Pillow."""

from io import BytesIO
from typing import TYPE_CHECKING

from hfserve.errors import BadRequest, PayloadTooLarge

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 1 << 26
"""Pixels of an image at most, below where Pillow itself begins to warn: a small file can unpack to gigabytes."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What Pillow may try: among its others is EPS, which starts Ghostscript."""


def decode(body: bytes, charset: str) -> "Image":
    """One image, its pixels read."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(BytesIO(body), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise PayloadTooLarge(f"the image has {image.width} × {image.height} pixels; {MAX_PIXELS} are taken")
        image.load()
    except PayloadTooLarge:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PayloadTooLarge(f"the image has more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise BadRequest(f"the body is not an image of a kind that is read here: {', '.join(FORMATS)}") from None
    except Exception as error:  # broken files get nearly anything out of Pillow's readers
        raise BadRequest(f"the image cannot be read: {error}") from None
    return image
