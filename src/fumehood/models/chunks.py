"""An answer's events as chat completions: one object, or the chunks of a stream."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from .answering import Arguments, CallBegun, Ended, Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .answering import Event


def whole(events: Sequence[Event], model: str) -> dict[str, Any]:
    """Return the whole answer; the last of its events is `Ended`."""
    pieces: list[str] = []
    calls: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, Text):
            pieces.append(event.text)
        elif isinstance(event, CallBegun):
            calls.append(_call(event))
        elif isinstance(event, Arguments):
            calls[event.index]["function"]["arguments"] += event.text
    end = events[-1]
    if not isinstance(end, Ended):
        raise TypeError("an answer has an end")
    message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces) or (None if calls else "")}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.reason}
    return {**_head(model, "chat.completion"), "choices": [choice], "usage": _usage(end)}


class Chunks:
    """Makes the chunks of one stream."""

    def __init__(self, model: str, *, tells_usage: bool) -> None:
        self._head, self._tells_usage = _head(model, "chat.completion.chunk"), tells_usage

    def first(self) -> dict[str, Any]:
        """Return the chunk that begins the answer."""
        return self._chunk({"role": "assistant", "content": ""})

    def of(self, event: Event) -> Iterator[dict[str, Any]]:
        """Return the chunks of one event. A call's id and name come once."""
        if isinstance(event, Text):
            yield self._chunk({"content": event.text})
        elif isinstance(event, CallBegun):
            yield self._chunk({"tool_calls": [{"index": event.index, **_call(event)}]})
        elif isinstance(event, Arguments):
            yield self._chunk({"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]})
        else:
            yield self._chunk({}, event.reason)
            if self._tells_usage:
                yield {**self._head, "choices": [], "usage": _usage(event)}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head, "choices": [choice]}


def _call(event: CallBegun) -> dict[str, Any]:
    return {"id": event.id, "type": "function", "function": {"name": event.name, "arguments": ""}}


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def _usage(end: Ended) -> dict[str, Any]:
    return {
        "prompt_tokens": end.prompt_tokens, "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }  # fmt: skip
