"""What Mistral's API and OpenAI's have in common: the question in chat completions' form, and the answer judged.

A client is a subclass that says whose words it speaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..protocol.record import Record
from .answers import Answer, Asked
from .history import as_dicts, mended, tool_dicts
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .port import Completion, Message, TextListener, ToolSchema


class Dialect(Record):
    """How one API differs from the other."""

    #: The word for a forced call.
    required: str
    #: Whether a tool's result may carry its name.
    named_results: bool
    #: Whether a stream's count of tokens has to be asked for.
    usage_on_request: bool


class ChatCompletions:
    """A model behind such an API at `url`."""

    def __init__(self, model: str, *, name: str, url: str, key: str, timeout_seconds: float, dialect: Dialect) -> None:
        self._model = model
        self._name = name
        self._dialect = dialect
        self._wire = Wire(name, url=url, key=key, timeout_seconds=timeout_seconds)

    @property
    def name(self) -> str:
        """The model's name and its server."""
        return self._name

    def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSchema] = (),
        tool_choice: Literal["auto", "none", "required"] = "auto",
        json_object: bool = False,
        on_text: TextListener | None = None,
    ) -> Completion:
        """See `ChatModel.complete`."""
        history, notes = mended(messages)
        request: dict[str, Any] = {
            "model": self._model,
            "messages": as_dicts(history, named_results=self._dialect.named_results),
        }
        if tools:
            choice = self._dialect.required if tool_choice == "required" else tool_choice
            request |= {"tools": tool_dicts(tools), "tool_choice": choice}
        if json_object:
            request["response_format"] = {"type": "json_object"}
        if on_text is not None:
            request["stream"] = True
            if self._dialect.usage_on_request:
                request["stream_options"] = {"include_usage": True}
        answer = Answer(Asked.of(self._name, messages, tools, tool_choice, notes), on_text)
        self._wire.ask(request, answer)
        return answer.completion()
