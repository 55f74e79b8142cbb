"""Puts tool calls together, whole or in pieces as streams bring them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ..models.answering import new_call_id
from .port import CALL_ID, ToolCall, well_formed

if TYPE_CHECKING:
    from collections.abc import Collection

# A name behind which parsers of other versions leave Mistral's notation of what follows it.
_NAME_AND_MARKS = re.compile(r"\s*(?P<name>[a-zA-Z0-9_-]{1,64})\s*(?:\[CALL_ID\][a-zA-Z0-9]*)?\s*(?:\[ARGS\])?\s*")


class CallParts:
    """The calls of one answer, on their way in."""

    def __init__(self) -> None:
        #: How many calls came again under their own id.
        self.repeated = 0
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, index: int | None, call_id: object, name: object, arguments: object) -> None:
        """Add a piece: text is appended, an object (as some servers send) is written as JSON.

        `index` is None where the server gives none: then a piece with a name begins a call, one without goes on with it.
        """
        known_id = call_id if isinstance(call_id, str) and call_id != "null" else ""
        known_name = name if isinstance(name, str) else ""
        call = self._begun(index, known_id, known_name)
        if call is None:
            call = _Call(index)
            self._calls.append(call)
        call.id = call.id or known_id
        # Some servers repeat the name in every piece, some send it once.
        call.name = call.name or known_name
        if arguments is None:
            return
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        # Some send the whole call again at its end; nothing can follow an object that is complete.
        if text and len(text) == call.characters and text == call.arguments and _is_object(text):
            self.repeated += 1
        else:
            call.pieces.append(text)
            call.characters += len(text)

    def _begun(self, index: int | None, call_id: str, name: str) -> _Call | None:
        """Return the call that a piece goes on with; None where it begins one."""
        for call in reversed(self._calls):
            if index is None:
                same = bool(call_id) and call_id == call.id
                return call if same or not name else None
            if call.index == index:
                # Some servers number every call 0: another name and another id are another call.
                return None if name and call_id and call.id and call_id != call.id else call
        return None

    def calls(self, offered: Collection[str]) -> tuple[ToolCall, ...]:
        """Return the calls in order, each with a usable id. One that came twice, its id too, is one.

        Marks behind the name of a tool that was offered are taken off.
        """
        taken: set[str] = set()
        came: set[tuple[str, str, str]] = set()
        calls: list[ToolCall] = []
        for call in sorted(self._calls, key=lambda call: call.index or 0):
            whole = (call.id, call.name, call.arguments)
            if call.id and whole in came:
                self.repeated += 1
                continue
            came.add(whole)
            call_id = call.id if CALL_ID.fullmatch(call.id) and call.id not in taken else new_call_id()
            taken.add(call_id)
            name = _plain_name(call.name, offered)
            calls.append(ToolCall(id=call_id, name=well_formed(name), arguments=well_formed(call.arguments)))
        return tuple(calls)


class _Call:
    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []
        self.characters = 0

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


def _plain_name(name: str, offered: Collection[str]) -> str:
    found = _NAME_AND_MARKS.fullmatch(name)
    return found["name"] if found and found["name"] in offered else name


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
