"""The one shape in which chat models are spoken to: messages and tool schemas in, text and tool calls out.

Promised of every client: tool-call ids are nine letters and digits, unique in an answer (the strictest servers
demand it; the others take it); arguments are kept as the model's own text; text is never None and is
valid Unicode; an answer that was cut off says "length" whatever the server called it, and no call of it may run;
what a server got wrong and a client put right is in the answer's notes; a key is never shown; errors are those of
`fumehood.errors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol

from ..protocol.record import Record

FinishReason = Literal["stop", "length", "tool_calls"]
#: Called with each piece of text as it streams in.
TextListener = Callable[[str], None]

#: What the strictest servers take for the id of a call.
CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_WORDS_CHARACTERS = 500


class ToolSchema(Record):
    """A tool that the model may call. `parameters` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ToolCall(Record):
    """A call that the model asks for. `arguments` is its own text, which may not be JSON."""

    id: str
    name: str
    arguments: str

    def parsed(self) -> dict[str, Any]:
        """Return the arguments as an object; empty text stands for none. Raises ValueError in words for the model."""
        try:
            value = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the arguments are not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ValueError(f"the arguments are not a JSON object but {type(value).__name__}")
        return value


class SystemMessage(Record):
    """What the model is told about its situation."""

    text: str


class UserMessage(Record):
    """What the user says."""

    text: str


class AssistantMessage(Record):
    """What the model answered: text, calls, or both."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class ToolMessage(Record):
    """What came of a call."""

    call_id: str
    name: str
    text: str


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class Usage(Record):
    """Tokens of one answer; 0 where the server does not tell."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Quirk(StrEnum):
    """What was out of order and was survived. docs/how-to/real-servers.md says what becomes of each."""

    HISTORY_MENDED = "history_mended"
    CALL_CUT_OFF = "call_cut_off"
    CALL_SPLIT = "call_split"
    CALL_REPEATED = "call_repeated"
    CALL_NOT_ALLOWED = "call_not_allowed"
    CALL_IN_TEXT = "call_in_text"
    MARK_IN_TEXT = "mark_in_text"
    NO_FINISH_REASON = "no_finish_reason"
    CAME_WHOLE = "came_whole"
    CAME_STREAMED = "came_streamed"
    BROKE_OFF_AT_ITS_END = "broke_off_at_its_end"
    ASKED_TO_WAIT = "asked_to_wait"
    ASKED_AGAIN = "asked_again"


class Note(Record):
    """One such thing: which, for programs, and its particulars, for people."""

    quirk: Quirk
    words: str


class Completion(Record):
    """One answer. `notes` say where the server broke the rules and what was made of it; a sound answer has none."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage
    notes: tuple[Note, ...] = ()

    @property
    def quirks(self) -> tuple[Quirk, ...]:
        """What was out of order, in short."""
        return tuple(note.quirk for note in self.notes)


class ChatModel(Protocol):
    """A chat model."""

    @property
    def name(self) -> str:
        """What to call it in front of a user."""
        ...

    def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        tool_choice: Literal["auto", "none", "required"] = "auto",
        json_object: bool = False,
        on_text: TextListener | None = None,
    ) -> Completion:
        """Return the model's answer; with `on_text` it is streamed. Raises `ModelError`s.

        `required` demands a call: an answer without one is `ModelMisbehaved`. `json_object` asks for one JSON object as
        text.
        """
        ...


def well_formed(text: str) -> str:
    """Return `text` as valid Unicode: JSON's escapes can spell halves of characters, which no file or socket takes.

    Halves that belong together, as where a stream was cut between them, are joined.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def server_words(words: str, *, key: str) -> str:
    """Return what a server said as one short line, without the key, which some echo."""
    if len(key) >= 8:  # shorter ones are placeholders like "none", and words of the language
        words = words.replace(key, "[the key]")
    return well_formed(" ".join(words.split())[:_WORDS_CHARACTERS])
