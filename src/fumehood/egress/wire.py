"""A connected socket, with or without TLS, as an asyncio task reads and writes it.

OpenSSL works on the socket itself. The loop's own TLS goes through memory, keeps half a mebibyte for each that is opened, and
carries half as much. Promised: no more is held than one piece; waiting is the loop's, with a time limit of its caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

#: With nothing to linger for, closing is a reset: the other end hears of it at once.
AT_ONCE = struct.pack("ii", 1, 0)
# What one read gives at most: more would fall out of the processor's cache while it is copied.
_PIECE, _LONG_PIECE = 1 << 16, 1 << 18
_HANDSHAKE_SECONDS = 20.0
# A plain socket says the same where it can neither be read nor written: whoever asked knows which.
_WANTS_READ, _WANTS_WRITE = (BlockingIOError, ssl.SSLWantReadError), (BlockingIOError, ssl.SSLWantWriteError)
_RETRY_SECONDS = 0.01
_READS_IN_A_ROW = 4
# One for all: a read fills and empties it before another begins.
_buffer = memoryview(bytearray(_LONG_PIECE))


class Wire:
    """Owns its socket. One task may read while another writes."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._reads = 0
        self._waits: set[asyncio.Future[None]] = set()

    @classmethod
    async def opened(cls, sock: socket.socket, context: ssl.SSLContext | None, host: str = "") -> Self:
        """Take a connected socket over; with a context as TLS, as a client where a host is named, else as a server.

        Raises OSError; the socket is closed then.
        """
        if context is None:
            return cls(sock)
        # It takes the descriptor away from `sock`.
        secure = context.wrap_socket(
            sock, server_side=not host, server_hostname=host or None, do_handshake_on_connect=False
        )
        wire = cls(secure)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await wire._until_done(secure.do_handshake)
        except BaseException:
            secure.close()
            raise
        return wire

    async def read(self) -> bytes:
        """Return what is there, b"" at the end; wait where there is nothing. Raises OSError."""
        return bytes(await self.borrow(_PIECE))

    async def borrow(self, most: int = _LONG_PIECE) -> memoryview:
        """Do the same without a copy: what is returned is good until something else is awaited."""
        self._reads += 1
        if self._reads % _READS_IN_A_ROW == 0:
            await asyncio.sleep(0)  # where there is always something, nobody else would have a turn
        while True:
            try:
                return _buffer[: self._take(most)]
            except _WANTS_READ:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except _WANTS_WRITE:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    def _take(self, most: int) -> int:
        """Fill the buffer with what is there; return how far. Raises what stands for waiting where nothing is."""
        filled = 0
        try:
            filled = self._socket.recv_into(_buffer[:most])
            # TLS gives one record at a time.
            while self._is_tls and 0 < filled < most and (more := self._socket.recv_into(_buffer[filled:most])):
                filled += more
        except ssl.SSLZeroReturnError:
            pass
        except OSError:
            # What came before there was nothing more, or it went wrong, is given first.
            if not filled:
                raise
        return filled

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it, also what was borrowed. Raises OSError."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except _WANTS_WRITE:
                if view.obj is _buffer.obj:
                    view = memoryview(bytes(view))
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except ssl.SSLWantReadError:
                if view.obj is _buffer.obj:
                    view = memoryview(bytes(view))
                # What comes is another task's to read, or nobody's: a moment later it may be.
                await asyncio.sleep(_RETRY_SECONDS)

    async def _until_done(self, step: Callable[[], None]) -> None:
        is_done = False
        while not is_done:
            try:
                step()
                is_done = True
            except _WANTS_READ:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except _WANTS_WRITE:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    async def _ready(self, add: Callable[..., None], remove: Callable[[socket.socket], object]) -> None:
        if self._socket.fileno() < 0:
            raise ConnectionAbortedError("it was closed here")
        waits = self._loop.create_future()
        add(self._socket, lambda: None if waits.done() else waits.set_result(None))
        self._waits.add(waits)
        try:
            await waits
        finally:
            self._waits.discard(waits)
            if self._socket.fileno() >= 0:
                remove(self._socket)

    def _let_go(self) -> None:
        """Have the loop forget the socket, whose number may be another's in a moment, and tell those who wait."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        for waits in self._waits:
            if not waits.done():
                waits.set_exception(ConnectionAbortedError("it was closed here"))

    @property
    def is_idle(self) -> bool:
        """Whether it is open and the other end says nothing."""
        try:
            self._socket.recv(1, 0 if self._is_tls else socket.MSG_PEEK)
        except _WANTS_READ:
            return True
        except (OSError, ValueError):
            return False
        return False  # it has ended, or something was said that nobody asked for

    def close(self) -> None:
        """Close it, and say so by TLS, where the other end has not gone."""
        if self._socket.fileno() < 0:
            return
        self._let_go()
        if isinstance(self._socket, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self._socket.unwrap()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def abort(self) -> None:
        """Break it off: the other end must not take what it has for all."""
        if self._socket.fileno() < 0:
            return
        self._let_go()
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        self._socket.close()
