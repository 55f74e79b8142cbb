"""Server-sent events as bytes come in (WHATWG HTML, 9.2.6).

Lines end with a line feed, with or without a carriage return before it; a carriage return alone, which the standard allows too,
ends none: our server sends none. More than `most_bytes` in all are refused.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import ServerMisbehaved
from ..protocol.record import Record


class ServerEvent(Record):
    """One event: its name, its number, -1 where it has none, and its data as JSON."""

    name: str
    number: int
    data: Any


class Decoder:
    """Puts events together from pieces of any size."""

    def __init__(self, most_bytes: int) -> None:
        self._left, self._rest = most_bytes, bytearray()
        self._name, self._number, self._data = "", -1, bytearray()

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """Take a piece and return the events that it ends. Raises `ServerMisbehaved`."""
        self._left -= len(piece)
        if self._left < 0:
            raise ServerMisbehaved(
                "the server sent more than this program may print and leave: is this its own address?"
            )
        # Where no line ends, nothing is looked through a second time.
        if b"\n" not in piece:
            self._rest += piece
            return []
        self._rest += piece
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        ended = (self._take(line.removesuffix(b"\r")) for line in lines)
        return [event for event in ended if event is not None]

    def _take(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field == b"id" and value.isdigit() and len(value) < 19:
            self._number = int(value)
        elif field == b"data":
            self._data += value + b"\n"
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, number, data = self._name, self._number, bytes(self._data[:-1])
        self._name, self._number, self._data = "", -1, bytearray()
        if not data:
            return None
        return ServerEvent(name=name, number=number, data=as_json(data))


def as_json(data: bytes) -> Any:
    """Read JSON. Raises `ServerMisbehaved`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ServerMisbehaved(
            f"the server sent {data[:60]!r}, which is no JSON: is this the address of a `fumehood serve`?"
        ) from error
