"""How checks speak to the server: the same question is sent once for all of them, and each keeps what it heard."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from ..errors import ModelUnreachable
from ..protocol.record import Record
from .asking import Messages, repeat
from .counting import counter
from .reading import Answer, answer, quote
from .toolbox import Toolbox
from .verdicts import Failed, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..protocol.executor import Executor
    from .counting import Counter
    from .wire import Exchange, Wire

CHAT = "/chat/completions"
SENTENCE = "The sky is blue."
#: Of each answer; random weights seldom come to an end by themselves, and what they say tells nothing more at length.
_MOST_TOKENS, _MOST_TOKENS_OF_NOISE = 400, 100
#: How long a run waits in all for a server that says 429, and at most at a time.
_PATIENCE_SECONDS = 300.0
_ONE_WAIT_SECONDS = 30.0


class Setup(Record):
    """What a run has beside the server.

    `tokenizer` is the model's own tekken.json, or its folder. `long` asks for the tests at the card's full size.
    `system_prompt` is the template of the card's tests, `executor` gives what runs the model's programs: it is called once
    there is one to run.
    """

    tokenizer: Path | None = None
    long: bool = False
    system_prompt: str | None = None
    executor: Callable[[], Executor] | None = None


class Memory:
    """What all checks of a run share: what was asked and answered, and how long may still be waited."""

    def __init__(self) -> None:
        self.known: dict[str, Exchange] = {}
        self.patience_seconds = _PATIENCE_SECONDS
        self.counter: Counter | None = None
        self.toolbox: Toolbox | None = None
        self.follows: bool | None = None


class Talk:
    """One check's conversation."""

    def __init__(self, wire: Wire, model: str, memory: Memory, setup: Setup) -> None:
        self.model = model
        self.setup = setup
        self.exchanges: list[Exchange] = []
        #: Whether a question got no answer, or none that came to its end in time.
        self.met_silence = False
        self._wire = wire
        self._memory = memory

    def whole(self, messages: Messages, *, fresh: bool = False, **fields: Any) -> Exchange:
        """Ask for a whole answer. `fresh` asks again what was asked before."""
        return self._ask(self._request(messages, fields), fresh=fresh)

    def streamed(self, messages: Messages, *, fresh: bool = False, **fields: Any) -> Exchange:
        """Ask for a stream."""
        return self._ask({**self._request(messages, fields), "stream": True}, fresh=fresh)

    def both(self, messages: Messages, **fields: Any) -> tuple[Answer, Answer]:
        """Return the whole answer and the streamed one. Raises `Failed` where either is none."""
        return answer(self.whole(messages, **fields)), answer(self.streamed(messages, **fields))

    def prompt_tokens(self, messages: Messages, **fields: Any) -> int:
        """Return how long the prompt is by the server's count. Raises `Skipped` where it does not say."""
        told = answer(self.whole(messages, **{"max_tokens": 1, **fields}))
        number = told.spent("prompt_tokens")
        if number is None:
            raise Skipped("the server counts no prompt tokens: its answers have no usage.prompt_tokens")
        return number

    def counter(self) -> Counter:
        """Return what counts by `mistral-common`. Raises `Skipped` where that is not installed."""
        if self._memory.counter is None:
            self._memory.counter = counter(self.setup.tokenizer)
        return self._memory.counter

    def toolbox(self) -> Toolbox:
        """Return the card's tools."""
        if self._memory.toolbox is None:
            self._memory.toolbox = Toolbox(self.setup.executor() if self.setup.executor else None)
        return self._memory.toolbox

    def plain(self) -> Exchange:
        """Ask the shortest question."""
        return self.whole([{"role": "user", "content": "a"}], max_tokens=1)

    def needs_answers(self) -> None:
        """Raise `Skipped` or `Failed` where the server answers nothing: what refuses everything refuses what is wrong by chance."""
        plain = self.plain()
        if plain.status != 200:
            raise Skipped(f"the server answers no question at all: {plain.status} {quote(plain.text, 80)}")
        answer(plain)

    def rendered(self, messages: Messages, offered: list[dict[str, Any]]) -> str | None:
        """Return the prompt's text where the server shows it, as llama-server does at /apply-template; None elsewhere."""
        known, request = self._memory.known, {"messages": messages, "tools": offered}
        words = f"/apply-template {json.dumps(request)}"
        if words not in known:
            known[words] = self._wire.post_beside("/apply-template", request)
        exchange = known[words]
        try:
            prompt = exchange.json()["prompt"] if exchange.status == 200 and not exchange.broken else None
        except (ValueError, KeyError, TypeError):
            return None
        if not isinstance(prompt, str):
            return None
        self._keep(exchange)
        return prompt

    def leave(self, messages: Messages, **fields: Any) -> Exchange:
        """Ask for a stream and hang up after its first bytes."""
        request = {**self._request(messages, fields), "stream": True}
        return self._keep(self._patiently(lambda: self._wire.post(CHAT, request, enough=1)))

    def raw(self, body: bytes) -> Exchange:
        """Send bytes where a chat request is expected."""
        return self._keep(self._patiently(lambda: self._wire.post(CHAT, None, raw=body)))

    def request(self, body: dict[str, Any]) -> Exchange:
        """Send exactly this chat request."""
        return self._keep(self._patiently(lambda: self._wire.post(CHAT, body)))

    def at_once(self, messages: Messages, number: int, **fields: Any) -> list[Exchange]:
        """Ask the same so many times side by side."""
        exchanges = self._wire.post_at_once(CHAT, [self._request(messages, fields)] * number)
        return [self._keep(exchange) for exchange in exchanges]

    def follows(self) -> bool:
        """Whether the model repeats a sentence when it is asked to. One that does not has random weights, or next to none."""
        if self._memory.follows is None:
            # True until it is known: this question is asked by the same way.
            self._memory.follows = True
            try:
                self._memory.follows = SENTENCE in (self.repeated() or "")
            except Failed:
                pass
        return self._memory.follows

    def repeated(self) -> str | None:
        """Return what the model says when it is asked to repeat `SENTENCE`."""
        return answer(self.whole(repeat(SENTENCE), max_tokens=60)).content

    def look(self) -> Exchange:
        """Ask what the server says it has."""
        known = self._memory.known
        exchange = known["models"] = self._keep(known.get("models") or self._wire.get("/models"))
        return exchange

    def models(self) -> list[dict[str, Any]]:
        """Return what the server says it has. Raises `Skipped` where it says nothing of use."""
        exchange = self.look()
        try:
            listed = exchange.json()["data"]
        except (ValueError, KeyError, TypeError):
            raise Skipped(f"/models answered {exchange.status}: {quote(exchange.text)}") from None
        return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []

    def _request(self, messages: Messages, fields: dict[str, Any]) -> dict[str, Any]:
        limit = fields.get("max_tokens") or (_MOST_TOKENS if self.follows() else _MOST_TOKENS_OF_NOISE)
        return {"model": self.model, "messages": messages, "temperature": 0, **fields, "max_tokens": limit}

    def _ask(self, request: dict[str, Any], *, fresh: bool) -> Exchange:
        words = json.dumps(request)
        known = self._memory.known
        if fresh or words not in known:
            known[words] = self._patiently(lambda: self._wire.post(CHAT, request))
        return self._keep(known[words])

    def _patiently(self, send: Callable[[], Exchange]) -> Exchange:
        """Send, and again where the server has too many requests and says so: a limit of its owner's is no fault."""
        exchange = self._sent(send)
        wait = 1.0
        while exchange.status == 429 and self._memory.patience_seconds > 0:
            pause = min(seconds if (seconds := retry_after(exchange)) is not None else wait, _ONE_WAIT_SECONDS)
            pause = max(pause, 0.1)
            self._memory.patience_seconds -= pause
            time.sleep(pause)
            wait *= 2
            exchange = self._sent(send)
        return exchange

    def _sent(self, send: Callable[[], Exchange]) -> Exchange:
        try:
            return send()
        except ModelUnreachable:
            self.met_silence = True
            raise

    def _keep(self, exchange: Exchange) -> Exchange:
        self.met_silence = self.met_silence or exchange.late
        # What was known already is told once.
        if not any(exchange is each for each in self.exchanges):
            self.exchanges.append(exchange)
        return exchange


def retry_after(exchange: Exchange) -> float | None:
    """Return the seconds that the header Retry-After names (RFC 9110, 10.2.3: a number, or a date); None where it is neither."""
    text = exchange.headers.get("retry-after", "")
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
