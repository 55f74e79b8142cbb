"""A model's folder, checked before anything of it is loaded: what is missing or cut short is named.

Promised: every file that the model needs is there and whole by its own account; weights are safetensors, which hold numbers
and no code. Not promised: that the numbers are the right ones.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelFilesUnusable
from ..protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

_ARCHITECTURE = "Mistral3ForConditionalGeneration"
_INDEX, _ONE = "model.safetensors.index.json", "model.safetensors"
_POINTER = b"version https://git-lfs"
_JSON_BYTES = 64 << 20
# The format's own reader allows 100 MiB, which would be gigabytes of Python's objects; a model of this kind has some 100 KB.
_HEADER_BYTES = 16 << 20


class ModelFiles(Record):
    """A folder that has passed."""

    folder: Path
    #: The tokens that prompt and answer may have together.
    context: int
    #: Whether the weights are stored in 8 bits.
    is_fp8: bool


def checked(folder: Path) -> ModelFiles:
    """Return what there is to know before loading. Raises `ModelFilesUnusable`, which names the file and the next step."""
    if not folder.is_dir():
        raise ModelFilesUnusable(f"{str(folder)!r} is no folder: give the one that holds the model's config.json")
    config = _config(folder)
    _json(folder / "tekken.json", "the tokenizer", _is_tekken)
    names = _weight_files(folder)
    for name in names:
        _check_weights(folder / name)
    text = config.get("text_config")
    context = text.get("max_position_embeddings") if isinstance(text, dict) else None
    if not isinstance(context, int) or context < 1:
        raise ModelFilesUnusable(f"{folder / 'config.json'} has no text_config.max_position_embeddings")
    stored = config.get("quantization_config")
    return ModelFiles(
        folder=folder, context=context, is_fp8=isinstance(stored, dict) and stored.get("quant_method") == "fp8"
    )


def _config(folder: Path) -> dict[str, Any]:
    config = _json(folder / "config.json", "the configuration", lambda value: isinstance(value, dict))
    architectures = config.get("architectures")
    if architectures != [_ARCHITECTURE]:
        raise ModelFilesUnusable(
            f"{folder / 'config.json'} is of a model of the kind {architectures!r}, not {_ARCHITECTURE}: this engine runs "
            "models like Devstral Small 2"
        )
    return config


def _is_tekken(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("config"), dict) and bool(value.get("vocab"))


def _weight_files(folder: Path) -> list[str]:
    index = folder / _INDEX
    if not index.exists():
        if not (folder / _ONE).exists():
            raise ModelFilesUnusable(
                f"{folder} has no weights: neither {_ONE} nor {_INDEX} is there. Download the model again, with its "
                "*.safetensors"
            )
        return [_ONE]
    value = _json(index, "the list of weights", lambda value: isinstance(value.get("weight_map"), dict))
    names = sorted({str(name) for name in value["weight_map"].values()})
    # A name out of the folder would have a hostile list read any file as weights.
    if strange := [name for name in names if "/" in name or not name.endswith(".safetensors")]:
        raise ModelFilesUnusable(f"{index} names {strange[0]!r}, which is no file of weights beside it")
    return names


def _json(path: Path, what: str, fits: Callable[[Any], bool]) -> dict[str, Any]:
    _check_kind(path)
    try:
        with path.open("rb") as file:
            data = file.read(_JSON_BYTES + 1)
    except OSError as error:
        raise ModelFilesUnusable(f"{path} ({what}) cannot be read: {error.strerror}") from error
    if data.startswith(_POINTER):
        raise ModelFilesUnusable(_is_pointer(path))
    try:
        value = json.loads(data)
        well = fits(value)
    except (ValueError, RecursionError, AttributeError):
        well = False
    if not well:
        raise ModelFilesUnusable(f"{path} is not {what} of a model: download it again")
    return dict(value)


def _check_weights(path: Path) -> None:
    _check_kind(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
            file.seek(0)
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            header = file.read(length) if length <= _HEADER_BYTES else b""
            size = file.seek(0, 2)
    except OSError as error:
        raise ModelFilesUnusable(f"{path} (weights) cannot be read: {error.strerror}") from error
    if start == _POINTER:
        raise ModelFilesUnusable(_is_pointer(path))
    try:
        parts = [part for name, part in json.loads(header).items() if name != "__metadata__"]
        end = 8 + length + max(part["data_offsets"][1] for part in parts)
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError) as error:
        raise ModelFilesUnusable(f"{path} is no file of weights, or its head is missing: download it again") from error
    if size != end:
        raise ModelFilesUnusable(f"{path} has {size} bytes of {end}: download it again")


def _check_kind(path: Path) -> None:
    # A pipe would be waited for, and a device has no end.
    if path.exists() and not path.is_file():
        raise ModelFilesUnusable(f"{path} is no file: download it again")


def _is_pointer(path: Path) -> str:
    return f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in {path.parent}"
