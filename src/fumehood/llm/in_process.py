"""A model in this process, by transformers: `transformers:FOLDER`. Loaded when the first question is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..errors import ChatRequestInvalid, ModelRefused
from ..models.files import checked
from .port import CallParts, Completion, Usage, as_dicts, finished

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ..models.answering import Event
    from ..models.asking import Ask
    from ..models.engine import Engine
    from ..models.loading import Model
    from .port import Message, TextListener, ToolSchema


class TransformersModel:
    """The model in a folder. Raises `ModelFilesUnusable` at once for one that cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = checked(folder).folder
        self._model: Model | None = None

    @property
    def name(self) -> str:
        """The folder's name, and where it runs."""
        return f"{self._folder.resolve().name} in this process"

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
        from ..models.asking import Ask  # noqa: PLC0415 - for who has a model here
        from ..models.engine import Engine  # noqa: PLC0415 - likewise

        offered = [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": False}
            for tool in tools
        ]
        ask = Ask(
            messages=as_dicts(messages, named_results=False), tools=offered, choice=tool_choice if offered else "auto",
            schema={"type": "object"} if json_object else None,
        )  # fmt: skip
        with Engine(self._loaded(), at_once=1) as engine:
            return self._completion(engine, ask, tool_choice, on_text)

    def _completion(self, engine: Engine, ask: Ask, tool_choice: str, on_text: TextListener | None) -> Completion:
        try:
            return self._read(engine.answer(ask), tool_choice, on_text)
        except ChatRequestInvalid as error:
            raise ModelRefused(f"{self.name}: {error}") from error

    def _loaded(self) -> Model:
        from ..models.loading import load  # noqa: PLC0415 - as above

        if self._model is None:
            self._model = load(self._folder)
        return self._model

    def _read(self, events: Iterable[Event], tool_choice: str, on_text: TextListener | None) -> Completion:
        from ..models.answering import Arguments, CallBegun, Text  # noqa: PLC0415 - as above

        pieces: list[str] = []
        parts = CallParts()
        for event in events:
            if isinstance(event, Text):
                pieces.append(event.text)
                if on_text is not None:
                    on_text(event.text)
            elif isinstance(event, CallBegun):
                parts.add(event.index, event.id, event.name, "")
            elif isinstance(event, Arguments):
                parts.add(event.index, None, None, event.text)
            else:
                usage = Usage(prompt_tokens=event.prompt_tokens, completion_tokens=event.completion_tokens)
                return finished("".join(pieces), parts, event.reason, usage, tool_choice=tool_choice, model=self.name)
        raise AssertionError("an answer has an end")
