"""What reaches a terminal: nothing that a guest or a model wrote may move the cursor, set a title or fill a clipboard."""

from __future__ import annotations

import os
import sys

# Line feeds and tabs are layout; bidirectional controls reorder what is read (CVE-2021-42574).
_KEPT = "\n\t"
_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    """Return `text` with control characters, escape sequences and bidirectional controls made visible.

    A carriage return before a line feed is dropped, as terminals do.
    """
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_safe(char) else _visible(char) for char in text)


def _is_safe(char: str) -> bool:
    if char in _KEPT:
        return True
    number = ord(char)
    return number >= 32 and not 127 <= number < 160 and char not in _BIDIRECTIONAL and not 0xD800 <= number < 0xE000


def _visible(char: str) -> str:
    number = ord(char)
    if number < 32:
        return chr(0x2400 + number)  # Unicode's pictures of control characters
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def is_terminal(stream: int) -> bool:
    """Whether descriptor 1 or 2 (or any other) is a terminal."""
    try:
        return os.isatty(stream)
    except OSError:
        return False


def wants_colour(stream: int) -> bool:
    """Whether colour belongs on this descriptor: a terminal that can, and nobody said NO_COLOR (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def note(sentence: str) -> None:
    """Say something beside the result, on standard error."""
    print(sentence, file=sys.stderr, flush=True)
