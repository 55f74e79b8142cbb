"""Mistral's API, through the official `mistralai` SDK 3.x, loaded when the first question is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ModelMisbehaved, ModelRefused, ModelUnreachable
from .port import CallParts, Completion, Usage, as_dicts, finished, plain_text, tool_dicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mistralai.client import Mistral

    from .port import Message, TextListener, ToolSchema


class MistralModel:
    """A model on Mistral's API, or, with `server_url`, on a server that speaks it."""

    def __init__(self, model: str, *, key: str, server_url: str | None = None, timeout_seconds: float = 300.0) -> None:
        self._model = model
        self._key = key
        self._server_url = server_url
        self._timeout_seconds = timeout_seconds
        self._loaded: Mistral | None = None

    @property
    def name(self) -> str:
        """The model's name and whose it is."""
        return f"{self._model} at {self._server_url or 'Mistral'}"

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
        request: dict[str, Any] = {"model": self._model, "messages": as_dicts(messages, named_results=True)}
        if tools:
            # Mistral's word for a forced call; it takes OpenAI's only lately.
            choice = "any" if tool_choice == "required" else tool_choice
            request |= {"tools": tool_dicts(tools), "tool_choice": choice}
        if json_object:
            request["response_format"] = {"type": "json_object"}
        import httpx2  # noqa: PLC0415 - the SDK's own; loaded with it
        from mistralai.client import errors  # noqa: PLC0415 - 500 ms to load

        try:
            if on_text is None:
                return self._whole(self._client().chat.complete(**request), tool_choice)
            with self._client().chat.stream(**request) as events:
                return self._streamed(events, tool_choice, on_text)
        except errors.ResponseValidationError as error:
            raise ModelMisbehaved(f"{self.name} sent what is no chat completion: {error.cause or error}") from error
        except (errors.HTTPValidationError, errors.SDKError) as error:
            raise ModelRefused(f"{self.name} answered {error.status_code}: {_words(error.body)}") from error
        except httpx2.TimeoutException as error:
            raise ModelUnreachable(f"{self.name} did not answer in {self._timeout_seconds:g} seconds") from error
        except (errors.NoResponseError, httpx2.HTTPError) as error:
            raise ModelUnreachable(f"{self.name} cannot be reached or broke off: {error}") from error
        except (ValueError, AttributeError, TypeError) as error:
            raise ModelMisbehaved(f"{self.name} sent what is no chat completion: {error}") from error

    def _client(self) -> Mistral:
        from mistralai.client import Mistral  # noqa: PLC0415 - see above

        if self._loaded is None:
            self._loaded = Mistral(
                api_key=self._key, server_url=self._server_url, timeout_ms=int(self._timeout_seconds * 1000)
            )
        return self._loaded

    def _whole(self, answer: Any, tool_choice: str) -> Completion:
        if not answer.choices:
            raise ModelMisbehaved(f"{self.name} sent an answer without choices")
        choice = answer.choices[0]
        parts = CallParts()
        for index, call in enumerate(choice.message.tool_calls or ()):
            parts.add(index, call.id, call.function.name, call.function.arguments)
        text, usage = plain_text(choice.message.content), _usage(answer.usage)
        return finished(text, parts, choice.finish_reason, usage, tool_choice=tool_choice, model=self.name)

    def _streamed(self, events: Iterable[Any], tool_choice: str, on_text: TextListener) -> Completion:
        pieces: list[str] = []
        parts, reason, usage, seen = CallParts(), None, Usage(), 0
        for event in events:
            chunk = event.data
            if chunk.usage:
                usage = _usage(chunk.usage)
            for choice in chunk.choices[:1]:
                if text := plain_text(choice.delta.content):
                    pieces.append(text)
                    on_text(text)
                for call in choice.delta.tool_calls or ():
                    # Calls come whole, and the SDK says index 0 where the server says nothing.
                    parts.add(seen, call.id, call.function.name, call.function.arguments)
                    seen += 1
                reason = choice.finish_reason or reason
        return finished("".join(pieces), parts, reason, usage, tool_choice=tool_choice, model=self.name)


def _usage(usage: Any) -> Usage:
    if not usage:
        return Usage()
    return Usage(prompt_tokens=usage.prompt_tokens or 0, completion_tokens=usage.completion_tokens or 0)


def _words(body: str) -> str:
    try:
        value = json.loads(body)
    except ValueError:
        return body.strip()[:500]
    if isinstance(value, dict):
        return str(value.get("message") or value.get("detail") or value)[:500]
    return body[:500]
