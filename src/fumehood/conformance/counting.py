"""Counts a prompt's tokens by `mistral-common`, the tokenizer's own implementation: what a server must count as well.

Without a file of the model's the vocabulary is the one that comes with `mistral-common`, under version 13 of the format; the
model's own file was not compared with it. Loaded when asked; an extra.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from .files import model_file
from .verdicts import Skipped

if TYPE_CHECKING:
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    from .asking import Messages

#: Control tokens of version 13 by their ids; the others of the first thousand have no name.
CONTROL_TOKENS = {
    **dict(enumerate(("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"))),
    **dict(enumerate(("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"), 7)),
    **dict(enumerate(("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), 13)),
    19: "[TOOL_CONTENT]",
    32: "[ARGS]",
    33: "[CALL_ID]",
    34: "[THINK]",
    35: "[/THINK]",
}
_CONTROLS = 1000


class Counter:
    """Counts as one tokenizer does."""

    def __init__(self, tokenizer: MistralTokenizer[Any, Any, Any, Any, Any]) -> None:
        self._tokenizer = tokenizer

    def prompt(self, messages: Messages, tools: list[dict[str, Any]] | None = None) -> int:
        """Return how many tokens the conversation is, up to where the model begins."""
        from mistral_common.protocol.instruct.request import ChatCompletionRequest  # noqa: PLC0415 - an extra

        request = ChatCompletionRequest.from_openai(messages=messages, tools=tools)
        return len(self._tokenizer.encode_chat_completion(request).tokens)

    def text(self, text: str) -> int:
        """Return how many tokens a text is by itself."""
        return len(self._tokenizer.instruct_tokenizer.tokenizer.encode(text, bos=False, eos=False))


def counter(path: Path | None) -> Counter:
    """Return the counter of this file (or of the folder's tekken.json), or of the vocabulary that is shared by all.

    Raises `Skipped` where `mistral-common` is not installed, `InvalidRequest` where the file is no tokenizer of its kind.
    """
    try:
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer  # noqa: PLC0415 - an extra
    except ImportError:
        raise Skipped("mistral-common is not installed: pip install 'fumehood[conformance]'") from None
    if path is None:
        return _shared(None)
    file = model_file(path, "tekken.json")
    try:
        return Counter(MistralTokenizer.from_file(str(file)))
    except Exception as error:
        raise InvalidRequest(
            f"{str(path)!r} is no tokenizer that mistral-common reads: {error}; name the model's tekken.json"
        ) from error


@cache
def _shared(pattern: str | None) -> Counter:
    import mistral_common  # noqa: PLC0415 - an extra
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer  # noqa: PLC0415 - likewise

    shipped = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    value = json.loads(shipped.read_text(encoding="utf-8"))
    value["config"]["version"] = "v13"
    if pattern is not None:
        value["config"]["pattern"] = pattern
    value["special_tokens"] = [
        {"rank": rank, "token_str": CONTROL_TOKENS.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
        for rank in range(_CONTROLS)
    ]
    value["image"] = {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}
    with tempfile.TemporaryDirectory(prefix="fumehood-") as folder:
        file = Path(folder) / "tekken.json"
        file.write_text(json.dumps(value), encoding="utf-8")
        return Counter(MistralTokenizer.from_file(str(file)))


def with_pattern(pattern: str) -> Counter:
    """Return the shared vocabulary's counter with another rule for cutting text into words, as wrong conversions have it."""
    return _shared(pattern)
