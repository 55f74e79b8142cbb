"""The host's handle on its egress proxy: starts it, and gives each sandbox that may reach hosts its way out there.

Promised: where the proxy is dead there is no way out, whoever used it hears `EgressFailed`, and the next sandbox gets another.
Any thread may call.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from ..errors import EgressFailed
from ..protocol.network import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..protocol.network import Network

# Of its maker's environment it gets what says whom to trust outside, as OpenSSL reads it.
_KEPT = ("SSL_CERT_FILE", "SSL_CERT_DIR", "LANG")
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from fumehood.egress.process import serve; serve({descriptor}, {nameserver!r})"
)
_START_SECONDS, _ANSWER_SECONDS = 30.0, 30.0
_CERTIFICATE_BYTES, _PIECE = 1 << 14, 1 << 16
_DIED = "the egress proxy was killed, and with it every way out: run it again"


class Outlet:
    """One proxy, made when it is first needed and anew when it is dead. `nameserver`: whom it asks for names, `ADDRESS[:PORT]`."""

    def __init__(self, nameserver: str = "") -> None:
        self._nameserver = nameserver
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._certificate = ""
        self._sandboxes = 0

    def begin(self) -> None:
        """Have it start, where it does not run, and do not wait."""
        with self._lock:
            self._begin()

    def certificate(self) -> str:
        """Return what its sandboxes have to trust, as PEM, once it runs. Raises `EgressFailed`."""
        with self._lock:
            near = self._begin()
            if not self._certificate:
                poll = select.poll()
                poll.register(near, select.POLLIN)
                said = near.recv(_CERTIFICATE_BYTES) if poll.poll(_START_SECONDS * 1000) else b""
                if not said:
                    self._stop()
                    raise EgressFailed("the egress proxy did not start: `fumehood doctor` tells what this host has")
                self._certificate = said.decode("ascii")
            return self._certificate

    def open(self, listeners: list[int], network: Network, placeholders: Mapping[str, str]) -> Passage:
        """Give a sandbox its way out: `listeners` are what `open_listeners` makes for the network's ports; this owns them.

        Raises `EgressFailed`.
        """
        near, far = socket.socketpair()
        try:
            with self._lock, far:
                number = self._sandboxes = self._sandboxes + 1
                self._order(number, [far.fileno(), *listeners], (0, *network.ports), is_new=True)
            passage = Passage(self, near, number, network)
            passage.change(network, placeholders)
        except BaseException:
            near.close()
            raise
        finally:
            for each in listeners:
                os.close(each)
        return passage

    def add(self, number: int, listeners: list[int], ports: Sequence[int]) -> None:
        """Give a sandbox more listeners, which this owns. Raises `EgressFailed`."""
        try:
            with self._lock:
                self._order(number, listeners, ports, is_new=False)
        finally:
            for each in listeners:
                os.close(each)

    def _order(self, number: int, descriptors: list[int], ports: Sequence[int], *, is_new: bool) -> None:
        order = json.dumps({"sandbox": number, "ports": list(ports), "is_new": is_new}).encode()
        try:
            socket.send_fds(self._begin(), [order], descriptors)
        except OSError as error:
            raise EgressFailed(_DIED) from error

    def _begin(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._socket is None:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            path = [os.path.abspath(each) for each in sys.path if each]
            program = _PROGRAM.format(path=path, descriptor=far.fileno(), nameserver=self._nameserver)
            environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
            with far:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", program],
                    pass_fds=[far.fileno()], env=environment, cwd="/", stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            self._socket, self._certificate = near, ""
        return self._socket

    def kill(self) -> None:
        """End it because it does not answer: the next sandbox gets another."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End it, and every way out with it."""
        with self._lock:
            self._stop()

    def abandon(self) -> None:
        """Leave it to the process that this one was forked from."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self._process = None

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket = self._process = None


class Passage:
    """One sandbox's way out. Close it when the sandbox has ended, or lost its network."""

    def __init__(self, outlet: Outlet, channel: socket.socket, number: int, network: Network) -> None:
        self._outlet, self._channel, self._number = outlet, channel, number
        self._channel.settimeout(_ANSWER_SECONDS)
        self._lock = threading.Lock()
        #: The ports at which something listens.
        self.ports = frozenset(network.ports)
        self.network = network

    def change(self, network: Network, placeholders: Mapping[str, str]) -> None:
        """Have another policy from now on; connections that it does not allow end. Raises `EgressFailed`."""
        self._ask({"network": network.as_plain(), "placeholders": dict(placeholders)})
        self.network = network

    def add(self, listeners: list[int], ports: Sequence[int]) -> None:
        """Take listeners for ports that nothing listens at yet. Raises `EgressFailed`."""
        self._outlet.add(self._number, listeners, ports)
        self.ports |= set(ports)

    def report(self, *, is_last: bool = False) -> Traffic:
        """Return what was seen since the last time; after the last time every connection is closed. Raises `EgressFailed`."""
        return Traffic.from_json(self._ask({"is_last": is_last}))

    def close(self) -> None:
        """Close the way out: no connection of it stays."""
        with self._lock, contextlib.suppress(OSError):
            self._channel.close()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        said = bytearray()
        try:
            with self._lock:
                self._channel.sendall(json.dumps(order).encode() + b"\n")
                while not said.endswith(b"\n"):
                    if not (piece := self._channel.recv(_PIECE)):
                        raise ConnectionResetError
                    said += piece
        except TimeoutError as error:
            self._outlet.kill()
            raise EgressFailed(_DIED) from error
        except OSError as error:
            raise EgressFailed(_DIED) from error
        answer: dict[str, Any] = json.loads(said)
        return answer
