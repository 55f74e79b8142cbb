"""Reads the name that a TLS client asks for, from the first bytes it sends (RFC 8446, 4.1.2; RFC 6066, 3).

Promised: whatever the bytes are, the answer is a name, that more bytes are needed, or `BadHello`. Not promised: that the name is
one that a host could have; `protocol.hosts` says that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: As many bytes are looked at. With keys against quantum computers and an encrypted name a first message has some 3,000.
MOST_BYTES = 1 << 14
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0


class BadHello(Exception):
    """The client's fault: these are not the first bytes of TLS. The text says what is wrong."""


def server_name(data: bytes) -> str | None:
    """Return the name, "" where none is asked for; None where more bytes are needed."""
    message = _message(data)
    if message is None:
        return None
    try:
        return _name(_Reader(message))
    except IndexError:
        raise BadHello("a length in it leads beyond its end") from None


def _message(data: bytes) -> bytes | None:
    """Return the body of the client's first message, which may come in several records."""
    message, at = bytearray(), 0
    while at + 5 <= len(data):
        if data[at] != _HANDSHAKE or data[at + 1] != 3:
            raise BadHello("its first bytes are no TLS handshake")
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 0 < length <= 1 << 14:
            raise BadHello("a record of it has an impossible length")
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
        if message and message[0] != _CLIENT_HELLO:
            raise BadHello("its first message is not a client's")
        if len(message) >= 4 and len(message) >= (end := 4 + int.from_bytes(message[1:4], "big")):
            return bytes(message[4:end])
    if len(data) >= MOST_BYTES:
        raise BadHello(f"its first message is longer than {MOST_BYTES} bytes")
    return None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise IndexError
        self._at += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> _Reader:
        """Take what stands behind a length of `size` bytes."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)


def _name(hello: _Reader) -> str:
    hello.take(2 + 32)  # version, random
    hello.block(1)  # session
    hello.block(2)  # ciphers
    hello.block(1)  # compressions
    if not hello:
        return ""  # without extensions, as before TLS 1.2
    names = [body for kind, body in _extensions(hello.block(2)) if kind == _SERVER_NAME]
    if hello:
        raise BadHello("something follows its extensions")
    if len(names) > 1:
        raise BadHello("it asks for several names")
    return _only_name(_Reader(names[0])) if names else ""


def _extensions(block: _Reader) -> Iterator[tuple[int, bytes]]:
    while block:
        yield block.number(2), block.block(2).rest()


def _only_name(body: _Reader) -> str:
    names = body.block(2)
    if body:
        raise BadHello("something follows its names")
    kind, name = names.number(1), names.block(2).rest()
    if kind != _HOST_NAME or names:
        raise BadHello("it asks for several names, or for one that is no host's")
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise BadHello("the name that it asks for is not ASCII") from None
