"""NumPy arrays: plain ones only, for the pickles that a .npy can hold run code."""

import math
from io import BytesIO
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from hfserve.codecs.media import Media
from hfserve.errors import BadRequest, NotAcceptable

Array = np.ndarray[Any, Any]
READABLE = "biufcU"
WRITABLE = "biufc"
HEADERS = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}


def decode(body: bytes, media: Media) -> Array:
    """One array of numbers or texts, whose header must agree with the length of the body."""
    try:
        return _read(BytesIO(body), len(body))
    except BadRequest:
        raise
    except Exception as error:  # a made-up header gets nearly anything out of numpy's parser
        raise BadRequest(f"the body is not a .npy array: {error}") from None


def encode(result: Any) -> bytes:
    """The answer as one array of numbers."""
    array = _numbers(result)
    if array is None:
        raise NotAcceptable("this answer is not an array of numbers; ask for application/json")
    written = BytesIO()
    np.save(written, array, allow_pickle=False)
    return written.getvalue()


def fits(result: Any) -> bool:
    """Whether the answer is an array, or nested lists, of numbers in a regular shape."""
    return _numbers(result) is not None


def _read(file: BytesIO, size: int) -> Array:
    version = npy_format.read_magic(file)
    if version not in HEADERS:
        raise BadRequest(f"a .npy of version {version[0]}.{version[1]} is not read here; save plain numbers")
    shape, _, dtype = HEADERS[version](file)
    if dtype.kind not in READABLE:
        raise BadRequest(f"an array of {dtype} is not read here; send numbers or texts, never objects")
    promised, found = math.prod(shape) * dtype.itemsize, size - file.tell()
    if promised != found or min(shape, default=1) < 1 or not promised:
        raise BadRequest(
            f"the .npy header promises {promised} bytes of data and {found} follow; an array must hold something"
        )
    file.seek(0)
    array: Array = np.load(file, allow_pickle=False)
    if dtype.kind == "U":
        array.tolist()  # raises on what is no character
    return array


def _numbers(result: Any) -> Array | None:
    leaf = result
    while isinstance(leaf, list | tuple) and leaf:
        leaf = leaf[0]
    if not isinstance(result, list | tuple | np.ndarray) or not isinstance(leaf, int | float | np.number | np.ndarray):
        return None  # seen before numpy would make one wide array of many texts
    try:
        array = np.asarray(result)
    except (ValueError, OverflowError):
        return None
    return array if array.dtype.kind in WRITABLE else None
