"""Reads what servers send: a whole completion, a piece of a stream, an error. Their fields may be of any type.

What is missing, null or of no use counts as nothing; what leaves no answer is `Malformed`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .port import Usage

if TYPE_CHECKING:
    from .answers import Answer


class Malformed(Exception):
    """What came is no chat completion; the text says why. The client puts the model's name to it."""


class Refusal(Exception):
    """What came is an error in the place of an answer; the text holds the server's words."""


def object_in(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`. Raises `Malformed`."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{error}: {_shown(data)}") from error
    if not isinstance(value, dict):
        raise Malformed(f"no JSON object but {_shown(data)}")
    return value


def add_whole(value: dict[str, Any], answer: Answer) -> None:
    """Add a whole completion. Raises `Malformed` and `Refusal`."""
    choice = _choice(value)
    if choice is None:
        raise Malformed("an answer without choices")
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Malformed("a choice without a message")
    # Each has its number by its place: some servers number all 0.
    for index, call in enumerate(_calls(message)):
        _add_call(call, index, answer)
    answer.text(plain_text(message.get("content")))
    answer.usage, answer.reason, answer.ended = _tokens(value.get("usage")), _reason(choice), True


def add_piece(value: dict[str, Any], answer: Answer) -> bool:
    """Add a piece of a stream; return whether it brought anything new. Raises `Malformed` and `Refusal`."""
    choice = _choice(value)
    if usage := value.get("usage"):
        answer.usage = _tokens(usage)
        # The count of tokens in a piece of its own is the last of a stream, by OpenAI's own rules.
        answer.ended = answer.ended or choice is None
    if choice is None:
        return False
    delta = choice.get("delta")
    if delta is None and "message" in choice and not answer.begun:
        add_whole(value, answer)
        return True
    new = False
    if delta:
        if not isinstance(delta, dict):
            raise Malformed(f"a delta that is {_shown(delta)}")
        if content := delta.get("content"):
            answer.text(plain_text(content))
        for call in _calls(delta):
            index = call.get("index")
            _add_call(call, index if isinstance(index, int) else None, answer)
        # Thoughts too, whatever their field is called. The role is repeated by some in each piece.
        new = any(value for name, value in delta.items() if name != "role")
    answer.reason = _reason(choice) or answer.reason
    return new


def _reason(choice: dict[str, Any]) -> str:
    reason = choice.get("finish_reason")
    return str(reason)[:50] if reason else ""


def _choice(value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the first choice; None where there is none."""
    if value.get("error") or ("choices" not in value and (value.get("message") or value.get("detail"))):
        raise Refusal(error_words(value))
    choices = value.get("choices")
    if not choices:
        return None
    choice = choices[0] if isinstance(choices, list) else None
    if not isinstance(choice, dict):
        raise Malformed(f"choices that are {_shown(choices)}")
    return choice


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Malformed(f"calls that are {_shown(calls)}")
    return calls


def _add_call(call: dict[str, Any], index: int | None, answer: Answer) -> None:
    function = call.get("function") or {}
    if not isinstance(function, dict):
        raise Malformed(f"a call of {_shown(function)}")
    try:
        answer.parts.add(index, call.get("id"), function.get("name"), function.get("arguments"))
    except (RecursionError, ValueError) as error:
        # Writing an object that is nested too deeply, or that holds too long a number.
        raise Malformed(f"arguments that cannot be written: {error}") from error


def plain_text(content: object) -> str:
    """Return the text of a message's content: text, None, or a list of parts, of which thinking is left out."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def _tokens(usage: object) -> Usage:
    counts = usage if isinstance(usage, dict) else {}
    prompt, completion = (counts.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(
        prompt_tokens=prompt if isinstance(prompt, int) else 0,
        completion_tokens=completion if isinstance(completion, int) else 0,
    )


def error_words(value: object) -> str:
    """Return what an error says, in OpenAI's shape, Mistral's or FastAPI's."""
    if not isinstance(value, dict):
        return str(value)
    if error := value.get("error"):
        return error_words(error)
    return str(value.get("message") or value.get("detail") or value)


def _shown(value: object) -> str:
    return repr(value)[:100]
