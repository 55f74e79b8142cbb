"""The egress proxy: a process beside the engine that leads the programs of its sandboxes out, each by its own policy.

The engine passes it listening sockets of a sandbox's network, and over a channel of that sandbox's the policy. Promised: what it is
told stays in its memory; it ends when the engine's end of its socket closes, and with it every way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import resource
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..protocol.network import Network
from .certificates import Authority
from .connecting import Connector
from .exit import Exit
from .means import Means
from .policy import Policy

#: Bytes of the longest line on a channel: a thousand rules with credentials.
LINE_BYTES = 1 << 23
_ORDER_BYTES, _DESCRIPTORS = 1 << 12, 64
_PR_SET_DUMPABLE = 4
_THREADS = 128


def serve(descriptor: int, nameserver: str) -> None:
    """Do the whole job over an inherited socket, until its other end closes."""
    # It holds credentials: no core file, no look from another process of the same user.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    engine = socket.socket(fileno=descriptor)
    engine.setblocking(False)
    authority = Authority()
    gc.freeze()
    # Ctrl-C is the engine's business, which then closes the socket; it may have done so already.
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        engine.send(authority.certificate.encode("ascii"))
        asyncio.run(_Proxy(engine, authority, Connector(nameserver)).run())


class _Proxy:
    def __init__(self, engine: socket.socket, authority: Authority, connector: Connector) -> None:
        self._engine, self._authority, self._connector = engine, authority, connector
        self._trusted = ssl.create_default_context()
        self._trusted.set_alpn_protocols(["http/1.1"])
        self._over = asyncio.Event()
        self._channels: set[asyncio.Task[None]] = set()
        # Listeners that came after their sandbox's first, by its number.
        self._exits: dict[int, Exit] = {}

    async def run(self) -> None:
        # `getaddrinfo` takes a thread as long as it waits.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "lookup"))
        asyncio.get_running_loop().add_reader(self._engine, self._take)
        await self._over.wait()
        for task in self._channels:
            task.cancel()
        if self._channels:
            await asyncio.wait(self._channels)

    def _take(self) -> None:
        """Take one order: a new sandbox, or more listeners for one."""
        try:
            message, descriptors, _flags, _address = socket.recv_fds(self._engine, _ORDER_BYTES, _DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._over.set()
            return
        order = json.loads(message)
        sockets = [socket.socket(fileno=each) for each in descriptors]
        number, ports = order["sandbox"], order["ports"]
        if len(sockets) != len(ports) + (2 if order["is_new"] else 0):
            # The kernel drops what this process has no room for. Whoever sent them hears by the channel, which is closed with them.
            for sock in sockets:
                sock.close()
        elif order["is_new"]:
            task = asyncio.get_running_loop().create_task(
                self._serve(number, sockets[0], sockets[1], sockets[2:], ports)
            )
            self._channels.add(task)
            task.add_done_callback(self._channels.discard)
        elif number in self._exits:
            for sock, port in zip(sockets, ports, strict=True):
                self._exits[number].listen(sock, port)
        else:
            # Of another proxy's, which died: whoever sent them hears of that on their channel.
            for sock in sockets:
                sock.close()

    def _means(self, policy: Policy) -> Means:
        return Means(policy, authority=self._authority, trusted=self._trusted, connector=self._connector)

    async def _serve(
        self,
        number: int,
        channel: socket.socket,
        names: socket.socket,
        listeners: list[socket.socket],
        ports: list[int],
    ) -> None:
        """Serve one sandbox until its channel closes."""
        reader, writer = await asyncio.open_connection(sock=channel, limit=LINE_BYTES)
        out: Exit | None = None
        try:
            while line := await reader.readline():
                order = json.loads(line)
                answer: dict[str, Any] = {}
                if "network" in order:
                    network = Network.from_plain(order["network"])
                    if out is None:
                        out = self._exits[number] = Exit(self._means(Policy(network, order["placeholders"])))
                        await out.answer_names(names)
                        for listener, port in zip(listeners, ports, strict=True):
                            out.listen(listener, port)
                    else:
                        out.change(network, order["placeholders"])
                elif out is not None:
                    if order["is_last"]:
                        await out.close()
                    answer = out.take().as_json()
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        finally:
            self._exits.pop(number, None)
            if out is not None:
                await out.close()
            writer.close()
