"""Mistral's API, through the official `mistralai` SDK 3.x, loaded when the first question is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ModelMisbehaved, ModelRefused, ModelUnreachable
from .port import (
    CallParts,
    Completion,
    Usage,
    as_dicts,
    finished,
    is_loopback,
    plain_text,
    server_words,
    tokens,
    tool_dicts,
    well_formed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import httpx2
    from mistralai.client import Mistral
    from mistralai.client.errors import ResponseValidationError

    from .port import Message, TextListener, ToolSchema


class MistralModel:
    """A model on Mistral's API, or, with `server_url`, on a server that speaks it."""

    def __init__(self, model: str, *, key: str, server_url: str | None = None, timeout_seconds: float = 300.0) -> None:
        self._model = model
        self._key = key
        self._server_url = server_url
        self._timeout_seconds = timeout_seconds

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
            with self._http() as http, self._client(http) as client:
                if on_text is None:
                    return self._whole(client.chat.complete(**request), tool_choice)
                with client.chat.stream(**request) as events:
                    return self._streamed(events, tool_choice, on_text)
        except errors.ResponseValidationError as error:
            raise ModelMisbehaved(f"{self.name} sent what is no chat completion: {self._broken(error)}") from error
        except (errors.HTTPValidationError, errors.SDKError) as error:
            words = server_words(_message(error.body), key=self._key)
            if error.status_code < 400:
                raise ModelMisbehaved(f"{self.name} sent what is no chat completion: {words}") from error
            raise ModelRefused(f"{self.name} answered {error.status_code}: {words}") from error
        except httpx2.TimeoutException as error:
            raise ModelUnreachable(f"{self.name} did not answer in {self._timeout_seconds:g} seconds") from error
        except (errors.NoResponseError, httpx2.HTTPError) as error:
            raise ModelUnreachable(f"{self.name} cannot be reached or broke off: {error}") from error
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            words = server_words(str(error), key=self._key)
            raise ModelMisbehaved(f"{self.name} sent what is no chat completion: {words}") from error

    def _http(self) -> httpx2.Client:
        import httpx2  # noqa: PLC0415 - see above

        return httpx2.Client(follow_redirects=True, trust_env=not is_loopback(self._server_url or ""))

    def _client(self, http: httpx2.Client) -> Mistral:
        from mistralai.client import Mistral  # noqa: PLC0415 - see above

        # The SDK repeats nothing unless told to: a question may have cost money and time already.
        return Mistral(
            api_key=self._key, server_url=self._server_url, client=http, timeout_ms=int(self._timeout_seconds * 1000)
        )

    def _broken(self, error: ResponseValidationError) -> str:
        words = server_words(str(error.cause or error), key=self._key)
        if "function.name" not in words:
            return words
        # The SDK knows calls only whole, as Mistral streams them; vLLM and llama.cpp stream them in pieces.
        return "it streams calls in pieces, as OpenAI does: name it as openai:MODEL@URL/v1, or pass --no-stream"

    def _whole(self, answer: Any, tool_choice: str) -> Completion:
        if not answer.choices:
            raise ModelMisbehaved(f"{self.name} sent an answer without choices")
        choice = answer.choices[0]
        parts = CallParts()
        for index, call in enumerate(choice.message.tool_calls or ()):
            parts.add(index, call.id, call.function.name, call.function.arguments)
        text, usage = plain_text(choice.message.content), tokens(answer.usage)
        return finished(text, parts, choice.finish_reason, usage, tool_choice=tool_choice, model=self.name)

    def _streamed(self, events: Iterable[Any], tool_choice: str, on_text: TextListener) -> Completion:
        pieces: list[str] = []
        parts, reason, usage = CallParts(), None, Usage()
        for event in events:
            chunk = event.data
            if chunk.usage:
                usage = tokens(chunk.usage)
            for choice in chunk.choices[:1]:
                if text := plain_text(choice.delta.content):
                    pieces.append(text)
                    on_text(well_formed(text))
                for call in choice.delta.tool_calls or ():
                    # The SDK says index 0 where the server says nothing, so its index tells nothing.
                    parts.add(None, call.id, call.function.name, call.function.arguments)
                reason = choice.finish_reason or reason
        return finished("".join(pieces), parts, reason, usage, tool_choice=tool_choice, model=self.name)


def _message(body: str) -> str:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return str(value.get("message") or value.get("detail") or value) if isinstance(value, dict) else body
