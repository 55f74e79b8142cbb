"""A model that replays a dialogue file: for demonstrations and tests, and shipped, so that anyone can use it.

The file is JSON: `{"dialogues": [{"question": …, "turns": […], "json_mode": […]}]}`. A turn is `{"text": …}` or
`{"calls": [{"name": …, "arguments": {…}}]}`, or both. In a text `{{result}}` stands for the last tool result that the model
was really sent and `{{result.1}}` for the first, so a replay can only repeat what a sandbox printed. `json_mode` holds
the answers to direct prompting.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigurationError, ModelMisbehaved, NoModel
from .answers import Answer, Asked
from .port import AssistantMessage, Completion, ToolMessage, UserMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .port import Message, TextListener, ToolSchema

#: The dialogues behind `scripted:demo`.
DEMO = Path(__file__).parent / "demo.json"

_RESULT = re.compile(r"\{\{result(?:\.(?P<number>[0-9]{1,4}))?\}\}")


class ScriptedModel:
    """Replays the dialogue whose question the user asked. Raises `NoModel` for a question that it does not know."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dialogues = _read(path)

    @property
    def name(self) -> str:
        """That it is a replay, and of what."""
        return f"a replay of {self._path.name}, not a model"

    def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),  # noqa: ARG002 - a script knows its tools
        tool_choice: Literal["auto", "none", "required"] = "auto",
        json_object: bool = False,
        on_text: TextListener | None = None,
    ) -> Completion:
        """See `ChatModel.complete`."""
        question = next(message.text for message in messages if isinstance(message, UserMessage))
        turns = self._turns(question, "json_mode" if json_object else "turns")
        place = sum(isinstance(message, AssistantMessage) for message in messages)
        if place >= len(turns):
            raise ModelMisbehaved(f"{self.name}: the dialogue for {question!r} has only {len(turns)} turns")
        turn = turns[place]
        text = self._filled(turn.get("text", ""), messages)
        answer = Answer(Asked(model=self.name, tool_choice=tool_choice), on_text)
        for line in text.splitlines(keepends=True):
            answer.text(line)
        for index, call in enumerate(turn.get("calls", ())):
            answer.parts.add(index, None, call["name"], call.get("arguments", {}))
        answer.reason = "stop"
        return answer.completion()

    def _filled(self, text: str, messages: Sequence[Message]) -> str:
        results = [message.text.strip() for message in messages if isinstance(message, ToolMessage)]

        def result(place: re.Match[str]) -> str:
            number = int(place["number"] or len(results))
            if not 1 <= number <= len(results):
                raise ModelMisbehaved(f"{self.name}: its text names {place[0]}, and it was sent {len(results)} results")
            return results[number - 1]

        return _RESULT.sub(result, text)

    def _turns(self, question: str, kind: str) -> list[dict[str, Any]]:
        for dialogue in self._dialogues:
            if dialogue["question"].casefold().strip() == question.casefold().strip() and kind in dialogue:
                turns: list[dict[str, Any]] = dialogue[kind]
                return turns
        known = "".join(f"\n  {dialogue['question']}" for dialogue in self._dialogues if kind in dialogue)
        raise NoModel(f"{self.name}: it does not know the question {question!r}. It knows:{known}")


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        dialogues = json.loads(path.read_text(encoding="utf-8"))["dialogues"]
        for dialogue in dialogues:
            if not isinstance(dialogue["question"], str) or not ({"turns", "json_mode"} & dialogue.keys()):
                raise ValueError("a dialogue needs a question and turns or json_mode")
            for turn in (*dialogue.get("turns", ()), *dialogue.get("json_mode", ())):
                _check_turn(turn)
    except OSError as error:
        raise ConfigurationError(f"the dialogue file {str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            f"the dialogue file {str(path)!r} is not of the shape that fumehood.llm.scripted describes: {error!r}"
        ) from error
    return list(dialogues)


def _check_turn(turn: dict[str, Any]) -> None:
    if not turn or turn.keys() - {"text", "calls"} or not isinstance(turn.get("text", ""), str):
        raise ValueError(f"a turn has a text, calls, or both: {turn!r}")
    for call in turn.get("calls", ()):
        if not isinstance(call["name"], str) or not isinstance(call.get("arguments", {}), (dict, str)):
            raise ValueError(f"a call has a name and arguments, an object or text: {call!r}")
