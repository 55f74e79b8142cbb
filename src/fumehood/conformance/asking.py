"""What the checks ask: the model card's tools, and questions that leave a model little choice."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from .reading import Answer, quote
from .verdicts import Failed, NeedsRealWeights

#: A conversation, as the wire has it.
Messages = list[dict[str, Any]]

#: The card's first test.
STORY = "Could you write me a story ?"
#: Its fourth and its fifth.
WEB_SERVER = "How would you develop a web server if you couldn't use JS and your team doesn't like PHP."
SMALL_TALK = "Who are you ? Who made you and what day is it ?"
TOOL_NAMES = ("add_number", "multiply_number", "substract_number", "write_a_story", "terminal", "python")


def user(content: Any) -> dict[str, Any]:
    """Return a message of the user's."""
    return {"role": "user", "content": content}


def assistant(content: Any, *calls: tuple[str, str, str]) -> dict[str, Any]:
    """Return a message of the model's; a call is (id, name, arguments as text)."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id_, name, arguments in calls
        ]
    return message


def result(id_: str, content: Any, **more: Any) -> dict[str, Any]:
    """Return a tool's result."""
    return {"role": "tool", "tool_call_id": id_, "content": content, **more}


def tools(*names: str) -> list[dict[str, Any]]:
    """Return these tools of the card's, or all six."""
    wanted = names or TOOL_NAMES
    return [tool for tool in _card()["tools"] if tool["function"]["name"] in wanted]


def call_exactly(*calls: tuple[str, dict[str, Any]], first: str = "") -> list[dict[str, Any]]:
    """Return a conversation that asks for these calls in one answer, and for a sentence before them."""
    lines = [f"{name} {json.dumps(arguments, ensure_ascii=False)}" for name, arguments in calls]
    before = f"First write this sentence: {first}\nThen call" if first else "Call"
    what = "this tool" if len(calls) == 1 else "these tools, all of them in this one answer,"
    return [user(f"{before} {what} with exactly these arguments, changing nothing:\n\n" + "\n".join(lines))]


def repeat(sentence: str) -> list[dict[str, Any]]:
    """Return a conversation that asks for this sentence back."""
    return [user(f"Repeat this sentence word for word and write nothing else:\n{sentence}")]


def called(answer: Answer, wanted: str) -> Answer:
    """Return the answer, which has a call.

    Raises `Failed` where the call came as text or has no name that a tool can have, `NeedsRealWeights` where the model made
    none, or did not end it.
    """
    if not answer.calls:
        if answer.marker:
            raise Failed(f"{answer.way}: the call came as text: the content is {quote(answer.content)}")
        raise NeedsRealWeights(
            f"asked for a call of {wanted}, the model ({answer.way}) wrote {quote(answer.content, 80)}"
        )
    if answer.cut:
        raise NeedsRealWeights(
            f"asked for a call of {wanted}, the model ({answer.way}) came to no end within its max_tokens"
        )
    for call in answer.calls:
        if not isinstance(call.name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call.name):
            raise Failed(f"{answer.way}: a call's name is {quote(call.name)}, which no tool can have")
    return answer


@cache
def _card() -> dict[str, Any]:
    value: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "card.json").read_text(encoding="utf-8"))
    return value
