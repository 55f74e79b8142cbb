"""Mistral's API, or any server that speaks it."""

from __future__ import annotations

from .chat_completions import ChatCompletions, Dialect

_URL = "https://api.mistral.ai"
# Its word for a forced call is "any"; it takes OpenAI's only lately.
_DIALECT = Dialect(required="any", named_results=True, usage_on_request=False)


class MistralModel(ChatCompletions):
    """A model on Mistral's API, or, with `server_url`, on a server that speaks it."""

    def __init__(self, model: str, *, key: str, server_url: str | None = None, timeout_seconds: float = 300.0) -> None:
        place = (server_url or _URL).rstrip("/").removesuffix("/v1")
        super().__init__(
            model,
            name=f"{model} at {server_url or 'Mistral'}",
            url=f"{place}/v1/chat/completions",
            key=key,
            timeout_seconds=timeout_seconds,
            dialect=_DIALECT,
        )
