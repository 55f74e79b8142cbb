"""The model's own files, as they lie in a clone of its page, in the hub's cache, or by themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

#: The names that system prompts have in the model's folder, the card's own first.
_FILES = ("CHAT_SYSTEM_PROMPT.txt", "SYSTEM_PROMPT.txt")
_MOST_BYTES = 1 << 18


def model_file(path: Path, *names: str) -> Path:
    """Return the first of these files in a model's folder, as a clone has it or the hub's cache; a file is returned as it is.

    Raises `InvalidRequest` where none is there.
    """
    if not path.is_dir():
        return path
    folder = path
    if (path / "snapshots").is_dir():
        try:
            revision = (path / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            revision = ""
        if not re.fullmatch("[0-9a-f]{1,64}", revision):
            raise InvalidRequest(f"{str(path)!r} names no revision in refs/main: give the folder below snapshots")
        folder = path / "snapshots" / revision
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InvalidRequest(
            f"{str(folder)!r} has no {' or '.join(names)}: fetch it from the model's page, or name a file"
        )
    return found


def system_prompt(path: Path) -> str:
    """Return the template in this file, or in the model's folder. Raises `InvalidRequest` where there is none to read."""
    file = model_file(path, *_FILES)
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise InvalidRequest(f"{str(file)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{str(file)!r} is not UTF-8: name the system prompt's file") from error
    if len(data) > _MOST_BYTES:
        raise InvalidRequest(f"{str(file)!r} is longer than {_MOST_BYTES} bytes, and no system prompt")
    return text
