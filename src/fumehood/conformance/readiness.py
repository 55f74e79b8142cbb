"""Whether a server is there yet: what is missing, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ModelRefused, ModelUnreachable
from .reading import quote

if TYPE_CHECKING:
    from .wire import Exchange, Wire

_CHAT = "/chat/completions"


def lacks(wire: Wire, model: str) -> str:
    """Return what keeps the server from having the model; nothing where it lists it."""
    try:
        exchange = wire.get("/models")
    except ModelUnreachable:
        return "it does not listen yet"
    if exchange.status != 200:
        return f"/models answers {exchange.status}"
    names = _names(exchange)
    # Ollama tells a model's newest version by its whole name, and takes the short one.
    if model in names or f"{model}:latest" in names:
        return ""
    return f"it lists {quote(', '.join(names), 120)}" if names else "it lists no model yet"


def listens(missing: str) -> bool:
    """Whether what `lacks` returned says that the server is up and has its models ready to be told."""
    return not missing or missing.startswith("it lists")


def answers(wire: Wire, model: str) -> str:
    """Ask for one token, and return what keeps it from coming for now.

    Raises `ModelRefused` where asking again would bring the same, `ModelUnreachable` where nobody answers.
    """
    request = {"model": model, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    exchange = wire.post(_CHAT, request)
    if exchange.status in (429, 503):
        return f"it answers {exchange.status}: {quote(exchange.text, 120)}"
    if exchange.status != 200 or exchange.broken or not _has_choice(exchange):
        why = exchange.broken or quote(exchange.text, 300)
        raise ModelRefused(
            f"{wire.base_url} lists {model} and answers its first question with {exchange.status}: {why}"
        )
    return ""


def _names(exchange: Exchange) -> list[str]:
    try:
        return [str(each["id"]) for each in exchange.json()["data"]]
    except (ValueError, LookupError, TypeError):
        return []


def _has_choice(exchange: Exchange) -> bool:
    try:
        return isinstance(exchange.json()["choices"][0]["message"], dict)
    except (ValueError, LookupError, TypeError):
        return False
