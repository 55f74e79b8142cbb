"""The model's own files: on Hugging Face's hub, in a clone of its page, in the hub's cache, or by themselves."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import ConfigurationError, InvalidRequest

#: The names that system prompts have in the model's folder, the card's own first.
PROMPTS = ("CHAT_SYSTEM_PROMPT.txt", "SYSTEM_PROMPT.txt")
TOKENIZER = "tekken.json"
_HUB = "hub:"
_MOST_BYTES = 1 << 18


def place(given: str, *names: str) -> Path:
    """Return where a file or folder is that a user named; of `hub:OWNER/NAME` the first of these files, fetched.

    Fetched once: the hub's library keeps it, takes HF_TOKEN and HF_ENDPOINT, and with HF_HUB_OFFLINE asks nobody. Raises
    `ConfigurationError` where the library is missing, `InvalidRequest` where there is no such file to be had.
    """
    if not given.startswith(_HUB):
        return Path(given)
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - an extra, for who asks the hub
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"{given} needs the hub's library: pip install 'fumehood[conformance]'") from error
    why = f"it has no {' or '.join(names)}"
    for name in names:
        try:
            return Path(hf_hub_download(given.removeprefix(_HUB), name))
        except LocalEntryNotFoundError:
            why = "the hub does not answer, or is not to be asked, and nothing of it is kept here"
        except EntryNotFoundError:
            continue
        # Names that are none, repositories that are none or closed, and whatever its HTTP client raises.
        except (OSError, ValueError, RuntimeError) as error:
            why = " ".join(str(error).split())[:300]
            break
    raise InvalidRequest(f"{given} gives no file: {why}. Name a file or folder on this machine, or another model")


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
    file = model_file(path, *PROMPTS)
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
