"""A model in this process, by transformers: `transformers:FOLDER`. Loaded when the first question is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..errors import ChatRequestInvalid, ModelRefused, ModelStalled
from ..models.files import checked
from .answers import Answer, Asked
from .history import as_dicts, mended
from .port import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ..models.answering import Event
    from ..models.asking import Ask
    from ..models.engine import Engine
    from ..models.loading import Model
    from .port import Completion, Message, TextListener, ToolSchema


#: No answer of an agent's is longer; a model that repeats itself must come to an end before its context does.
MOST_TOKENS = 16_384


class TransformersModel:
    """The model in a folder. Raises `ModelFilesUnusable` at once for one that cannot be used.

    An answer ends after `most_tokens`, and is given up where for `timeout_seconds` nothing new comes.
    """

    def __init__(self, folder: Path, *, timeout_seconds: float = 300.0, most_tokens: int = MOST_TOKENS) -> None:
        self._folder = checked(folder).folder
        self._timeout_seconds, self._most_tokens = timeout_seconds, most_tokens
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
        from ..models.asking import Ask, Sampling  # noqa: PLC0415 - for who has a model here
        from ..models.engine import Engine  # noqa: PLC0415 - likewise

        offered = [
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": False}
            for tool in tools
        ]
        history, notes = mended(messages)
        ask = Ask(
            messages=as_dicts(history, named_results=False), tools=offered, choice=tool_choice if offered else "auto",
            schema={"type": "object"} if json_object else None, sampling=Sampling(max_tokens=self._most_tokens),
        )  # fmt: skip
        with Engine(self._loaded(), at_once=1) as engine:
            # No tools are named: calls are read from tokens here, so none is looked for in the text.
            answer = Answer(Asked(model=self.name, tool_choice=tool_choice, notes=notes), on_text)
            return self._completion(engine, ask, answer)

    def _completion(self, engine: Engine, ask: Ask, answer: Answer) -> Completion:
        try:
            return self._read(engine.answer(ask, timeout_seconds=self._timeout_seconds), answer)
        except TimeoutError as error:
            raise ModelStalled(f"{self.name}: nothing new came in {self._timeout_seconds:g} seconds") from error
        except ChatRequestInvalid as error:
            raise ModelRefused(f"{self.name}: {error}") from error

    def _loaded(self) -> Model:
        from ..models.loading import load  # noqa: PLC0415 - as above

        if self._model is None:
            self._model = load(self._folder)
        return self._model

    def _read(self, events: Iterable[Event], answer: Answer) -> Completion:
        from ..models.answering import Arguments, CallBegun, Text  # noqa: PLC0415 - as above

        for event in events:
            if isinstance(event, Text):
                answer.text(event.text)
            elif isinstance(event, CallBegun):
                answer.parts.add(event.index, event.id, event.name, "")
            elif isinstance(event, Arguments):
                answer.parts.add(event.index, None, None, event.text)
            else:
                answer.usage = Usage(prompt_tokens=event.prompt_tokens, completion_tokens=event.completion_tokens)
                answer.reason = event.reason
                return answer.completion()
        raise AssertionError("an answer has an end")
