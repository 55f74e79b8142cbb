"""The body of a server's answer, bounded in time and size: for `wire`, which reads it.

Promised: the connection ends where nothing new has come for too long, whatever keeps it busy: bytes of a head that has no
end, comments, blanks, empty pieces. No piece and no sum of pieces is bigger than its bound, compressed or not.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any, Self

from .reading import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

#: A model's longest answers are a few MiB.
_ANSWER_BYTES = 64 << 20
_PIECE_BYTES = 64 << 10
#: How often is looked again while nobody reads.
_GRAIN_SECONDS = 0.05
# zlib's word for "gzip or zlib, whichever it is".
_EITHER_HEADER = 32 + zlib.MAX_WBITS


class Watch:
    """Ends the connection of one question, from its `with` on, where nothing new comes.

    By a thread: the HTTP client's own timeout begins anew with each byte, in a head too, and each line of a chunk.
    """

    def __init__(self, seconds: float) -> None:
        #: Whether the watch has ended the connection, which then looks like a line that broke, or like a body's end.
        self.has_ended_it = False
        self._seconds = seconds
        self._since = time.monotonic()
        self._socket: socket.socket | None = None
        self._reading = True
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fumehood-watch", daemon=True)

    def __enter__(self) -> Self:
        self._since = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closed.set()
        self._thread.join()

    def trace(self, _event: str, told: dict[str, Any]) -> None:
        """Hear from the HTTP client which socket it has: its extension "trace"."""
        found = getattr(told.get("return_value"), "get_extra_info", lambda _name: None)("socket")
        if isinstance(found, socket.socket):
            self._socket = found

    def progress(self) -> None:
        """Hear that something new has come."""
        self._since = time.monotonic()

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """End nothing in the meantime: what takes time is our side."""
        self._reading = False
        try:
            yield
        finally:
            self._reading = True

    @property
    def is_over(self) -> bool:
        """Whether nothing new has come for too long."""
        return time.monotonic() - self._since > self._seconds

    def _run(self) -> None:
        while not self._closed.wait(max(self._since + self._seconds - time.monotonic(), _GRAIN_SECONDS)):
            if self._reading and self.is_over and self._socket is not None:
                self.has_ended_it = True
                with contextlib.suppress(OSError):
                    # Under TLS too the socket itself: its own method would speak to the other side first.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def pieces(response: httpx.Response, watch: Watch) -> Iterator[bytes]:
    """Yield the body's pieces, none of them empty. Raises the HTTP client's own error where nothing new comes."""
    import httpx  # noqa: PLC0415 - 60 ms to load

    size = 0
    for piece in _plain(response):
        if watch.is_over:
            raise httpx.ReadTimeout("nothing new")
        size += len(piece)
        if size > _ANSWER_BYTES:
            raise Malformed(f"more than {_ANSWER_BYTES >> 20} MiB")
        if piece:
            with watch.at_rest():
                yield piece
    if watch.has_ended_it:
        raise httpx.ReadTimeout("nothing new")


def _plain(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body as it was before it was compressed.

    Not by the HTTP client, which unpacks a piece as a whole, and as many layers as are named: 500 bytes become a gigabyte.
    """
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return response.iter_raw()
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Malformed(f"a body compressed by {coding[:80]!r}, though a plain one was asked for")
    return _unpacked(response.iter_raw())


def _unpacked(packed: Iterator[bytes]) -> Iterator[bytes]:
    import httpx  # noqa: PLC0415 - as above

    decoder = zlib.decompressobj(_EITHER_HEADER)
    for data in packed:
        full = True
        while full and not decoder.eof:
            try:
                piece = decoder.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise httpx.DecodingError(f"its compression is broken: {error}") from error
            data = decoder.unconsumed_tail  # noqa: PLW2901 - what is left of it
            full = len(piece) == _PIECE_BYTES
            yield piece
    if not decoder.eof:
        raise httpx.DecodingError("its compression has no end")
