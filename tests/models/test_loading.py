"""Weights come into memory as they were stored, or not at all; nothing that the folder says is fetched or run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fumehood.errors import ModelFilesUnusable
from fumehood.models.asking import read
from fumehood.models.engine import Engine
from tests.models.conftest import asked
from tests.testing.tiny_models import in_8_bits

if TYPE_CHECKING:
    from fumehood.models.loading import Model

    Load = Callable[..., Model]


@pytest.fixture
def copy(noise_folder: Path, tmp_path: Path) -> Path:
    """Return a copy that may be damaged."""
    return shutil.copytree(noise_folder, tmp_path / "copy")


def test_weights_of_8_bits_are_those_of_the_original_but_for_their_rounding(
    noise: Model, noise_folder: Path, tmp_path: Path, load: Load
) -> None:
    pytest.importorskip("accelerate", exc_type=ImportError)
    model = load(in_8_bits(noise_folder, tmp_path / "8-bits"))
    ours, theirs = model.network.state_dict(), noise.network.state_dict()
    assert ours.keys() == theirs.keys()
    differences = {name: float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max()) for name in ours}
    # Four bits of mantissa, counting the hidden one.
    assert 0 < max(differences.values()) <= 1 / 16
    with Engine(model) as engine:
        assert list(engine.answer(read(asked(max_tokens=2))))


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_missing_are_named_and_not_made_up(copy: Path, load: Load) -> None:
    changed(copy, lambda weights: weights.pop("language_model.model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelFilesUnusable, match=r"layers\.1\.mlp\.up_proj\.weight.*download"):
        load(copy)


def test_weights_of_another_shape_are_refused(copy: Path, load: Load) -> None:
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    changed(copy, lambda weights: weights.update({name: weights[name][:-1].clone()}))
    with pytest.raises(ModelFilesUnusable, match="cannot be loaded|lacks weights"):
        load(copy)


def test_a_configuration_cannot_name_code_that_computes_attention(copy: Path, load: Load) -> None:
    config = json.loads((copy / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["attn_implementation"] = part["_attn_implementation"] = "evil/kernel"
    (copy / "config.json").write_text(json.dumps(config))
    network = load(copy).network
    assert [each.config._attn_implementation for each in (network, network.model.language_model, network.model.vision_tower)] == ["sdpa"] * 3  # fmt: skip
