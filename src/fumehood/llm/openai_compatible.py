"""Any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama, LM Studio, transformers.

Through the official `openai` SDK, loaded when the first question is asked.
"""

from __future__ import annotations

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
    from collections.abc import Iterator, Sequence

    import openai

    from .port import Message, TextListener, ToolSchema


class OpenAICompatible:
    """A model on such a server. `key` may be any text where the server asks for none."""

    def __init__(self, model: str, *, base_url: str, key: str = "none", timeout_seconds: float = 300.0) -> None:
        self._model = model
        self._base_url = base_url
        self._key = key
        self._timeout_seconds = timeout_seconds

    @property
    def name(self) -> str:
        """The model's name and its server."""
        return f"{self._model} at {self._base_url}"

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
        request: dict[str, Any] = {"model": self._model, "messages": as_dicts(messages, named_results=False)}
        if tools:
            request |= {"tools": tool_dicts(tools), "tool_choice": tool_choice}
        if json_object:
            request["response_format"] = {"type": "json_object"}
        import httpx2  # noqa: PLC0415 - the SDK's own; loaded with it
        import openai  # noqa: PLC0415 - 400 ms to load

        try:
            with self._client() as client:
                if on_text is None:
                    return self._whole(client.chat.completions.create(**request), tool_choice)
                request |= {"stream": True, "stream_options": {"include_usage": True}}
                with client.chat.completions.create(**request) as chunks:
                    return self._streamed(chunks, tool_choice, on_text)
        except openai.APIStatusError as error:
            raise ModelRefused(f"{self.name} answered {error.status_code}: {self._words(error)}") from error
        except openai.APITimeoutError as error:
            raise ModelUnreachable(f"{self.name} did not answer in {self._timeout_seconds:g} seconds") from error
        except openai.APIConnectionError as error:
            raise ModelUnreachable(f"{self.name} cannot be reached: {error.__cause__ or error}") from error
        except httpx2.HTTPError as error:
            raise ModelUnreachable(f"{self.name} broke off in the middle of its answer: {error}") from error
        except openai.APIResponseValidationError as error:
            raise ModelMisbehaved(f"{self.name} sent what is no chat completion") from error
        except openai.APIError as error:
            words = server_words(error.message, key=self._key)
            raise ModelRefused(f"{self.name} gave up in the middle of its answer: {words}") from error
        except (openai.OpenAIError, ValueError, AttributeError, TypeError, RecursionError) as error:
            # The SDK checks little of what a server sends: a missing field shows as whatever it breaks.
            words = server_words(str(error), key=self._key)
            raise ModelMisbehaved(f"{self.name} sent what is no chat completion: {words}") from error

    def _client(self) -> openai.OpenAI:
        import openai  # noqa: PLC0415 - see above

        return openai.OpenAI(
            base_url=self._base_url,
            api_key=self._key,
            # A question is not repeated behind the user's back: it may have cost money and time already.
            max_retries=0,
            timeout=self._timeout_seconds,
            http_client=openai.DefaultHttpxClient(trust_env=not is_loopback(self._base_url)),
        )

    def _words(self, error: openai.APIStatusError) -> str:
        body = error.body
        if isinstance(body, dict):
            words = str(body.get("message") or body.get("detail") or body)
        else:
            words = error.response.text.strip() or error.message
        return server_words(words, key=self._key)

    def _whole(self, answer: Any, tool_choice: str) -> Completion:
        if isinstance(answer, str):
            raise ModelMisbehaved(
                f"{self.name} sent a page, no chat completion: is this address the one that ends in /v1?"
            )
        if not answer.choices:
            raise ModelMisbehaved(f"{self.name} sent an answer without choices")
        choice = answer.choices[0]
        parts = CallParts()
        for index, call in enumerate(choice.message.tool_calls or ()):
            parts.add(index, call.id, call.function.name, call.function.arguments)
        text = plain_text(choice.message.content)
        usage = tokens(answer.usage)
        return finished(text, parts, choice.finish_reason, usage, tool_choice=tool_choice, model=self.name)

    def _streamed(self, chunks: Iterator[Any], tool_choice: str, on_text: TextListener) -> Completion:
        pieces: list[str] = []
        parts, reason, usage = CallParts(), None, Usage()
        for chunk in chunks:
            if chunk.usage is not None:
                usage = tokens(chunk.usage)
            for choice in (chunk.choices or ())[:1]:
                if text := plain_text(choice.delta.content):
                    pieces.append(text)
                    on_text(well_formed(text))
                for call in choice.delta.tool_calls or ():
                    function = call.function
                    index = getattr(call, "index", None)
                    parts.add(index, call.id, function and function.name, function and function.arguments)
                reason = choice.finish_reason or reason
        return finished("".join(pieces), parts, reason, usage, tool_choice=tool_choice, model=self.name)
