"""The configuration: which model `ask` takes where none is named. It is a person's own file, so writing keeps what is theirs."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..protocol.record import Record

#: The file's, in `folder()`.
NAME = "config.toml"
_KEYS = {"model": str, "timeout_seconds": (int, float), "mistral_server_url": str}
_LONGEST_SECONDS = 86_400
# One line of TOML whose value is a string within it; what follows the value is kept.
_MODEL_LINE = re.compile(
    r"""(?P<before>[ \t]*(?:model|"model"|'model')[ \t]*=[ \t]*)(?:"(?:[^"\\]|\\.)*"|'[^']*')(?P<after>[ \t]*(?:\#.*)?)"""
)


class Remembered(Record):
    """What was written: the file, and the model that stood there before (None where there was none)."""

    path: Path
    model: str
    before: str | None


def folder() -> Path:
    """Return the platform's folder for it."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "fumehood"


def read(path: Path) -> dict[str, Any]:
    """Return the settings; none where there is no file. Raises `ConfigurationError`, which names what is wrong."""
    try:
        return _checked(path, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error}") from error


def remember(path: Path, model: str) -> Remembered:
    """Write which model is to be used, and leave every other line, with its comments, as it is.

    The file is replaced as a whole: who reads it meets the old one or the new one. Raises `ConfigurationError` where it cannot be
    written, or where what would come of it is not what was meant: then it stays as it was.
    """
    try:
        # A link, as those keep who have their settings under version control, stays one.
        path = Path(os.path.realpath(path))
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
        settings = _checked(path, text)
        if settings.get("model") != model:
            changed = _with_model(text, model)
            if _checked(path, changed) != settings | {"model": model}:
                raise ValueError("its line for the model cannot be told from the others")
            _replace(path, changed.encode())
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error}): write it yourself, model = {json.dumps(model)}, or give --no-config"
        ) from error
    return Remembered(path=path, model=model, before=settings.get("model"))


def _checked(path: Path, text: str) -> dict[str, Any]:
    settings = tomllib.loads(text)
    for name, value in settings.items():
        if name not in _KEYS:
            raise ConfigurationError(f"{path} has the unknown setting {name!r}: it may have {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[name]) or isinstance(value, bool):  # type: ignore[arg-type]  # a type or a tuple
            raise ConfigurationError(f"{path}: {name} is {value!r}, of the wrong type")
    if not 0 < settings.get("timeout_seconds", 1) <= _LONGEST_SECONDS:
        raise ConfigurationError(f"{path}: timeout_seconds is to be more than 0 and at most {_LONGEST_SECONDS}")
    return settings


def _with_model(text: str, model: str) -> str:
    value = json.dumps(model, ensure_ascii=False)  # TOML's strings have JSON's escapes
    lines = re.split(r"(?<=\n)", text)
    for place, line in enumerate(lines):
        bare = line.rstrip("\r\n")
        if found := _MODEL_LINE.fullmatch(bare):
            lines[place] = found["before"] + value + found["after"] + line[len(bare) :]
            return "".join(lines)
    end = "\r\n" if "\r\n" in text else "\n"
    if text and not text.endswith("\n"):
        text += end
    return f"{text}model = {value}{end}"


def _replace(path: Path, data: bytes) -> None:
    import tempfile  # noqa: PLC0415 - for who writes; each question reads

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            os.fchmod(handle, path.stat().st_mode & 0o777 if path.exists() else 0o644)
            file.flush()
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
