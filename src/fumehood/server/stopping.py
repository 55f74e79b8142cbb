"""How the service ends: what runs is answered, nothing new is taken, and nothing is left behind.

Promised: after SIGTERM or SIGINT no connection is taken; what runs has `grace_seconds` to end by itself, and is killed and
answered with a 503 afterwards; then sessions, builds and the application end. A second signal ends all at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from starlette.types import ASGIApp

    from .service import Service

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# For those whose programs were killed to be answered.
_LAST_WORDS_SECONDS = 5
_AGAIN_SECONDS = 1.0


def serve(app: ASGIApp, service: Service, listener: socket.socket, grace_seconds: float) -> None:
    """Serve until a signal comes, and return once all has ended."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=int(grace_seconds) + _LAST_WORDS_SECONDS
    )  # fmt: skip
    server = _Server(config)
    with _Guard(service, server, grace_seconds):
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.signals = os.eventfd(0, os.EFD_CLOEXEC)
        self.number = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's own
        # No thread may be started, and no lock taken, in a signal's handler. Uvicorn's own would end this process by the signal.
        self.should_exit, self.number = True, sig
        os.eventfd_write(self.signals, 1)


class _Guard:
    """The thread that knows what to do when a signal has come."""

    def __init__(self, service: Service, server: _Server, grace_seconds: float) -> None:
        self._service, self._server, self._grace_seconds = service, server, grace_seconds
        self._over = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._work, name="fumehood-guard", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_error: object) -> None:
        os.eventfd_write(self._over, 1)
        self._thread.join()
        os.close(self._over)
        os.close(self._server.signals)

    def _work(self) -> None:
        if self._wait(None) == "over":
            return
        happened = self._wait(self._grace_seconds)
        while happened != "over":
            if happened == "signal":
                self._end_at_once()
            # Again, too: what was on its way to begin may have begun after all.
            self._service.abort()
            happened = self._wait(_AGAIN_SECONDS)

    def _wait(self, seconds: float | None) -> str:
        """Return "signal" or "over", or "" where neither came in time."""
        poll = select.poll()
        for descriptor in (self._over, self._server.signals):
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _event in poll.poll(None if seconds is None else seconds * 1000)]
        if self._over in ready:
            return "over"
        if ready:
            os.eventfd_read(self._server.signals)
            return "signal"
        return ""

    def _end_at_once(self) -> None:
        # Sandboxes die with the process that forks them, which dies with us; this takes their folders and groups away as well.
        with contextlib.suppress(Exception):
            self._service.abort()
        os._exit(128 + self._server.number)
