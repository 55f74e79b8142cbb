"""The host's end of a session's channel: messages to and from the program inside, whose every byte is hostile.

Promised: a message that is too long, or not what was agreed on, is `BrokenProtocol`, never another error; nothing said here
decides anything but what a cell is reported to have shown.
"""

from __future__ import annotations

import json
import re
from collections import deque

from ..protocol.session import CellError, Cleared, Display, Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

    from ..protocol.session import Event

_PIECE = 60_000
_HEADER_BYTES = 32


class BrokenProtocol(Exception):
    """The program's fault, or its guest's: what it sent is no message."""


class Channel:
    """Sends and receives JSON objects in pieces, each behind `PID MORE `: a fork of the program may send too."""

    def __init__(self, sock: socket, most_bytes: int) -> None:
        self._socket, self._most_bytes = sock, most_bytes
        #: How long the latest message was.
        self.received_bytes = 0
        self._begun: dict[bytes, bytearray] = {}
        self._waiting: deque[bytes] = deque()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Send one message, or as much of it as there is room for; `flush` sends the rest."""
        pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)] or [b""]
        self._waiting += [b"0 %d " % (number < len(pieces) - 1) + piece for number, piece in enumerate(pieces)]
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting:
            try:
                self._socket.send(self._waiting[0])
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._waiting.clear()  # nobody is there to read it, as the next `receive` tells
                return
            self._waiting.popleft()

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for room."""
        return bool(self._waiting)

    def receive(self) -> dict[str, Any] | None:
        """Return the next whole message, an empty one at the end; None where there is none yet."""
        while True:
            try:
                piece = self._socket.recv(_PIECE + _HEADER_BYTES)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                return {}
            if not piece:
                return {}
            sender, more, data = _taken_apart(piece)
            begun = self._begun.setdefault(sender, bytearray())
            begun += data
            if sum(map(len, self._begun.values())) > self._most_bytes or len(self._begun) > 64:
                raise BrokenProtocol(f"a message is longer than {self._most_bytes} bytes")
            if not more:
                whole = self._begun.pop(sender)
                self.received_bytes = len(whole)
                return _message(whole)


def _taken_apart(piece: bytes) -> tuple[bytes, bool, bytes]:
    sender, _space, rest = piece.partition(b" ")
    more, space, data = rest.partition(b" ")
    if not space or not sender.isdigit() or len(sender) > 10 or more not in (b"0", b"1"):
        raise BrokenProtocol("a message has no header")
    return sender, more == b"1", data


def _message(data: bytearray) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenProtocol("a message is not JSON") from error
    if not isinstance(message, dict) or not message:
        raise BrokenProtocol("a message is not an object")
    # JSON may spell halves of characters, which no encoder takes: none may reach a caller.
    return _whole(message) if _HALF_A_CHARACTER.search(data) else message


_HALF_A_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


def _whole(value: Any) -> Any:
    """Return the value with a question mark for each half of a character in it."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(each) for key, each in value.items()}
    return value


def event_of(message: dict[str, Any]) -> Event | None:
    """Return what a message shows; None where it is none that was agreed on. Every value in it is the guest's."""
    kind = message.get("type")
    if kind == "stream" and message.get("name") in ("stdout", "stderr"):
        return Output(stream=message["name"], text=str(message.get("text")))
    if kind in ("display", "result"):
        data, metadata = message.get("data"), message.get("metadata")
        if isinstance(data, dict) and isinstance(metadata, dict):
            return Display(data=data, metadata=metadata, is_result=kind == "result")
    if kind == "error":
        return CellError(**{name: str(message.get(name)) for name in ("name", "value", "traceback")})
    return Cleared() if kind == "clear" else None
