"""What an answer must look like, as a grammar that llguidance holds the model to, token by token.

Names are pinned to the tools that are offered, arguments to their schema, text to the schema that was asked for. Written here
and not by mistral-common, which leaves names and arguments free unless a tool is strict, and whose interface changes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import ChatRequestInvalid
from .asking import Named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llguidance import LLMatcher
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    from .answering import Tokens
    from .asking import Ask

# Models without a mind fill their answers with spaces; no sound one needs more between two words of JSON.
_SPACE = {"x-guidance": {"whitespace_pattern": r"[ \t\n]{0,40}"}}
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


class Grammars:
    """Makes the grammar of a request; one for a model, any thread may ask."""

    def __init__(self, tokenizer: MistralTokenizer, tokens: Tokens) -> None:
        from mistral_common.guidance.tokenizer import from_mistral_tokenizer  # noqa: PLC0415 - an extra, loaded with the model

        self._tokenizer = from_mistral_tokenizer(tokenizer)
        self._call, self._arguments = tokens.call, tokens.arguments

    def matcher(self, ask: Ask) -> LLMatcher:
        """Return the grammar of an answer. Raises `ChatRequestInvalid` for a schema that cannot be kept."""
        tools = [tool for tool in ask.tools if not isinstance(ask.choice, Named) or tool["name"] == ask.choice.name]
        if ask.choice == "none":
            tools = []
        calls = [self._one(tool) for tool in tools]
        if ask.schema is not None and calls:
            self._compiled(f"start: {_json(ask.schema)}\n", "response_format")
        return self._compiled(
            _grammar(ask, calls), "response_format" if ask.schema is not None and not calls else "tools"
        )

    def _one(self, tool: Mapping[str, Any]) -> str:
        """Return the rule of one tool's call. A schema that cannot be kept leaves any object, unless it is strict."""
        rule = self._rule(tool["name"], tool["parameters"] or _ANY_OBJECT)
        if tool["parameters"]:
            try:
                self._compiled(f"start: {rule}\n", f"tools: {tool['name']}: parameters")
            except ChatRequestInvalid:
                if tool["strict"]:
                    raise
                return self._rule(tool["name"], _ANY_OBJECT)
        return rule

    def _rule(self, name: str, schema: Mapping[str, Any]) -> str:
        return f"<[{self._call}]> {json.dumps(name)} <[{self._arguments}]> {_json(schema)}"

    def _compiled(self, grammar: str, field: str) -> LLMatcher:
        from llguidance import LLMatcher  # noqa: PLC0415 - see above

        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if error := matcher.get_error():
            words = " ".join(error.split())[:300]
            raise ChatRequestInvalid(f"{field}: the schema cannot be kept: {words}", param=field)
        return matcher


def _grammar(ask: Ask, calls: Sequence[str]) -> str:
    lines = []
    if calls:
        lines.append(f"calls: {'call+' if ask.parallel else 'call'}")
        lines.append("call: " + " | ".join(f"({call})" for call in calls))
    if ask.schema is not None:
        lines.insert(0, f"start: {_json(ask.schema)}" + (" | calls" if calls else ""))
    elif ask.choice in ("auto", "none"):
        # Free text is held to it, too: its characters are whole ones, and none of its tokens is a control token.
        lines = [f"start: text?{' calls?' if calls else ''}", *lines, r"text: /(.|\n)+/"]
    else:
        lines.insert(0, "start: calls")
    return "\n".join(lines) + "\n"


def _json(schema: Mapping[str, Any]) -> str:
    # Ours last: a schema may carry the same field.
    return f"%json {json.dumps({**schema, **_SPACE})}"
