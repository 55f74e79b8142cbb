"""One end of an HTTP/1.1 connection over asyncio's streams, with h11's strict grammar."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable
    from typing import Self

_PIECE, _HEAD_BYTES = 1 << 17, 1 << 16
_HANDSHAKE_SECONDS, _IDLE_SECONDS = 20.0, 300.0
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 1 << 22


class Speaker:
    """Reads and writes events of h11; `count` hears how many bytes were read."""

    def __init__(
        self, role: type[h11.CLIENT | h11.SERVER], reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
        count: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.state = h11.Connection(role, max_incomplete_event_size=_HEAD_BYTES)
        self.reader, self.writer, self._count = reader, writer, count
        self._pending: list[bytes] = []

    @classmethod
    async def accepted(cls, sock: socket.socket, context: ssl.SSLContext | None, count: Callable[[int], None]) -> Self:
        """Take a client's connection, as a TLS server where there is a context. It owns the socket. Raises OSError."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_PIECE)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _protocol = await loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=context, ssl_handshake_timeout=None if context is None else _HANDSHAKE_SECONDS
        )
        return cls(h11.SERVER, reader, asyncio.StreamWriter(transport, protocol, reader, loop), count)

    @classmethod
    async def connected(
        cls, sock: socket.socket, context: ssl.SSLContext | None, host: str, count: Callable[[int], None]
    ) -> Self:
        """Speak to a server over a connected socket, as a TLS client where there is a context. It owns that. Raises OSError."""
        if context is None:
            reader, writer = await asyncio.open_connection(sock=sock, limit=_PIECE)
        else:
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname=host, limit=_PIECE, ssl_handshake_timeout=_HANDSHAKE_SECONDS
            )
        return cls(h11.CLIENT, reader, writer, count)

    def poll(self) -> Any:
        """Return the next event that is there, else `h11.NEED_DATA` or `h11.PAUSED`. Raises `h11.RemoteProtocolError`."""
        return self.state.next_event()

    async def next(self) -> Any:
        """Return the next event. Raises `h11.RemoteProtocolError`, OSError, `TimeoutError`."""
        while (event := self.state.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(_IDLE_SECONDS):
                data = await self.reader.read(_PIECE)
            self._count(len(data))
            self.state.receive_data(data)
        return event

    def say(self, event: Any) -> None:
        """Have an event sent by the next `flush`."""
        data = self.state.send(event)
        if data:
            self._pending.append(data)

    async def flush(self) -> None:
        """Send what was said; wait while the other end takes nothing."""
        if self._pending:
            self.writer.write(b"".join(self._pending))
            self._pending.clear()
            await self.writer.drain()

    @property
    def is_fresh(self) -> bool:
        """Whether a server that was spoken to can be asked once more."""
        return (
            self.state.our_state is h11.IDLE
            and self.state.their_state is h11.IDLE
            and not self.reader.at_eof()
            and not self.writer.is_closing()
        )

    def begin_next(self) -> bool:
        """Get ready for another request; return False where the connection is used up."""
        if self.state.our_state is not h11.DONE or self.state.their_state is not h11.DONE:
            return False
        self.state.start_next_cycle()
        return True

    async def close(self, *, reads_on: bool = False) -> None:
        """Close the connection, politely where the other end still listens.

        `reads_on`: it is in the middle of what it says, and would not hear an answer where nobody took that any more.
        """
        if reads_on and not self.writer.is_closing():
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    left = _LINGER_BYTES
                    while left > 0 and (data := await self.reader.read(_PIECE)):
                        left -= len(data)
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self.writer.wait_closed()

    def abort(self) -> None:
        """Break the connection off: the other end must not take what it has for all."""
        self.writer.transport.abort()
