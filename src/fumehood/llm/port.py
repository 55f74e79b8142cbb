"""The one shape in which chat models are spoken to: messages and tool schemas in, text and tool calls out.

Promised of every client: tool-call ids are nine letters and digits, unique in an answer (the strictest servers
demand it; the others take it); arguments are kept as the model's own text; text is never None and is
valid Unicode; an answer that was cut off says "length" whatever the server called it; a key is never shown; errors
are those of `fumehood.errors`.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from ..errors import ModelMisbehaved
from ..protocol.record import Record

FinishReason = Literal["stop", "length", "tool_calls"]
#: Called with each piece of text as it streams in.
TextListener = Callable[[str], None]

_ID = re.compile(r"[a-zA-Z0-9]{9}")
_LETTERS = string.ascii_letters + string.digits
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
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


class Completion(Record):
    """One answer."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage


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


class CallParts:
    """Puts tool calls together, whole or in pieces as streams bring them, by their index."""

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []

    def add(self, index: int | None, call_id: object, name: object, arguments: object) -> None:
        """Add a piece: text is appended, an object (as some servers send) is written as JSON.

        `index` is None where the server gives none: then a piece with a name begins a call, one without goes on with it.
        """
        known_id = call_id if isinstance(call_id, str) and call_id != "null" else ""
        known_name = name if isinstance(name, str) else ""
        call = self._begun(index, known_id, known_name)
        if call is None:
            call = {"index": index, "id": "", "name": "", "arguments": ""}
            self._calls.append(call)
        call["id"] = call["id"] or known_id
        # Some servers repeat the name in every piece, some send it once.
        call["name"] = call["name"] or known_name
        if arguments:
            call["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def _begun(self, index: int | None, call_id: str, name: str) -> dict[str, Any] | None:
        """Return the call that a piece goes on with; None where it begins one."""
        for call in reversed(self._calls):
            if index is None:
                return None if name else call
            if call["index"] == index:
                # Some servers number every call 0: another name and another id are another call.
                return None if name and call_id and call["id"] and call_id != call["id"] else call
        return None

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls in order, each with a usable id."""
        taken: set[str] = set()
        calls: list[ToolCall] = []
        for call in sorted(self._calls, key=lambda call: call["index"] or 0):
            call_id = call["id"] if _ID.fullmatch(call["id"]) and call["id"] not in taken else new_call_id()
            taken.add(call_id)
            calls.append(ToolCall(id=call_id, name=well_formed(call["name"]), arguments=well_formed(call["arguments"])))
        return tuple(calls)


def new_call_id() -> str:
    """Return nine random letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


def finished(text: str, parts: CallParts, reason: object, usage: Usage, *, tool_choice: str, model: str) -> Completion:
    """Make the answer, checking what every client must check."""
    calls = parts.calls()
    if reason is None:
        raise ModelMisbehaved(f"{model} stopped in the middle of its answer: no finish reason came")
    if reason in ("error", "content_filter"):
        raise ModelMisbehaved(f"{model} gave its answer up with the finish reason {reason!r}")
    if reason in ("length", "model_length"):
        finish: FinishReason = "length"
    else:
        finish = "tool_calls" if calls else "stop"
    if tool_choice == "required" and not calls and finish != "length":
        raise ModelMisbehaved(f"{model} was made to call a tool and answered with text: {text[:200]!r}")
    return Completion(text=well_formed(text), tool_calls=calls, finish_reason=finish, usage=usage)


def well_formed(text: str) -> str:
    """Return `text` as valid Unicode: JSON's escapes can spell halves of characters, which no file or socket takes.

    Halves that belong together, as where a stream was cut between them, are joined.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def tokens(usage: object) -> Usage:
    """Return the usage that an SDK read; what is missing or is no number counts 0."""
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(prompt_tokens=prompt, completion_tokens=completion)


def server_words(words: str, *, key: str) -> str:
    """Return what a server said as one short line, without the key, which some echo."""
    if len(key) >= 8:  # shorter ones are placeholders like "none", and words of the language
        words = words.replace(key, "[the key]")
    return well_formed(" ".join(words.split())[:_WORDS_CHARACTERS])


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine, so that no proxy may be asked for it."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def plain_text(content: object) -> str:
    """Return the text of a message's content: text, None, or a list of parts, of which thinking is left out."""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        return ""  # None, or an SDK's "unset"
    pieces = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else getattr(part, "text", None)
        if isinstance(text, str):
            pieces.append(text)
    return "".join(pieces)


def as_dicts(messages: Sequence[Message], *, named_results: bool) -> list[dict[str, Any]]:
    """Return the messages as chat completions take them; `named_results` where tool messages may carry a name.

    Results are put into the order of the calls: templates without ids match them by place.
    """
    return [_as_dict(message, named_results=named_results) for message in _in_call_order(messages)]


def _in_call_order(messages: Sequence[Message]) -> list[Message]:
    ordered: list[Message] = []
    places: dict[str, int] = {}
    run: list[ToolMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            run.append(message)
            continue
        ordered += _sorted(run, places)
        run = []
        if isinstance(message, AssistantMessage):
            places = {call.id: place for place, call in enumerate(message.tool_calls)}
        ordered.append(message)
    return ordered + _sorted(run, places)


def _sorted(results: list[ToolMessage], places: dict[str, int]) -> list[Message]:
    return [*sorted(results, key=lambda result: places.get(result.call_id, len(places)))]


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
                return {"role": "assistant", "content": message.text or "(no answer)"}
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
