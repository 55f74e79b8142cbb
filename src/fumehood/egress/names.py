"""Answers for names inside a sandbox: each leads to an address of its own there, so that a connection tells whom it is for.

No question leaves this machine, so none can carry anything out. Promised: whatever a question is, there is an answer that DNS
allows, or none; the table is bounded.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, cast

import dns.exception
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from ..protocol.hosts import host_name
from .places import MOST_NAMES, address_of

if TYPE_CHECKING:
    from collections.abc import Callable

_LIFE_SECONDS = 60
_QUESTION_BYTES = 1232


class Names:
    """Which address stands for which name in one sandbox."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def address(self, name: str) -> str | None:
        """Return the address of a name; None where there are too many."""
        if name not in self._addresses:
            if len(self._addresses) >= MOST_NAMES:
                return None
            address = address_of(len(self._addresses))
            self._addresses[name], self._names[address] = address, name
        return self._addresses[name]

    def name(self, address: str) -> str | None:
        """Return the name of an address; None where nobody was told it."""
        return self._names.get(address)


class Responder(asyncio.DatagramProtocol):
    """The name server of one sandbox; `asked` hears of each name."""

    def __init__(self, names: Names, asked: Callable[[str], None]) -> None:
        self._names, self._asked = names, asked
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hear that there is a socket."""
        # The loop's own class is none of those that the type names.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Answer."""
        if self._transport is not None and (answer := self.answer(data)) is not None:
            self._transport.sendto(answer, address)

    def answer(self, question: bytes) -> bytes | None:
        """Return what is said to a question; None where it is none."""
        if not _is_question(question):
            return None
        try:
            asked = dns.message.from_wire(question)
            response = dns.message.make_response(asked, recursion_available=True)
        except (dns.exception.DNSException, ValueError):
            return None
        (wanted,) = asked.question
        try:
            name = host_name(wanted.name.to_text())
        except ValueError:
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response.to_wire()
        if wanted.rdclass == dns.rdataclass.IN and wanted.rdtype == dns.rdatatype.A:
            self._asked(name)
            if (address := self._names.address(name)) is None:
                response.set_rcode(dns.rcode.REFUSED)
            else:
                response.answer.append(dns.rrset.from_text(wanted.name, _LIFE_SECONDS, "IN", "A", address))
        # To every other kind the answer is that the name has none of it: so nobody tries IPv6, or keys for hidden names.
        return response.to_wire()


def _is_question(data: bytes) -> bool:
    """Whether it is one question and nothing more, by its first twelve bytes: reading thousands of records takes seconds."""
    flags, *counts = (
        struct.unpack("!2xHHHHH", data[:12]) if 12 <= len(data) <= _QUESTION_BYTES else (1 << 15, 0, 0, 0, 0)
    )
    questions, answers, authorities, others = counts
    # The highest five bits: that it is no answer, and a query, of all that a message may be.
    return flags >> 11 == 0 and (questions, answers, authorities) == (1, 0, 0) and others <= 1
