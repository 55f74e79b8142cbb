"""A connection that a program made: what it speaks and whom it is for, and then its way out.

The first bytes are looked at and left where they are, so that whoever takes the connection over has all of it. Promised: the name
that was looked up, the one in TLS and the one in a request are the same, or the connection ends.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import h11

from ..protocol.hosts import authority, host_name
from . import hello
from .connecting import Unreachable
from .exchange import Answer, Exchange, refusal_text
from .policy import Denied
from .relay import relay
from .speaker import Speaker
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from .line import Line
    from .means import Means

    Found = TypeVar("Found")

_FIRST_SECONDS = 60.0
_TLS = 22
# A fatal alert, access_denied (RFC 8446, 6): what a client is told that cannot be answered otherwise.
_ALERT = bytes((21, 3, 3, 0, 2, 2, 49))
_HEAD_BYTES = 1 << 14


class BadBytes(Exception):
    """The program's fault: what it sent is nothing that leads out."""


class Arrival:
    """One connection. `host` is "" where it came to the proxy's own port and says itself whom it is for."""

    def __init__(self, means: Means, line: Line, client: socket.socket, host: str, port: int) -> None:
        self._means, self._line, self._client, self._host, self._port = means, line, client, host, port

    async def lead(self) -> None:
        """Lead it where it may go, until it ends. Raises what `Exit` tells apart. The socket is its own from then on."""
        if not self._host:
            head = await _look(self._client, _whole_head, _HEAD_BYTES)
            if head[:8] != b"CONNECT ":
                await self._serve("http")
                return
            if not await self._connect(head):
                return
        first = await _look(self._client, lambda data: data[:1] or None, 1)
        if first[0] == _TLS:
            await self._lead_tls()
        else:
            await self._serve("http")

    async def _connect(self, head: bytes) -> bool:
        """Take a proxy's CONNECT (RFC 9110, 9.3.6); return whether it may go on."""
        loop = asyncio.get_running_loop()
        await loop.sock_recv(self._client, len(head))  # it was looked at, so it is there
        try:
            words = head.split(b"\r\n")[0].decode("ascii").split(" ")
            if len(words) != 3 or not words[2].startswith("HTTP/1."):
                raise ValueError("the request line is none")
            if ":" not in words[1]:
                raise ValueError("CONNECT names no port")
            host, port = authority(words[1], 0)
        except (ValueError, UnicodeDecodeError) as error:
            self._line.fail(f"a request was refused: {error}")
            await loop.sock_sendall(self._client, _plain_answer("400 Bad Request", f"the request was refused: {error}"))
            return False
        self._line.host, self._line.port = host, port
        try:
            rules = self._means.policy.check_name(host, port)
            if all(port not in rule.ports for rule in rules):
                self._means.policy.connection(host, port, "https")
        except Denied as denied:
            self._line.refuse(denied)
            reason = f"403 Refused by Fumehood: {denied.why}"
            await loop.sock_sendall(self._client, _plain_answer(reason, refusal_text(denied)))
            return False
        self._host, self._port = host, port
        await loop.sock_sendall(self._client, b"HTTP/1.1 200 Connection established\r\n\r\n")
        return True

    async def _lead_tls(self) -> None:
        try:
            name = await _look(self._client, hello.server_name, hello.MOST_BYTES)
            self._check_name(name)
        except (hello.BadHello, BadBytes):
            await asyncio.get_running_loop().sock_sendall(self._client, _ALERT)
            raise
        always = None
        try:
            opened = self._means.policy.connection(self._host, self._port, "https")
        except Denied as denied:
            # By a certificate of ours, so that the program hears why: its request is refused, whatever it is.
            self._line.refuse(denied)
            opened = True
        if not opened:
            always = await self._tunnel()
        if opened or always is not None:
            await self._serve("https", always)

    def _check_name(self, name: str) -> None:
        try:
            asked = host_name(name) if name else ""
        except ValueError as error:
            raise hello.BadHello(f"TLS asks for {name!r}: {error}") from error
        if asked != self._host:
            raise BadBytes(f"TLS asks for {asked or 'no name'}, and the connection is for {self._host}")

    async def _tunnel(self) -> Answer | None:
        """Return what to answer where it cannot begin; None where it did, and has ended."""
        rules = self._means.policy.rules_for(self._host)
        exempt = tuple(network for rule in rules if self._port in rule.ports for network in rule.addresses)
        try:
            server = await self._means.connector.connect(self._host, self._port, exempt, self._means.lookups)
        except Unreachable as error:
            self._line.fail(str(error))
            return Answer.unreachable(error)
        except Denied as denied:
            self._line.refuse(denied)
            return Answer.refusal(denied)
        self._line.verdict = "tunnelled"
        with server:
            await relay(self._client, server, sent=self._line.sent, received=self._line.received)
        return None

    async def _serve(self, scheme: str, always: Answer | None = None) -> None:
        if self._line.verdict != "refused":
            self._line.verdict = "opened" if scheme == "https" else "plain"
        context = self._means.authority.context(self._host) if scheme == "https" else None
        client = Speaker(h11.SERVER, await Wire.opened(self._client, context), self._line.sent)
        exchange = Exchange(
            self._means, self._line, client, scheme=scheme, host=self._host, port=self._port, always=always
        )
        await exchange.serve()


async def _look(sock: socket.socket, find: Callable[[bytes], Found | None], most: int) -> Found:
    """Return what is found in the first bytes, which stay where they are. Raises `BadBytes`, `TimeoutError`, OSError."""
    async with asyncio.timeout(_FIRST_SECONDS):
        seen = -1
        try:
            while True:
                await _readable(sock)
                data = sock.recv(most, socket.MSG_PEEK)
                if (found := find(data)) is not None:
                    return found
                if not data:
                    raise ConnectionResetError("it said nothing")
                if len(data) == seen or len(data) >= most:
                    raise BadBytes("it ended before it said what it wants")
                seen = len(data)
                # It is readable next when there is more than that.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
        finally:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _whole_head(data: bytes) -> bytes | None:
    """Return the head of a request where it is there, and anything else as it is."""
    if not b"CONNECT ".startswith(data[:8]):
        return data
    head, end, _rest = data.partition(b"\r\n\r\n")
    return head + end if end else None


def _plain_answer(status: str, text: str) -> bytes:
    body = f"fumehood: {text}\n".encode()
    line = "".join(each if " " <= each <= "~" else "?" for each in status)[:300]
    head = f"HTTP/1.1 {line}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
