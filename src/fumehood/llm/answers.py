"""Makes one answer of what a server sent, whole or in pieces, and judges it: the same for every client.

Tolerant where it is certain what was meant, and then a note says what was done. A call is handed on as one that may run
only where nothing speaks for its having been cut off: else the answer says "length", whatever the server called it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ..errors import ModelMisbehaved
from ..models.answering import new_call_id
from ..protocol.record import Record
from . import leaked
from .call_parts import CallParts
from .port import Completion, FinishReason, Note, Quirk, TextListener, ToolCall, Usage, well_formed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .port import Message, ToolSchema

# What JSON's reader has left where the text ends in the middle of a name, a number, or an escape.
_UNFINISHED = re.compile(r"[\\\w.+-]*")
_LENIENT = json.JSONDecoder(strict=False)
_NOTED_CHARACTERS = 200


class Asked(Record):
    """What was asked of which model, as far as its answer is judged by it."""

    model: str
    tool_choice: str = "auto"
    #: Names of the tools that were offered.
    offered: frozenset[str] = frozenset()
    #: Whether the model was shown Mistral's notation of calls, so that it may only repeat it.
    notation_quoted: bool = False
    #: What was mended on the way to the server.
    notes: tuple[Note, ...] = ()

    @classmethod
    def of(
        cls, model: str, messages: Sequence[Message], tools: Sequence[ToolSchema], choice: str, notes: tuple[Note, ...]
    ) -> Asked:
        """Return what matters of a request."""
        return cls(
            model=model,
            tool_choice=choice,
            offered=frozenset(tool.name for tool in tools),
            notation_quoted=leaked.is_quoted(messages, tools),
            notes=notes,
        )

    @property
    def may_recover(self) -> bool:
        """Whether calls may be looked for in the text."""
        return bool(self.offered) and self.tool_choice != "none" and not self.notation_quoted


class Answer:
    """An answer on its way in. A client fills it; `completion` judges it."""

    def __init__(self, asked: Asked, on_text: TextListener | None = None) -> None:
        self.parts = CallParts()
        self.reason = ""
        self.usage = Usage()
        #: Whether the server showed by other means than a finish reason that nothing more is to come.
        self.ended = False
        self._notes = list(asked.notes)
        self._asked = asked
        self._on_text = on_text
        self._pieces: list[str] = []
        # What may turn out to be a call is not shown as text before the end: from a mark on, or what may become one.
        self._watching = asked.may_recover and on_text is not None
        self._marked = False
        self._held: list[str] = []

    @property
    def begun(self) -> bool:
        """Whether anything of it has come."""
        return bool(self._pieces or self.parts or self.reason)

    def note(self, quirk: Quirk, words: str) -> None:
        """Note what was out of order."""
        self._notes.append(Note(quirk=quirk, words=words))

    def text(self, piece: str) -> None:
        """Add a piece of text."""
        if not piece:
            return
        self._pieces.append(piece)
        if self._marked:
            self._held.append(piece)
        elif self._watching:
            self._show_to_mark("".join((*self._held, piece)))
        else:
            self._show(piece)

    def _show(self, piece: str) -> None:
        if piece and self._on_text is not None:
            self._on_text(piece if piece.isascii() else well_formed(piece))

    def _show_to_mark(self, text: str) -> None:
        place = text.find(leaked.MARK)
        if place < 0:
            begun = text.rfind("[")
            place = begun if begun >= 0 and leaked.MARK.startswith(text[begun:]) else len(text)
        else:
            # The first one decides: one in the middle of words is no call, and none after it is.
            self._marked = leaked.begins_call("".join(self._pieces))
            self._watching = False
            place = place if self._marked else len(text)
        self._show(text[:place])
        self._held = [text[place:]]

    def _release(self) -> None:
        """Show what was held."""
        held, self._held = "".join(self._held), []
        self._show(held)

    def completion(self) -> Completion:
        """Judge it. Raises `ModelMisbehaved` for what is no answer."""
        text, calls = "".join(self._pieces), self.parts.calls(self._asked.offered)
        if self.parts.repeated:
            self.note(
                Quirk.CALL_REPEATED, f"{self.parts.repeated} repetitions of a call under its own id were left out"
            )
        finish = self._finish(calls)
        if calls and self._asked.tool_choice == "none":
            self.note(Quirk.CALL_NOT_ALLOWED, "calls were left out, since none was allowed")
            calls, finish = (), "length" if finish == "length" else "stop"
        found = self._recovered(text, calls, finish) if leaked.MARK in text and self._asked.offered else None
        if found is None:
            self._release()
        else:
            text, calls, finish = found.text, _as_calls(found), "tool_calls"
        if self._asked.tool_choice == "required" and not calls and finish != "length":
            raise ModelMisbehaved(f"{self._asked.model} was made to call a tool and answered with text: {text[:200]!r}")
        return Completion(
            text=well_formed(text), tool_calls=calls, finish_reason=finish, usage=self.usage, notes=tuple(self._notes)
        )

    def _finish(self, calls: tuple[ToolCall, ...]) -> FinishReason:
        model, reason = self._asked.model, self.reason
        if not reason and not self.ended:
            raise ModelMisbehaved(f"{model} stopped in the middle of its answer: no finish reason came")
        if reason in ("error", "content_filter", "abort"):
            raise ModelMisbehaved(f"{model} gave its answer up with the finish reason {reason!r}")
        cut = [ends_early(call.arguments) for call in calls]
        if any(cut[:-1]):
            # A length limit cuts the last call alone. What follows is no call of the model's.
            words = "arguments end in the middle and calls follow: the server split one at a mark inside its arguments"
            self.note(Quirk.CALL_SPLIT, words)
            return "length"
        if reason in ("length", "model_length", "max_tokens"):
            return "length"
        if any(cut):
            self.note(Quirk.CALL_CUT_OFF, f"arguments end in the middle, although the finish reason is {reason!r}")
            return "length"
        if not reason:
            return self._finish_of_none(calls)
        return "tool_calls" if calls else "stop"

    def _finish_of_none(self, calls: tuple[ToolCall, ...]) -> FinishReason:
        words = "no finish reason came, although the answer ended: it may be cut off"
        self.note(Quirk.NO_FINISH_REASON, words)
        if not calls:
            return "stop"
        # A whole object cannot be the beginning of a longer one; an empty one may be made up by the server.
        return "tool_calls" if all(_is_filled(call.arguments) for call in calls) else "length"

    def _recovered(self, text: str, calls: tuple[ToolCall, ...], finish: FinishReason) -> leaked.Recovered | None:
        found = None
        if self._asked.may_recover and self.reason and not calls and finish != "length":
            found = leaked.recovered(text, self._asked.offered)
        short = repr(text[:_NOTED_CHARACTERS])
        if found is None:
            self.note(Quirk.MARK_IN_TEXT, f"the text holds {leaked.MARK}, which was not taken for a call: {short}")
        else:
            self.note(Quirk.CALL_IN_TEXT, f"calls were taken from the text, where the server had left them: {short}")
        return found


def _as_calls(found: leaked.Recovered) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(id=new_call_id(), name=name, arguments=well_formed(json.dumps(arguments)))
        for name, arguments in found.calls
    )


def ends_early(arguments: str) -> bool:
    """Whether arguments are the beginning of a JSON object, and not the whole of one."""
    text = arguments.strip()
    if not text.startswith("{"):
        return False
    try:
        # Raw line ends in strings are a fault of another kind.
        _LENIENT.decode(text)
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string") or bool(_UNFINISHED.fullmatch(text, error.pos))
    except (ValueError, RecursionError):
        return False
    return False


def _is_filled(arguments: str) -> bool:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value)
