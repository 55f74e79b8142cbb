"""The record of one question: every message in order, each execution, and the tokens it took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from ..llm.port import AssistantMessage, SystemMessage, ToolMessage, Usage, UserMessage

if TYPE_CHECKING:
    from ..llm.port import Completion, Message, Note
    from ..protocol.execution import ExecutionResult


class Observer(Protocol):
    """What a door may want to show while a question is being answered."""

    def text(self, piece: str) -> None:
        """Hear a piece of the model's text."""
        ...

    def code(self, code: str) -> None:
        """Hear a program that is about to run."""
        ...

    def result(self, told: str) -> None:
        """Hear what the model is told of the program that ran last."""
        ...


class Transcript:
    """A linear history that grows while a question is answered, and can be saved as JSON."""

    def __init__(self, *, model: str, method: str) -> None:
        self.messages: list[Message] = []
        self.executions: list[ExecutionResult] = []
        self.answer = ""
        #: Whether the answer ends where the model's length limit cut it off.
        self.cut_off = False
        #: Where model or server broke the rules, and what was made of it, in order.
        self.notes: list[Note] = []
        self._model = model
        self._method = method
        self._usage = Usage()
        self._started = time.monotonic()

    def add(self, *messages: Message) -> None:
        """Append messages."""
        self.messages += messages

    def add_completion(self, completion: Completion) -> None:
        """Append the model's answer with its notes, and count its tokens."""
        self.add(AssistantMessage(text=completion.text, tool_calls=completion.tool_calls))
        self.notes += completion.notes
        self._usage = Usage(
            prompt_tokens=self._usage.prompt_tokens + completion.usage.prompt_tokens,
            completion_tokens=self._usage.completion_tokens + completion.usage.completion_tokens,
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "model": self._model,
            "method": self._method,
            "answer": self.answer,
            "cut_off": self.cut_off,
            "notes": [note.as_dict() for note in self.notes],
            "messages": [_as_json(message) for message in self.messages],
            "executions": [execution.as_json() for execution in self.executions],
            "usage": self._usage.as_dict(),
            "duration_seconds": round(time.monotonic() - self._started, 3),
        }


def _as_json(message: Message) -> dict[str, Any]:
    match message:
        case SystemMessage():
            return {"role": "system", "text": message.text}
        case UserMessage():
            return {"role": "user", "text": message.text}
        case ToolMessage():
            return {"role": "tool", **message.as_dict()}
        case AssistantMessage():
            calls = [call.as_dict() for call in message.tool_calls]
            return {"role": "assistant", "text": message.text, "tool_calls": calls}
