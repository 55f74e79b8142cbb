"""What is noted of one connection while it lasts, and of all of a sandbox's: the audit. Never bodies, never credentials."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..protocol.network import Connection, Refusal, Traffic

if TYPE_CHECKING:
    from ..protocol.network import Allow, Network, Verdict
    from .policy import Denied

# Programs choose what is quoted, and there may be a thousand of it.
_TEXT_CHARACTERS = 400
_MOST_CONNECTIONS, _MOST_REFUSALS, _MOST_METHODS = 1000, 100, 16


class LimitReached(Exception):
    """The program's doing: it used up what its policy lets all of its connections carry."""


class Book:
    """All that is noted of one sandbox since it was last asked for."""

    def __init__(self) -> None:
        self._connections: list[Connection] = []
        self._refusals: dict[tuple[str, int, str], tuple[str, int]] = {}
        self._left_out = 0
        self.sent_bytes = self.received_bytes = 0

    def note(self, connection: Connection) -> None:
        """Note a connection that has ended."""
        if len(self._connections) < _MOST_CONNECTIONS:
            self._connections.append(connection)
        else:
            self._left_out += 1

    def refuse(self, host: str, port: int, why: str, rule: str) -> None:
        """Note a refusal."""
        key, rule = (host, port, why[:_TEXT_CHARACTERS]), rule[:_TEXT_CHARACTERS]
        if key not in self._refusals and len(self._refusals) >= _MOST_REFUSALS:
            key, rule = ("others", 0, "more was refused than is told apart"), ""
        _rule, count = self._refusals.get(key, (rule, 0))
        self._refusals[key] = (rule, count + 1)

    def take(self) -> Traffic:
        """Return what was noted, and begin anew."""
        refusals = tuple(
            Refusal(host=host, port=port, why=why, rule=rule, count=count)
            for (host, port, why), (rule, count) in self._refusals.items()
        )
        taken = Traffic(connections=tuple(self._connections), refusals=refusals, left_out=self._left_out)
        self._connections, self._refusals, self._left_out = [], {}, 0
        return taken


class Line:
    """One connection."""

    def __init__(self, book: Book, network: Network, port: int) -> None:
        self._book, self._network = book, network
        self.host, self.port = "", port
        self.verdict: Verdict = "failed"
        #: By which a request is under way.
        self.rule: Allow | None = None
        self._reason = ""
        self._methods: dict[str, None] = {}
        self._requests = self._sent_bytes = self._received_bytes = 0
        self._began, self._was_noted = time.monotonic(), False

    def asks(self, host: str, port: int, method: str) -> None:
        """Note a request."""
        self.host, self.port, self._requests = host, port, self._requests + 1
        if len(self._methods) < _MOST_METHODS:
            self._methods[method[:16]] = None

    def sent(self, count: int) -> None:
        """Note bytes that the program sent. Raises `LimitReached`."""
        self._sent_bytes += count
        self._book.sent_bytes += count
        if self._book.sent_bytes > self._network.sent_bytes:
            raise LimitReached(f"more than {self._network.sent_bytes} bytes were sent (sent_bytes)")

    def received(self, count: int) -> None:
        """Note bytes that came for it. Raises `LimitReached`."""
        self._received_bytes += count
        self._book.received_bytes += count
        if self._book.received_bytes > self._network.received_bytes:
            raise LimitReached(f"more than {self._network.received_bytes} bytes came (received_bytes)")

    def refuse(self, denied: Denied) -> None:
        """Note a refusal."""
        self.host, self.port = self.host or denied.host, self.port or denied.port
        self._reason = self._reason or denied.why[:_TEXT_CHARACTERS]
        self._book.refuse(denied.host, denied.port, denied.why, denied.rule)
        if not self._received_bytes:
            self.verdict = "refused"

    def fail(self, why: str) -> None:
        """Note what went wrong."""
        self._reason = self._reason or why[:_TEXT_CHARACTERS]
        if not self._received_bytes and self.verdict != "refused":
            self.verdict = "failed"

    def part(self) -> None:
        """Note what came so far, where something did: the end notes what comes after."""
        if self._requests or self._sent_bytes or self._received_bytes:
            self.end()
            self._was_noted, self._methods, self._reason = True, {}, ""
            self._requests = self._sent_bytes = self._received_bytes = 0

    def end(self) -> None:
        """Note that it is over."""
        if self._was_noted and not (self._requests or self._sent_bytes or self._received_bytes):
            return
        self._book.note(
            Connection(
                host=self.host, port=self.port, verdict=self.verdict, reason=self._reason, methods=tuple(self._methods),
                requests=self._requests, sent_bytes=self._sent_bytes, received_bytes=self._received_bytes,
                duration_seconds=round(time.monotonic() - self._began, 6),
            )
        )  # fmt: skip
