"""Any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama, LM Studio, transformers."""

from __future__ import annotations

from .chat_completions import ChatCompletions, Dialect

_DIALECT = Dialect(required="required", named_results=False, usage_on_request=True)


class OpenAICompatible(ChatCompletions):
    """A model on such a server. `key` may be any text where the server asks for none."""

    def __init__(self, model: str, *, base_url: str, key: str = "none", timeout_seconds: float = 300.0) -> None:
        super().__init__(
            model,
            name=f"{model} at {base_url}",
            url=f"{base_url.rstrip('/')}/chat/completions",
            key=key,
            timeout_seconds=timeout_seconds,
            dialect=_DIALECT,
        )
