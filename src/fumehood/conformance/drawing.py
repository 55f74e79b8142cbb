"""Draws what a model is to look at, as PNG: a plain picture, and the equations of the card's second test."""

from __future__ import annotations

import base64
import struct
import zlib
from functools import cache

#: Five columns by seven rows; a row is five bits, the leftmost the highest.
_GLYPHS = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    "+": (0, 4, 4, 31, 4, 4, 0),
    "-": (0, 0, 0, 31, 0, 0, 0),
    "\u00d7": (0, 17, 10, 4, 10, 17, 0),
    "(": (2, 4, 8, 8, 8, 4, 2),
    ")": (8, 4, 2, 2, 2, 4, 8),
    "y": (0, 0, 17, 17, 15, 1, 14),
    " ": (0, 0, 0, 0, 0, 0, 0),
}
_DOT, _MARGIN, _PATCH = 8, 28, 28

#: Two of numbers only, and one with letters, which is to be left alone.
EQUATIONS = ("6 + 2 \u00d7 3", "3y + 2y", "19 - (8 + 2) + 1")


@cache
def picture(width: int, height: int) -> str:
    """Return a grey PNG of this size as a data URL."""
    return _url(width, [b"\x80" * width] * height)


@cache
def equations() -> tuple[str, int]:
    """Return the picture of `EQUATIONS` as a data URL, and how many tokens it is for Mistral's tokenizer."""
    width = max(map(len, EQUATIONS)) * 6 * _DOT + 2 * _MARGIN
    blank = b"\xff" * width
    rows = [blank] * _MARGIN
    for line in EQUATIONS:
        for row in range(7):
            rows += [_dots(line, row).ljust(width, b"\xff")] * _DOT
        rows += [blank] * (2 * _DOT)
    rows += [blank] * _MARGIN
    across, down = -(-width // _PATCH), -(-len(rows) // _PATCH)
    return _url(width, rows), across * down + down


def _dots(line: str, row: int) -> bytes:
    # A sixth column, which is empty, stands between two signs.
    dots = [_GLYPHS[char][row] >> (4 - column) & 1 if column < 5 else 0 for char in line for column in range(6)]
    return b"\xff" * _MARGIN + b"".join((b"\0" if dot else b"\xff") * _DOT for dot in dots)


def _url(width: int, rows: list[bytes]) -> str:
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = b"".join(_chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")))
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
