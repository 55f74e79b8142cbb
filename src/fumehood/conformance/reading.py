"""What an answer says, read strictly: nothing is filled in, and what breaks the format is a failure with its words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..protocol.record import Record
from .verdicts import Failed
from .wire import Exchange, events, strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What stands in the vocabulary as control tokens and never in a text that a user may see.
MARKERS = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[TOOL_RESULTS]", "[AVAILABLE_TOOLS]", "[INST]", "[/INST]", "</s>")


class Call(Record):
    """One tool call, its fields as they came: a well-behaved server gives text for each."""

    id: Any
    name: Any
    arguments: Any

    def value(self) -> dict[str, Any]:
        """Return the arguments. Raises `Failed` where they are not the text of a JSON object."""
        if not isinstance(self.arguments, str):
            raise Failed(f"arguments are {_kind(self.arguments)}, not text: {quote(self.arguments)}")
        try:
            value = strict_json(self.arguments)
        except ValueError:
            raise Failed(f"arguments are not JSON: {quote(self.arguments)}") from None
        if not isinstance(value, dict):
            raise Failed(f"arguments are no JSON object: {quote(self.arguments)}")
        return value


class Answer(Record):
    """One choice. `way` is "whole" or "streamed"; `content` is None where there was none."""

    way: str
    content: str | None
    calls: tuple[Call, ...]
    finish_reason: Any
    usage: dict[str, Any]

    @property
    def marker(self) -> str:
        """The first control token that stands in the content as text, or ""."""
        return next((marker for marker in MARKERS if marker in (self.content or "")), "")

    @property
    def cut(self) -> bool:
        """Whether the server says that a limit ended the answer: Mistral's API has a word of its own for the context's."""
        return self.finish_reason in ("length", "model_length")

    def spent(self, what: str) -> int | None:
        """Return a number of the usage, like `completion_tokens`; None where the server did not say."""
        number = self.usage.get(what)
        return number if isinstance(number, int) and not isinstance(number, bool) else None


def answer(exchange: Exchange) -> Answer:
    """Return what the exchange's answer says. Raises `Failed` where it is none."""
    if exchange.status != 200:
        raise Failed(f"answered {exchange.status}: {quote(exchange.text)}")
    if exchange.broken:
        raise Failed(f"the answer is cut: {exchange.broken}")
    told = _streamed(exchange) if exchange.streamed else _whole(exchange)
    if told.finish_reason == "error":
        raise Failed(f"{told.way}: the answer ends in an error: {quote(told.content)}")
    return told


def quote(value: Any, length: int = 200) -> str:
    """Return the beginning of what a server said, in quotes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return repr(text if len(text) <= length else text[:length] + "…")


def text_of(content: Any) -> str | None:
    """Return a content as text: Mistral's may be a list of parts. Raises `Failed` for what is neither."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and "type" in part for part in content):
        return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    raise Failed(f"content is {_kind(content)}, not text: {quote(content)}")


def _whole(exchange: Exchange) -> Answer:
    try:
        value = exchange.json()
    except ValueError:
        raise Failed(f"the answer is not JSON: {quote(exchange.text)}") from None
    choice = _choice(value)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Failed(f"the choice has no message: {quote(choice)}")
    listed = message.get("tool_calls") or []
    if not isinstance(listed, list):
        raise Failed(f"tool_calls is {_kind(listed)}, not a list")
    return Answer(
        way="whole", content=text_of(message.get("content")), calls=tuple(_call(each) for each in listed),
        finish_reason=choice.get("finish_reason"), usage=_usage(value),
    )  # fmt: skip


def deltas(exchange: Exchange) -> Iterator[dict[str, Any]]:
    """Yield the choices of a stream, each with its `delta`. Raises `Failed` for an event that is none."""
    for event in events(exchange.body):
        if event.problem:
            raise Failed(f"an event {event.problem}: {quote(event.data)}")
        if event.done:
            continue
        if not isinstance(event.value, dict):
            raise Failed(f"an event is no JSON object: {quote(event.data)}")
        if event.value.get("error") is not None or event.value.get("object") == "error":
            raise Failed(f"the stream carries an error: {quote(event.value)}")
        if event.value.get("choices"):
            choice = _choice(event.value)
            if not isinstance(choice.get("delta") or {}, dict):
                raise Failed(f"a delta is {_kind(choice['delta'])}, not an object")
            yield choice


def call_deltas(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pieces of calls in a streamed choice."""
    pieces = (choice.get("delta") or {}).get("tool_calls") or []
    if not isinstance(pieces, list) or not all(isinstance(piece, dict) for piece in pieces):
        raise Failed(f"a delta's tool_calls is no list of objects: {quote(pieces)}")
    return pieces


def _streamed(exchange: Exchange) -> Answer:
    content: str | None = None
    reason = None
    calls: dict[Any, dict[str, Any]] = {}
    for choice in deltas(exchange):
        piece = text_of((choice.get("delta") or {}).get("content"))
        content = content if piece is None else (content or "") + piece
        reason = choice.get("finish_reason") or reason
        for part in call_deltas(choice):
            _add(calls.setdefault(repr(part.get("index", 0)), {"id": None, "name": None, "arguments": ""}), part)
    usages = [_usage(event.value) for event in events(exchange.body) if isinstance(event.value, dict)]
    return Answer(
        way="streamed", content=content, calls=tuple(Call(**call) for call in calls.values()), finish_reason=reason,
        usage=next((usage for usage in reversed(usages) if usage), {}),
    )  # fmt: skip


def _add(call: dict[str, Any], part: dict[str, Any]) -> None:
    function = part.get("function") or {}
    if not isinstance(function, dict):
        raise Failed(f"a call's function is {_kind(function)}, not an object")
    call["id"] = call["id"] or part.get("id")
    # Most clients join names: what a server repeats comes out twice.
    if function.get("name"):
        call["name"] = str(call["name"] or "") + str(function["name"])
    piece = function.get("arguments")
    if isinstance(piece, str) and isinstance(call["arguments"], str):
        call["arguments"] += piece
    elif piece is not None:
        call["arguments"] = piece


def _choice(value: Any) -> dict[str, Any]:
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Failed(f"the answer has no choices: {quote(value)}")
    first: dict[str, Any] = choices[0]
    return first


def _call(value: Any) -> Call:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict):
        raise Failed(f"a tool call has no function: {quote(value)}")
    return Call(id=value.get("id"), name=function.get("name"), arguments=function.get("arguments"))


def _usage(value: dict[str, Any]) -> dict[str, Any]:
    usage = value.get("usage")
    return usage if isinstance(usage, dict) else {}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return {"dict": "an object", "list": "a list", "bool": "true or false", "str": "text"}.get(
        type(value).__name__, "a number"
    )
