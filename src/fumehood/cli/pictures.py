"""Shows pictures at terminals that can, and saves them where not. What a picture holds is the guest's."""

from __future__ import annotations

import base64
import binascii
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .terminal import is_terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/svg+xml": ".svg"}
# The graphics protocol's largest piece: https://sw.kovidgoyal.net/kitty/graphics-protocol/
_PIECE = 4096


def show(data: Mapping[str, object]) -> str | None:
    """Show a picture, or save it into the current folder; return the file's name, "" where it was shown, None if there is none."""
    kind = next((each for each in _SUFFIXES if isinstance(data.get(each), str)), None)
    if kind is None:
        return None
    text = str(data[kind])
    try:
        content = text.encode() if kind == "image/svg+xml" else base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    way = _way(os.environ) if is_terminal(1) and kind == "image/png" else None
    if way is None:
        return _save(content, _SUFFIXES[kind])
    # Encoded anew: nothing but the alphabet of base64 may stand in an escape sequence.
    sys.stdout.write(way(base64.b64encode(content).decode("ascii"), len(content)))
    sys.stdout.write("\n")
    sys.stdout.flush()
    return ""


def _way(environment: Mapping[str, str]) -> Callable[[str, int], str] | None:
    program = environment.get("TERM_PROGRAM", "")
    if (
        environment.get("TERM") == "xterm-kitty"
        or environment.get("KITTY_WINDOW_ID")
        or program in ("ghostty", "WezTerm")
    ):
        return _as_kitty
    return _as_iterm if program in ("iTerm.app", "mintty", "vscode") else None


def _as_kitty(encoded: str, _size: int) -> str:
    pieces = [encoded[start : start + _PIECE] for start in range(0, len(encoded), _PIECE)]
    sequences = []
    for number, piece in enumerate(pieces):
        first = "a=T,f=100," if number == 0 else ""
        sequences.append(f"\x1b_G{first}m={int(number < len(pieces) - 1)};{piece}\x1b\\")
    return "".join(sequences)


def _as_iterm(encoded: str, size: int) -> str:
    return f"\x1b]1337;File=inline=1;size={size}:{encoded}\a"


def _save(content: bytes, suffix: str) -> str:
    number = 1
    while True:
        path = Path(f"figure-{number}{suffix}")
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            number += 1
        else:
            return str(path)
