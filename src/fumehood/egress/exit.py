"""The way out of one sandbox: its listeners, its names, its policy, and every connection that it has.

Promised: who came is known by the socket that was come to, and by nothing that is said; a policy that changes ends what it no
longer allows; when the way is closed, so is every connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING

from .arrival import Arrival, BadBytes
from .connecting import Unreachable
from .hello import BadHello
from .line import Book, LimitReached, Line
from .names import Names, Responder
from .policy import Denied, Policy
from .wire import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..protocol.network import Network, Traffic
    from .means import Means

_PAUSE_SECONDS = 0.05
# So that one sandbox's connections leave the loop to those of others.
_AT_A_TIME, _A_SECOND = 8, 400


class Exit:
    """The way out by these means."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._names, self._book = Names(), Book()
        self._listeners: list[socket.socket] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._connections: dict[asyncio.Task[None], Line] = {}
        self._second, self._in_second = 0.0, 0

    async def answer_names(self, sock: socket.socket) -> None:
        """Answer the questions that come to a datagram socket, which is its own from then on."""
        loop = asyncio.get_running_loop()
        self._transport, _protocol = await loop.create_datagram_endpoint(
            lambda: Responder(self._names, self._asked), sock=sock
        )

    def listen(self, listener: socket.socket, port: int) -> None:
        """Take the connections that come to a listening socket, for that port; 0 stands for the proxy's own."""
        listener.setblocking(False)
        self._listeners.append(listener)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener, port)

    def change(self, network: Network, placeholders: Mapping[str, str]) -> None:
        """Have another policy, and end the connections that it does not allow as they are."""
        self._means.policy = Policy(network, placeholders)
        for task, line in self._connections.items():
            if not self._stays(line):
                line.fail("the policy changed")
                task.cancel()

    def take(self) -> Traffic:
        """Return what was noted since the last time, of connections that last what came so far."""
        for line in self._connections.values():
            line.part()
        return self._book.take()

    async def close(self) -> None:
        """End every connection, and take no more."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        if self._transport is not None:
            self._transport.abort()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _asked(self, name: str) -> None:
        try:
            self._means.policy.check_name(name)
        except Denied as denied:
            self._book.refuse(denied.host, denied.port, denied.why, denied.rule)

    def _stays(self, line: Line) -> bool:
        """Whether a connection is as the policy would have it now."""
        if line.verdict not in ("tunnelled", "opened", "plain"):
            return False  # it is on its way, by the old rules
        try:
            opened = self._means.policy.connection(line.host, line.port, "http" if line.verdict == "plain" else "https")
        except Denied:
            return False
        if line.verdict == "tunnelled":
            return not opened
        # What it asks for next is decided on then; what it has asked for was decided on by that rule.
        return line.rule is None or line.rule in self._means.policy.rules_for(line.host)

    def _accept(self, listener: socket.socket, port: int) -> None:
        for _each in range(_AT_A_TIME):
            if self._is_hasty():
                # Whoever comes waits in the kernel's queue.
                asyncio.get_running_loop().remove_reader(listener)
                asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._listen_again, listener, port)
                return
            try:
                client, _address = listener.accept()
            except OSError:
                return
            client.setblocking(False)
            if len(self._connections) >= self._means.policy.network.connections:
                most = self._means.policy.network.connections
                self._book.refuse("", port, f"more than {most} connections at one time (connections)", "")
                _reset(client)
                continue
            line = Line(self._book, self._means.policy.network, port)
            task = asyncio.get_running_loop().create_task(self._attend(client, port, line))
            self._connections[task] = line
            task.add_done_callback(self._connections.pop)

    def _is_hasty(self) -> bool:
        """Whether it has had its connections of this second."""
        now = time.monotonic()
        if now >= self._second + 1:
            self._second, self._in_second = now, 0
        self._in_second += 1
        return self._in_second > _A_SECOND

    def _listen_again(self, listener: socket.socket, port: int) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, port)

    async def _attend(self, client: socket.socket, port: int, line: Line) -> None:
        try:
            host = ""
            if port:
                address = client.getsockname()[0]
                host = self._names.name(address) or ""
                if not host:
                    line.host = address
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                    raise Denied(address, port, f"{address} is no address that a name led to: look the name up first")
                line.host = host
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._means.policy.network.connection_seconds):
                await Arrival(self._means, line, client, host, port).lead()
        except Denied as denied:
            line.refuse(denied)
        except LimitReached as error:
            self._book.refuse(line.host, line.port, str(error), "")
            line.fail(str(error))
        except (BadBytes, BadHello) as error:
            line.refuse(Denied(line.host, line.port, str(error)))
        except TimeoutError:
            line.fail("it lasted too long, or said nothing")
        except ssl.SSLError as error:
            line.fail(f"the program ended TLS: {error.reason or error}")
        except (Unreachable, OSError) as error:
            line.fail(str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a connection: the others go on
            # Without its text: it may quote what was to be sent, a credential in it.
            line.fail(f"the proxy could not go on: {type(error).__name__}")
        finally:
            line.end()
            client.close()


def _reset(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    client.close()
