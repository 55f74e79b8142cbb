"""Tokens of an answer into its text and calls. A call begins with a control token, which no text can spell.

So a call that is quoted in an argument or in prose stays what it is, and a bracket is a bracket. Text comes as soon as its
characters are whole; what might be the beginning of a stop is held back until it is known not to be.
"""

from __future__ import annotations

import codecs
import secrets
import string
from typing import TYPE_CHECKING, Literal

from ..protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

_LETTERS = string.ascii_letters + string.digits


class Text(Record):
    """A piece of the answer's text."""

    text: str


class CallBegun(Record):
    """A call, whose name is known; its arguments follow."""

    index: int
    id: str
    name: str


class Arguments(Record):
    """A piece of a call's arguments, as text."""

    index: int
    text: str


class Ended(Record):
    """The answer's end. `length`: cut off, and a call in it may not be whole."""

    reason: Literal["stop", "length", "tool_calls"]
    prompt_tokens: int
    completion_tokens: int


Event = Text | CallBegun | Arguments | Ended


class Tokens:
    """What the answers of one tokenizer are made of."""

    def __init__(self, tokenizer: MistralTokenizer) -> None:
        self._inner = tokenizer.instruct_tokenizer.tokenizer
        self.end: int = self._inner.eos_id
        self.call: int = self._inner.get_special_token("[TOOL_CALLS]")
        self.arguments: int = self._inner.get_special_token("[ARGS]")
        #: Tokens below this one are control tokens.
        self.special: int = self._inner.num_special_tokens
        #: How many there are in all.
        self.count: int = self._inner.n_words
        #: The most bytes that one spells.
        self.longest: int = max(len(self.spelled(token)) for token in range(self.special, self.count))

    def spelled(self, token: int) -> bytes:
        """Return the bytes of a token that is no control token."""
        return bytes(self._inner.id_to_byte_piece(token))


class Reader:
    """Reads one answer, token by token."""

    def __init__(self, tokens: Tokens, stop: Sequence[str] = ()) -> None:
        self._tokens, self._stop = tokens, stop
        self._place: Literal["text", "name", "arguments"] = "text"
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._calls = 0
        #: Whether the answer has come to its own end, by the end's token or a stop.
        self.ended = False

    def take(self, token: int) -> Iterator[Text | CallBegun | Arguments]:
        """Read one more token."""
        if token == self._tokens.end:
            self.ended = True
            yield from self._rest()
        elif token == self._tokens.call:
            yield from self._rest()
            self._begin("name")
        elif token == self._tokens.arguments and self._place == "name":
            name = (self._held + self._decoder.decode(b"", final=True)).strip()
            self._begin("arguments")
            self._calls += 1
            yield CallBegun(index=self._calls - 1, id=new_call_id(), name=name)
        elif token >= self._tokens.special:
            yield from self._more(self._decoder.decode(self._tokens.spelled(token)))

    def rest(self) -> Iterator[Text]:
        """Give out what was held back, where the answer is cut off. Half a character is left out."""
        yield from self._rest()

    def end(self, *, prompt_tokens: int, completion_tokens: int) -> Ended:
        """Return the last event."""
        reason: Literal["stop", "length", "tool_calls"] = "tool_calls" if self._calls else "stop"
        return Ended(
            reason=reason if self.ended else "length", prompt_tokens=prompt_tokens, completion_tokens=completion_tokens
        )

    def _begin(self, place: Literal["name", "arguments"]) -> None:
        self._place, self._held = place, ""
        self._decoder.reset()

    def _more(self, text: str) -> Iterator[Text | Arguments]:
        if self._place == "name":
            self._held += text
        elif self._place == "arguments":
            if text:
                yield Arguments(index=self._calls - 1, text=text)
        else:
            self._held += text
            yield from self._stopped()

    def _stopped(self) -> Iterator[Text]:
        """Give out the text that no stop can reach any more; end where one is whole."""
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.ended, self._held = True, self._held[: min(places)]
            yield from self._rest()
            return
        kept = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        out, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        if out:
            yield Text(text=out)

    def _rest(self) -> Iterator[Text]:
        if self._place == "text" and self._held:
            yield Text(text=self._held)
        self._held = ""


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of the text begin the stop."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def new_call_id() -> str:
    """Return nine random letters and digits."""
    # Nine letters and digits: older tokenizers take nothing else, and conversations move from server to server.
    return "".join(secrets.choice(_LETTERS) for _ in range(9))
