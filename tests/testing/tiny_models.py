"""Tiny models of Devstral Small 2's shape, made here in a second: a tokenizer of version 13, and weights.

`Parrot` writes the weights by hand, so that a real engine says what a test wants, real control tokens among it: nothing is
added to the token's embedding on its way to the head, so the next token depends on the last one alone, and the head holds
the table. A token may therefore have one follower; `Parrot` spells its texts with tokens that it has not used yet.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fumehood.conformance.counting import CONTROL_TOKENS

#: How many words and control tokens: enough for every byte, English words and the corners of JSON; and as the real model has.
Sizes = tuple[int, int]
SMALL: Sizes = (20_000, 64)
FULL: Sizes = (130_072, 1000)
_IDS = {name: number for number, name in CONTROL_TOKENS.items()}
#: The end of an answer.
END = "</s>"
Script = Sequence[str]


def call(name: str, **arguments: Any) -> list[str]:
    """Return the script of a tool call."""
    return ["[TOOL_CALLS]", name, "[ARGS]", json.dumps(arguments, ensure_ascii=False)]


def random_model(
    folder: Path, *, context: int = 32_768, seed: int = 0, width: int = 64, layers: int = 2, sizes: Sizes = SMALL
) -> Path:
    """Make a model whose weights are noise, and return its folder. `width` is a multiple of 64."""
    _new(sizes, seed, context, width, layers).save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(_tokenizer(sizes), ensure_ascii=False))
    return folder


def in_8_bits(folder: Path, target: Path) -> Path:
    """Write a model again as Devstral Small 2 is stored: the language's linear weights in 8 bits, one scale for each."""
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir()
    stored = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = weight
        if "layers" in name and name.endswith("proj.weight") and "vision" not in name:
            scale = weight.abs().max().float() / 448
            stored[name] = (weight / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale
            stored[name.replace("weight", "activation_scale")] = torch.tensor(1.0)
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "static", "dequantize": False, "quant_method": "fp8", "weight_block_size": None,
        "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
    }  # fmt: skip
    (target / "config.json").write_text(json.dumps(config))
    (target / "tekken.json").write_bytes((folder / "tekken.json").read_bytes())
    return target


class Parrot:
    """Collects what is to be said after which control token; `save` makes the model."""

    def __init__(self, sizes: Sizes = SMALL) -> None:
        self._sizes = sizes
        self._next: dict[int, int] = {}

    def says(self, after: str, *script: str) -> Parrot:
        """After this control token say a script, to its end; a control token in it stands alone."""
        place = _IDS[after]
        for part in (*script, END):
            tokens = [_IDS[part]] if part in _IDS else self._spelled(part, place)
            for token in tokens:
                if self._next.get(place, token) != token:
                    raise ValueError(f"after the token {place} another one is said already: choose other texts")
                self._next[place] = token
                place = token
        return self

    def _spelled(self, text: str, before: int) -> list[int]:
        """Return unused tokens that spell a text; each may stand in it once."""
        rest, used = text.encode(), {*self._next, *self._next.values(), before}
        found = _spell(_ranks(self._sizes), rest, frozenset(used))
        if found is None:
            raise ValueError(f"{text!r} cannot be spelled with tokens that are not used yet")
        return found

    def save(self, folder: Path, *, context: int = 32_768) -> Path:
        """Write the model, and return its folder."""
        import torch

        model = _new(self._sizes, 0, context, 64, 2)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "language_model" in name and name.endswith(("o_proj.weight", "down_proj.weight")):
                    weight.zero_()
            embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
            embedding.copy_(torch.randn(embedding.shape, generator=torch.Generator().manual_seed(1)))
            embedding /= embedding.norm(dim=-1, keepdim=True)
            head.zero_()
            for last, following in self._next.items():
                head[following] += 10.0 * embedding[last]
        model.save_pretrained(folder)
        (folder / "tekken.json").write_text(json.dumps(_tokenizer(self._sizes), ensure_ascii=False))
        return folder


def _spell(ranks: dict[bytes, int], rest: bytes, used: frozenset[int]) -> list[int] | None:
    if not rest:
        return []
    for length in range(min(len(rest), 16), 0, -1):
        token = ranks.get(rest[:length])
        if token is not None and token not in used:
            more = _spell(ranks, rest[length:], used | {token})
            if more is not None:
                return [token, *more]
    return None


@cache
def _ranks(sizes: Sizes) -> dict[bytes, int]:
    return {base64.b64decode(word["token_bytes"]): word["rank"] + sizes[1] for word in _tokenizer(sizes)["vocab"]}


@cache
def _tokenizer(sizes: Sizes) -> dict[str, Any]:
    """Make version 13 of the tokenizer, from an older one that mistral-common brings."""
    import mistral_common

    words, special = sizes
    path = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    value["vocab"] = value["vocab"][:words]
    value["config"] |= {
        "version": "v13", "num_vocab_tokens": words, "default_vocab_size": words + special,
        "default_num_special_tokens": special,
    }  # fmt: skip
    value["special_tokens"] = [
        {"rank": rank, "token_str": CONTROL_TOKENS.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
        for rank in range(special)
    ]
    value["image"] = {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}
    return value


def _new(sizes: Sizes, seed: int, context: int, width: int, layers: int) -> Any:
    import torch
    from transformers import GenerationConfig, Mistral3Config, Mistral3ForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    rope = {
        "rope_type": "yarn", "rope_theta": 1e8, "factor": 32.0, "original_max_position_embeddings": context // 32,
        "max_position_embeddings": context, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }  # fmt: skip
    text = {
        "model_type": "ministral3", "vocab_size": sum(sizes), "hidden_size": width, "intermediate_size": 2 * width,
        "num_hidden_layers": layers, "num_attention_heads": max(2, width // 64), "num_key_value_heads": max(1, width // 256), "head_dim": 64,
        "max_position_embeddings": context, "tie_word_embeddings": False, "rope_parameters": rope,
    }  # fmt: skip
    vision = {
        "model_type": "pixtral", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "head_dim": 16, "patch_size": 14, "image_size": 1540, "num_channels": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }  # fmt: skip
    torch.manual_seed(seed)
    model = Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config=text,
            vision_config=vision,
            image_token_index=10,
            spatial_merge_size=2,
            vision_feature_layer=-1,
            projector_hidden_act="gelu",
            multimodal_projector_bias=False,
            tie_word_embeddings=False,
        )
    )
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=11, do_sample=False)
    return model
