"""A picture, a sound and a film for examples, made here so that no file has to be shipped."""

import base64
import math
import struct
import zlib


def png(side: int = 32) -> str:
    """A small picture, in base64."""
    rows = b"".join(b"\0" + bytes(c for x in range(side) for c in (x * 7, y * 7, 128)) for y in range(side))
    return _base64(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def wav(samples: int = 4000, rate: int = 16_000) -> str:
    """A quarter of a second of the note A, in base64."""
    sound = struct.pack(f"<{samples}h", *(int(8000 * math.sin(math.tau * 440 * i / rate)) for i in range(samples)))
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(sound), b"WAVEfmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", len(sound)
    )
    return _base64(head + sound)


def y4m(side: int = 16, frames: int = 16) -> str:
    """Sixteen frames from black to white, in base64."""
    head = f"YUV4MPEG2 W{side} H{side} F8:1 Ip A1:1 C420jpeg\n".encode()
    pictures = (bytes([16 * i]) * side**2 + bytes([128]) * (side**2 // 2) for i in range(frames))
    return _base64(head + b"".join(b"FRAME\n" + picture for picture in pictures))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
