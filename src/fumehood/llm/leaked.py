"""Calls that a server left in the text, in Mistral's own notation, because its parser missed them.

Taken for calls only where nothing else is possible: nobody who spoke to the model used the notation, so that it cannot be
an echo; from the notation's first mark to the end the text is calls, of tools that were offered, each with one complete
JSON object; and what stands before is nothing, or ends a sentence right at the mark, as words before a call do, and
not as words about one do. Text inside an argument is never searched. Everything else stays text.

The notations (mistral-common's tokenizers, version 3 to 13):

    [TOOL_CALLS]name[ARGS]{…}              repeated for each call (13)
    [TOOL_CALLS]name[CALL_ID]id[ARGS]{…}   likewise (11)
    [TOOL_CALLS][{"name": …, "arguments": {…}, "id": …}, …]   (3 and 7)
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ..protocol.record import Record
from .port import AssistantMessage

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .port import Message, ToolSchema

#: What begins a call.
MARK = "[TOOL_CALLS]"

# The tokenizers write no space between words and a call.
_SENTENCE_ENDS = (".", "!", "?", ":", "…")

_HEAD = re.compile(
    r"\s*\[TOOL_CALLS\]\s*(?P<name>[a-zA-Z0-9_-]{1,64})\s*(?:\[CALL_ID\]\s*[a-zA-Z0-9]{1,64}\s*)?(?:\[ARGS\])?\s*(?=\{)"
)
_ARRAY = re.compile(r"\s*\[TOOL_CALLS\]\s*(?=\[)")
_END = re.compile(r"\s*(?:</s>)?\s*")
_DECODER = json.JSONDecoder()
_MOST_CALLS = 100


def is_quoted(messages: Sequence[Message], tools: Sequence[ToolSchema] = ()) -> bool:
    """Whether the notation stands in what the model was sent: then its text may be an echo."""
    return any(MARK in text for message in messages for text in _texts(message)) or any(
        MARK in f"{tool.description}{tool.parameters}" for tool in tools
    )


def _texts(message: Message) -> tuple[str, ...]:
    if not isinstance(message, AssistantMessage):
        return (message.text,)
    # The model's own calls too: a program that prints the notation was about it. Not a text that is an attempt at a call.
    calls = tuple(call.arguments for call in message.tool_calls)
    return calls if begins_call(message.text) else (message.text, *calls)


def begins_call(text: str) -> bool:
    """Whether the first mark in `text` stands where a call may begin."""
    before, mark, _after = text.partition(MARK)
    return bool(mark) and (not before.strip() or before.endswith(_SENTENCE_ENDS)) and "`" not in before


class Recovered(Record):
    """What a text with calls in it holds: words, and each call's name and arguments."""

    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...]


def recovered(text: str, offered: Collection[str]) -> Recovered | None:
    """Return the words and calls of `text`; None where it is not certain that there are any."""
    if not begins_call(text):
        return None
    place = text.index(MARK)
    tail = text[place:]
    try:
        calls = _array(tail) if _ARRAY.match(tail) else _sequence(tail)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not 0 < len(calls) <= _MOST_CALLS or not all(_is_call(call, offered) for call in calls):
        return None
    return Recovered(text=text[:place].strip(), calls=tuple(calls))


def _is_call(call: tuple[Any, Any], offered: Collection[str]) -> bool:
    name, arguments = call
    return isinstance(name, str) and name in offered and isinstance(arguments, dict)


def _sequence(text: str) -> list[tuple[Any, Any]]:
    calls: list[tuple[Any, Any]] = []
    place = 0
    while head := _HEAD.match(text, place):
        arguments, place = _DECODER.raw_decode(text, head.end())
        calls.append((head["name"], arguments))
    return calls if _END.fullmatch(text, place) else []


def _array(text: str) -> list[tuple[Any, Any]]:
    start = _ARRAY.match(text)
    values, place = _DECODER.raw_decode(text, start.end() if start else 0)
    if not _END.fullmatch(text, place):
        return []
    return [(value["name"], value["arguments"]) for value in values]
