"""The one rule for names of files that go into a sandbox."""

from __future__ import annotations

NAME_BYTES = 255  # NAME_MAX of every Linux file system in use
PATH_DEPTH = 32


def why_not_inside(path: object) -> str | None:
    """Say why `path` may not name a file below the working directory; None where it may."""
    if not isinstance(path, str):
        return f"is {type(path).__name__}, not text"
    if path.startswith("/"):
        return "is absolute"
    if "\0" in path or "\\" in path:
        return "holds a NUL or a backslash"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty, '.' or '..' part"
    if len(parts) > PATH_DEPTH:
        return f"is deeper than {PATH_DEPTH} folders"
    try:
        encoded = [part.encode("utf-8") for part in parts]
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if any(len(part) > NAME_BYTES for part in encoded):
        return f"has a part of more than {NAME_BYTES} bytes"
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "holds a control character"
    return None
