"""Writes a history as chat completions take it, in the form that the strictest servers and templates demand.

What a server would refuse, or match wrongly, is mended on the way out, and each mending is said; a sound history is
sent as it is. A refused history is refused for ever after, so one slip would end a conversation.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
from typing import TYPE_CHECKING, Any

from .port import CALL_ID, AssistantMessage, Note, Quirk, SystemMessage, ToolCall, ToolMessage, UserMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .port import Message, ToolSchema

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NO_RESULT = "[error: there is no result of this call: it was not run]"
#: Between a result and a user's words: Mistral refuses a user's message right after a tool's (code 3230).
_BRIDGE = "(results read)"


def mended(messages: Sequence[Message]) -> tuple[list[Message], tuple[Note, ...]]:
    """Return the messages in a form that servers take, and what was changed, in words.

    Results are put into the order of the calls, which is no change worth words: templates without ids match by place.
    """
    history = _History()
    for message in messages:
        history.add(message)
    history.end_results()
    notes = (Note(quirk=Quirk.HISTORY_MENDED, words=words) for words in dict.fromkeys(history.notes))
    return history.messages, tuple(notes)


class _History:
    """Takes messages one by one; results wait until all of their turn are there."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.notes: list[str] = []
        self._calls: dict[str, ToolCall] = {}
        self._results: dict[str, ToolMessage] = {}

    def add(self, message: Message) -> None:
        if isinstance(message, ToolMessage):
            self._add_result(message)
            return
        self.end_results()
        match message:
            case AssistantMessage():
                self._add_answer(message)
            case SystemMessage() if any(not isinstance(each, SystemMessage) for each in self.messages):
                # As a user's words, never the other way round: that gives it less weight, not more.
                self.notes.append("a system message in the middle was sent as the user's")
                self._add_user(UserMessage(text=message.text))
            case UserMessage():
                self._add_user(message)
            case _:
                self.messages.append(message)

    def _add_answer(self, message: AssistantMessage) -> None:
        distinct: dict[str, ToolCall] = {}
        for call in message.tool_calls:
            call_id = _sound_id(call.id)
            distinct.setdefault(call_id, call if call_id == call.id else call.replace(id=call_id))
        repeated = len(distinct) < len(message.tool_calls)
        if repeated:
            self.notes.append("of calls with the same id the first was sent")
        self._calls = distinct
        calls, text = tuple(distinct.values()), message.text
        last = self.messages[-1] if self.messages else None
        if isinstance(last, AssistantMessage):
            self.notes.append("assistant messages in a row were joined")
            self.messages.pop()
            text = "\n\n".join(filter(None, (last.text, text)))
        # A copy costs more than all else here; a long history is sent at every turn.
        sound = not repeated and text is message.text and all(map(operator.is_, calls, message.tool_calls))
        self.messages.append(message if sound else AssistantMessage(text=text, tool_calls=calls))

    def _add_user(self, message: UserMessage) -> None:
        last = self.messages[-1] if self.messages else None
        if isinstance(last, ToolMessage):
            self.notes.append("an assistant's message was put between a result and the user's words")
            self.messages.append(AssistantMessage(text=_BRIDGE))
        elif isinstance(last, UserMessage):
            # As mistral-common joins them; older templates refuse two in a row.
            self.notes.append("user messages in a row were joined")
            self.messages.pop()
            message = UserMessage(text=f"{last.text}\n\n{message.text}")
        self.messages.append(message)

    def _add_result(self, message: ToolMessage) -> None:
        call_id = _sound_id(message.call_id)
        if call_id not in self._calls:
            self.notes.append("a result of no call of the turn before it was left out")
        elif call_id in self._results:
            self.notes.append("a second result of the same call was left out")
        else:
            self._results[call_id] = message if call_id == message.call_id else message.replace(call_id=call_id)

    def end_results(self) -> None:
        """End a turn's results: they follow in the order of its calls, and each call has one."""
        for call_id, call in self._calls.items():
            result = self._results.get(call_id)
            if result is None:
                self.notes.append("a call without a result was given one that says so")
                result = ToolMessage(call_id=call_id, name=call.name, text=_NO_RESULT)
            self.messages.append(result)
        self._calls, self._results = {}, {}


def _sound_id(call_id: str) -> str:
    if CALL_ID.fullmatch(call_id):
        return call_id
    # The same for the same, so that a server's cache of the prompt still fits the next time.
    return hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def as_dicts(messages: Sequence[Message], *, named_results: bool) -> list[dict[str, Any]]:
    """Return mended messages as chat completions take them; `named_results` where tool messages may carry a name."""
    return [_as_dict(message, named_results=named_results) for message in messages]


def _as_dict(message: Message, *, named_results: bool) -> dict[str, Any]:
    match message:
        case SystemMessage():
            return {"role": "system", "content": message.text}
        case UserMessage():
            return {"role": "user", "content": message.text}
        case ToolMessage():
            name = {"name": _sound_name(message.name)} if named_results else {}
            return {"role": "tool", "tool_call_id": message.call_id, "content": message.text, **name}
        case AssistantMessage():
            if not message.tool_calls:
                # Mistral refuses an assistant's message of nothing.
                return {"role": "assistant", "content": message.text if message.text.strip() else "(no answer)"}
            calls = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": _sound_name(call.name), "arguments": _sound(call)},
                }
                for call in message.tool_calls
            ]
            return {"role": "assistant", "content": message.text, "tool_calls": calls}


def _sound(call: ToolCall) -> str:
    # Some servers answer 500 for ever after to a history that holds arguments which are not JSON.
    try:
        call.parsed()
    except ValueError:
        return json.dumps({"unreadable": call.arguments})
    return call.arguments or "{}"


def _sound_name(name: str) -> str:
    # Likewise for a name that no tool may have.
    return name if _TOOL_NAME.fullmatch(name) else "unknown_tool"


def tool_dicts(tools: Sequence[ToolSchema]) -> list[dict[str, Any]]:
    """Return tool schemas as chat completions take them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools
    ]
