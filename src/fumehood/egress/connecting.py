"""Connects to an allowed name: looked up once, every answer checked, and then that address and no other.

Promised: a connection goes to an address that was checked; where one answer is no address of the Internet none of them is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from typing import TYPE_CHECKING

from .addresses import why_refused
from .policy import Denied

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOOKUP_SECONDS, _CONNECT_SECONDS = 10.0, 10.0


class Unreachable(Exception):
    """The host's state, or the network's: it has no address, or none that answers."""


class Connector:
    """Looks names up by this machine's own settings, or by a name server, `ADDRESS` or `ADDRESS:PORT`."""

    def __init__(self, nameserver: str = "") -> None:
        self._nameserver = nameserver

    async def connect(self, host: str, port: int, exempt: Iterable[str], lookups: asyncio.Semaphore) -> socket.socket:
        """Return a connected socket. `exempt` are networks that may be reached although they are not the Internet's.

        `lookups` bounds how many names one sandbox has looked up at one time.

        Raises `Denied` and `Unreachable`.
        """
        async with lookups:
            addresses = await self._addresses(host)
        networks = [ipaddress.ip_network(each) for each in exempt]
        for address in addresses:
            if why := why_refused(address, networks):
                raise Denied(
                    host, port, f"host {host} leads to {address}, which is {why}", f"{host}:{port}@{_network(address)}"
                )
        problem = "it has no address"
        for address in addresses:
            try:
                return await _connected(address, port)
            except OSError as error:
                # A timeout of the loop's has no text of its own.
                problem = f"{address} port {port}: {error.strerror or 'no answer'}"
        raise Unreachable(f"host {host} cannot be reached: {problem}")

    async def _addresses(self, host: str) -> list[str]:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await (self._asked(host) if self._nameserver else _looked_up(host))
        except TimeoutError:
            raise Unreachable(f"host {host} cannot be looked up: no answer in time") from None
        except OSError as error:
            raise Unreachable(f"host {host} cannot be looked up: {error.strerror or error}") from error
        return list(dict.fromkeys(found))

    async def _asked(self, host: str) -> list[str]:
        import dns.asyncresolver  # noqa: PLC0415 - 30 ms that few proxies need
        import dns.exception  # noqa: PLC0415 - likewise

        address, _colon, port = self._nameserver.partition(":")
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = [address], int(port or 53)
        kinds = ("A", "AAAA")
        answers = await asyncio.gather(
            *(resolver.resolve(f"{host}.", kind, raise_on_no_answer=False) for kind in kinds), return_exceptions=True
        )
        found: list[str] = []
        for answer in answers:
            if isinstance(answer, dns.exception.DNSException):
                raise OSError(0, str(answer).partition("\n")[0])
            if isinstance(answer, BaseException):
                raise answer
            found += [record.address for record in answer.rrset or ()]
        return found


async def _looked_up(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for _family, _kind, _protocol, _name, address in found]


async def _connected(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(_CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise
    return sock


def _network(address: str) -> str:
    return str(ipaddress.ip_network(address))
