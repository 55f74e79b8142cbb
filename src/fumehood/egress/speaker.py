"""One end of an HTTP/1.1 connection, with h11's strict grammar."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    from collections.abc import Callable

    from .wire import Wire

# A server's cookies may be long; a program's request is refused before it takes long to read.
_HEAD_BYTES = {h11.CLIENT: 1 << 16, h11.SERVER: 1 << 14}
_IDLE_SECONDS = 300.0
_LINGER_SECONDS, _LINGER_BYTES = 1.0, 1 << 22


class Speaker:
    """Reads and writes events of h11 over a wire, which is its own; `count` hears how many bytes were read."""

    def __init__(self, role: type[h11.CLIENT | h11.SERVER], wire: Wire, count: Callable[[int], None]) -> None:
        self._role = role
        self.state = h11.Connection(role, max_incomplete_event_size=_HEAD_BYTES[role])
        self.wire, self._count = wire, count
        self._pending: list[bytes] = []

    def poll(self) -> Any:
        """Return the next event that is there, else `h11.NEED_DATA` or `h11.PAUSED`. Raises `h11.RemoteProtocolError`."""
        return self.state.next_event()

    async def next(self) -> Any:
        """Return the next event. Raises `h11.RemoteProtocolError`, OSError, `TimeoutError`."""
        while (event := self.state.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(_IDLE_SECONDS):
                data = await self.wire.read()
            self._count(len(data))
            self.state.receive_data(data)
        return event

    async def borrow(self) -> memoryview:
        """Return bytes that h11 does not see, as `Wire.borrow` does. Raises OSError, `TimeoutError`."""
        async with asyncio.timeout(_IDLE_SECONDS):
            data = await self.wire.borrow()
        self._count(len(data))
        return data

    def say(self, event: Any) -> None:
        """Have an event sent by the next `flush`."""
        data = self.state.send(event)
        if data:
            self._pending.append(data)

    async def flush(self) -> None:
        """Send what was said; wait while the other end takes nothing. Raises OSError."""
        if self._pending:
            said = b"".join(self._pending)
            self._pending.clear()
            await self.wire.write(said)

    @property
    def is_fresh(self) -> bool:
        """Whether a server that was spoken to can be asked once more."""
        return self.state.our_state is h11.IDLE and self.state.their_state is h11.IDLE and self.wire.is_idle

    def begin_next(self) -> bool:
        """Get ready for another request; return False where the connection is used up."""
        if self.state.our_state is h11.IDLE and self.state.their_state is h11.IDLE:
            return True
        if self.state.our_state is not h11.DONE or self.state.their_state is not h11.DONE:
            return False
        self.state.start_next_cycle()
        return True

    def renew(self) -> None:
        """Get ready for another request although h11 did not see the end of this one."""
        early, _closed = self.state.trailing_data
        self.state = h11.Connection(self._role, max_incomplete_event_size=_HEAD_BYTES[self._role])
        if early:
            self.state.receive_data(early)  # a client may have asked for more already

    async def close(self, *, reads_on: bool = False) -> None:
        """Close the connection, politely where the other end still listens.

        `reads_on`: it is in the middle of what it says, and would not hear an answer where nobody took that any more.
        """
        if reads_on:
            with contextlib.suppress(OSError, ValueError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    left = _LINGER_BYTES
                    while left > 0 and (data := await self.wire.read()):
                        left -= len(data)
        self.wire.close()
