"""A model's folder is checked before use, and what is wrong is named. No weights are needed for that."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from fumehood.errors import ModelFilesUnusable
from fumehood.models.files import checked


def weights(count: int = 4, padded: int = 0) -> bytes:
    header = (
        json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode().ljust(padded)
    )
    return struct.pack("<Q", len(header)) + header + b"\0" * 4 * count


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "text_config": {"max_position_embeddings": 393_216},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tekken.json").write_text(json.dumps({"config": {"version": "v13"}, "vocab": [{"rank": 0}]}))
    (tmp_path / "model.safetensors").write_bytes(weights())
    return tmp_path


def in_parts(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").write_bytes(weights())
    (folder / "model-2.safetensors").write_bytes(weights())


def test_a_whole_folder_passes_with_its_context(folder: Path) -> None:
    files = checked(folder)
    assert (files.context, files.is_fp8) == (393_216, False)
    in_parts(folder)
    assert checked(folder).folder == folder


def written(name: str, text: str | bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def a_pipe(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def second_part_missing(folder: Path) -> None:
    in_parts(folder)
    (folder / "model-2.safetensors").unlink()


def part_elsewhere(folder: Path) -> None:
    in_parts(folder)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../elsewhere/secret.safetensors"}})
    )


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no_configuration": (gone("config.json"), r"config\.json.*cannot be read"),
    "no_tokenizer": (gone("tekken.json"), r"tekken\.json.*cannot be read"),
    "no_weights": (gone("model.safetensors"), "has no weights"),
    "another_kind": (written("config.json", '{"architectures": ["GPT2"]}'), "GPT2"),
    "no_json": (written("config.json", "{"), r"config\.json is not the configuration"),
    "deep_json": (written("config.json", "[" * 100_000), r"config\.json is not the configuration"),
    "no_context": (
        written("config.json", '{"architectures": ["Mistral3ForConditionalGeneration"]}'),
        "max_position_embeddings",
    ),
    "weights_cut_short": (written("model.safetensors", weights()[:-1]), r"bytes of .*: download it again"),
    "weights_too_long": (written("model.safetensors", weights() + b"\0"), r"bytes of .*: download it again"),
    "weights_empty": (written("model.safetensors", b""), "no file of weights"),
    "weights_pickled": (written("model.safetensors", b"\x80\x04c__builtin__\nexit\n"), "no file of weights"),
    "weights_by_pointer": (
        written("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "git lfs pull",
    ),
    "weights_with_a_huge_head": (written("model.safetensors", weights(padded=20 << 20)), "its head is missing"),
    "a_pipe_as_configuration": (a_pipe("config.json"), r"config\.json is no file"),
    "a_pipe_as_weights": (a_pipe("model.safetensors"), r"model\.safetensors is no file"),
    "a_part_missing": (second_part_missing, r"model-2\.safetensors.*cannot be read"),
    "a_part_elsewhere": (part_elsewhere, "secret"),
}


@pytest.mark.parametrize(("damage", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_missing_or_damaged_is_named(folder: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(folder)
    with pytest.raises(ModelFilesUnusable, match=said):
        checked(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesUnusable, match="nowhere' is no folder"):
        checked(tmp_path / "nowhere")
