"""A line to a server that can be cut: connections through it break in the middle of whatever they carry."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class CutLine:
    """Passes TCP connections on to a port of this machine while its `with` lasts."""

    def __init__(self, port: int) -> None:
        self._port, self._open = port, list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        #: How many connections were made.
        self.count = 0
        self._is_down = False
        self._threads = [threading.Thread(target=self._accept)]

    def cut(self, *, for_good: bool = False) -> None:
        """Break every connection; with `for_good` no new one leads anywhere."""
        self._is_down = self._is_down or for_good
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for each in self._threads[1:]:
            each.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _address = self._listener.accept()
            except OSError:
                return
            self.count += 1
            if self._is_down:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            self._open += [near, far]
            thread = threading.Thread(target=_both_ways, args=(near, far))
            self._threads.append(thread)
            thread.start()


def _both_ways(near: socket.socket, far: socket.socket) -> None:
    with near, far:
        back = threading.Thread(target=_pass_on, args=(far, near))
        back.start()
        _pass_on(near, far)
        back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
