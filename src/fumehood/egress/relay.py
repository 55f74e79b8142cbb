"""Carries the bytes of a tunnel, both ways, without looking into them.

It works on sockets and the loop's own callbacks: a stream and a task in between take longer than the rest together. Promised: no
more is held than one piece a direction; what the reader does not take is not read from the writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 1 << 18
# One for all: a callback fills it and empties it before the next begins.
_buffer = memoryview(bytearray(_PIECE))


async def relay(
    client: socket.socket, server: socket.socket, *, sent: Callable[[int], None], received: Callable[[int], None]
) -> None:
    """Return when both sides have said all. `sent` and `received` count, and may raise to end it. Raises OSError."""
    loop = asyncio.get_running_loop()
    halves = (_Half(loop, client, server, sent), _Half(loop, server, client, received))
    try:
        await asyncio.gather(*(half.done for half in halves))
    finally:
        for half in halves:
            half.stop()


class _Half:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: socket.socket,
        target: socket.socket,
        count: Callable[[int], None],
    ) -> None:
        self._loop, self._source, self._target, self._count = loop, source, target, count
        self._rest = b""
        self.done: asyncio.Future[None] = loop.create_future()
        loop.add_reader(source, self._read)

    def stop(self) -> None:
        """Leave the sockets alone."""
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._target)
        if not self.done.done():
            self.done.cancel()
        elif not self.done.cancelled():
            self.done.exception()

    def _read(self) -> None:
        try:
            taken = self._source.recv_into(_buffer)
            if not taken:
                self._end()
                return
            self._count(taken)
            try:
                given = self._target.send(_buffer[:taken])
            except BlockingIOError:
                given = 0
        except BlockingIOError:
            return
        except Exception as error:  # noqa: BLE001 - whoever waits hears of it
            self._fail(error)
            return
        if given < taken:
            self._rest = bytes(_buffer[given:taken])
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._target, self._write)

    def _write(self) -> None:
        try:
            self._rest = self._rest[self._target.send(self._rest) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if not self._rest:
            self._loop.remove_writer(self._target)
            self._loop.add_reader(self._source, self._read)

    def _end(self) -> None:
        self._loop.remove_reader(self._source)
        with contextlib.suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)
        if not self.done.done():
            self.done.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._target)
        if not self.done.done():
            self.done.set_exception(error)
