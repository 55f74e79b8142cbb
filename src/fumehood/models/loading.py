"""A model in memory, from a folder that was checked: weights by transformers, the tokenizer by mistral-common.

Nothing is fetched, and no code that lies beside the weights is run.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, ModelFilesUnusable
from ..protocol.record import Record
from .answering import Tokens
from .files import checked
from .grammar import Grammars

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    from .files import ModelFiles

_NEEDED = "pip install 'fumehood[transformers]'"


class Model(Record):
    """What answers are made with. `network` is transformers' `Mistral3ForConditionalGeneration`."""

    name: str
    network: Any
    #: What the network calls its keys and values: `cache`, or `past_key_values` before transformers 5.24.
    cache_field: str
    device: str
    tokenizer: MistralTokenizer
    tokens: Tokens
    grammars: Grammars
    #: The tokens that prompt and answer may have together.
    context: int


def load(folder: Path, *, context: int | None = None, device: str | None = None) -> Model:
    """Load the model. `context` lowers its own; `device` as torch names it, the accelerator where there is one.

    Raises `ModelFilesUnusable`, and `ConfigurationError` where the packages or the device are missing.
    """
    files = checked(folder)
    if context is not None and not 0 < context <= files.context:
        raise ConfigurationError(f"a context of {context} tokens: this model's is from 1 to {files.context}")
    try:
        import torch  # noqa: PLC0415 - an extra, and seconds to load
    except ImportError as error:
        raise ConfigurationError(f"models in this process need torch: {_NEEDED}") from error
    tokenizer = _tokenizer(files)
    tokens = Tokens(tokenizer)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = _network(files, place)
    cache_field = "cache" if "cache" in inspect.signature(network.forward).parameters else "past_key_values"
    return Model(
        name=folder.resolve().name, network=network, cache_field=cache_field, device=place, tokenizer=tokenizer, tokens=tokens,
        grammars=Grammars(tokenizer, tokens), context=context or files.context,
    )  # fmt: skip


def _tokenizer(files: ModelFiles) -> MistralTokenizer:
    try:
        import llguidance  # noqa: F401, PLC0415 - an extra
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"models in this process need {error.name}: {_NEEDED}") from error
    path = files.folder / "tekken.json"
    try:
        tokenizer = MistralTokenizer.from_file(str(path))
        version = tokenizer.version.value
        missing = [name for name in ("[TOOL_CALLS]", "[ARGS]") if not _has(tokenizer, name)]
    # Whatever a library says of a file that it cannot read.
    except Exception as error:
        raise ModelFilesUnusable(f"{path} cannot be used as a tokenizer: {error}") from error
    if missing or version != "v13":
        raise ModelFilesUnusable(
            f"{path} is of version {version}{', without ' + missing[0] if missing else ''}: this engine speaks version v13, "
            "that of Devstral 2"
        )
    return tokenizer


def _has(tokenizer: MistralTokenizer, name: str) -> bool:
    try:
        tokenizer.instruct_tokenizer.tokenizer.get_special_token(name)
    except (ValueError, KeyError):
        return False
    return True


def _network(files: ModelFiles, device: str) -> Any:
    try:
        import transformers  # noqa: PLC0415 - see above

        if files.is_fp8:
            import accelerate  # noqa: F401, PLC0415 - transformers reads no weights of 8 bits without it
        from transformers.utils import logging  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"models in this process need {error.name}: {_NEEDED}") from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # The kernels for 8 bits would be fetched; the weights are turned into 16.
    more = {"quantization_config": transformers.FineGrainedFP8Config(dequantize=True)} if files.is_fp8 else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network, report = transformers.Mistral3ForConditionalGeneration.from_pretrained(
                files.folder, dtype="auto", local_files_only=True, use_safetensors=True, trust_remote_code=False,
                # Named here, for a configuration could name a repository, whose code transformers would fetch and run.
                attn_implementation="sdpa", output_loading_info=True, **more,
            )  # fmt: skip
        network = network.to(device).eval()
    # Whatever transformers and torch say of weights that do not fit the configuration, or of a device.
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        raise ModelFilesUnusable(f"{files.folder} cannot be loaded on {device}: {words}") from error
    _check_whole(files, report)
    return network


def _check_whole(files: ModelFiles, report: Mapping[str, Any]) -> None:
    """Raise for weights that were not there: transformers makes them up, and goes on."""
    wrong = [*sorted(map(str, report["missing_keys"])), *sorted(map(str, report["mismatched_keys"]))]
    if wrong or report["error_msgs"]:
        named = ", ".join(wrong[:3] or [" ".join(str(report["error_msgs"][0]).split())[:300]])
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelFilesUnusable(
            f"{files.folder} lacks weights, or has them in another shape: {named}{more}: download the model again"
        )
