"""What a sandbox's name server says: an address of its own for each name, and nothing to any other question."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import dns.asyncquery
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import pytest

from fumehood.egress.names import Names, Responder
from fumehood.egress.places import MOST_NAMES, NAMESERVER

INSIDE = ipaddress.ip_network("198.18.0.0/15")


class Asking:
    """A responder, what it told of, and the names that it was asked for."""

    def __init__(self) -> None:
        self.names, self.asked = Names(), list[str]()
        self.responder = Responder(self.names, self.asked.append)

    def ask(self, name: str, kind: str = "A", kind_of_class: str = "IN") -> dns.message.Message:
        question = dns.message.make_query(name, kind, rdclass=kind_of_class)
        answer = self.responder.answer(question.to_wire())
        assert answer is not None
        response = dns.message.from_wire(answer)
        assert question.is_response(response)
        return response

    def address(self, name: str) -> str:
        (records,) = self.ask(name).answer
        (record,) = records
        assert record.rdtype == dns.rdatatype.A
        return str(record.to_text())


def test_each_name_has_an_address_of_its_own_and_keeps_it() -> None:
    asking = Asking()
    hosts = ["a.com", "b.com", "api.a.com", "a.com.b.com"]
    addresses = [asking.address(host) for host in hosts]
    assert len(set(addresses)) == len(hosts)
    assert all(ipaddress.ip_address(address) in INSIDE for address in addresses)
    assert [asking.address(host) for host in hosts] == addresses
    assert [asking.names.name(address) for address in addresses] == hosts
    assert asking.names.name("198.18.200.1") is None
    assert Asking().address("b.com") == addresses[0]  # by its order alone: an address tells nothing of other sandboxes


def test_the_same_name_in_another_spelling_has_the_same_address() -> None:
    asking = Asking()
    assert len({asking.address(each) for each in ("example.com", "EXAMPLE.com", "example.com.", "eXaMpLe.CoM.")}) == 1
    assert set(asking.asked) == {"example.com"}
    # Resolvers that vary the case to know their answer again find it as they wrote it (draft-vixie-dnsext-dns0x20).
    assert str(asking.ask("eXaMpLe.CoM.").answer[0].name) == "eXaMpLe.CoM."


KINDS = [
    "AAAA", "HTTPS", "SVCB", "TXT", "ANY", "MX", "NS", "SOA", "SRV", "CNAME", "PTR", "CAA", "DS", "DNSKEY", "NULL", "AXFR", "TYPE65280",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_has_none_of_any_other_kind(kind: str) -> None:
    asking = Asking()
    for _each in range(2):
        response = asking.ask("example.com", kind)
        assert response.rcode() == dns.rcode.NOERROR
        assert response.answer == response.authority == response.additional == []
        asking.ask("example.com")  # nor once it has an address
    assert asking.asked == ["example.com", "example.com"]


@pytest.mark.parametrize("kind", ["CH", "HS", "ANY", "NONE"])
def test_an_address_of_another_class_is_none(kind: str) -> None:
    asking = Asking()
    response = asking.ask("version.bind", "A", kind)
    assert (response.answer, asking.asked) == ([], [])


NO_NAMES = {
    "root": ".",
    "underscore": "_dmarc.example.com",
    "star": "*.example.com",
    "nul": "ok\\000.com",
    "dot_in_a_label": "ok\\.com.evil",
    "space": "ok\\032com",
    "byte": "\\255.com",
    "at": "ok\\@evil.com",
    "hyphen": "-ok.com",
    "address": "127.0.0.1",
    "hex_address": "0x7f000001",
    "number": "2130706433",
}


@pytest.mark.parametrize("name", NO_NAMES.values(), ids=NO_NAMES.keys())
def test_what_no_host_can_be_called_does_not_exist(name: str) -> None:
    asking = Asking()
    for kind in ("A", "AAAA", "TXT"):
        response = asking.ask(name, kind)
        assert (response.rcode(), response.answer) == (dns.rcode.NXDOMAIN, [])
    assert asking.asked == []
    assert asking.address("first.com") == Asking().address("first.com")  # they took no address


def test_a_response_is_one_and_says_that_recursion_is_done() -> None:
    response = Asking().ask("example.com")
    assert response.flags & dns.flags.QR
    assert response.flags & dns.flags.RA
    assert response.answer[0].ttl == 60
    assert response.question[0].name == response.answer[0].name


def test_extensions_of_dns_are_understood() -> None:
    for options in ({"use_edns": 0}, {"use_edns": 0, "want_dnssec": True}, {"use_edns": 0, "payload": 512}):
        question = dns.message.make_query("example.com", "A", **options)  # type: ignore[arg-type]
        answer = Asking().responder.answer(question.to_wire())
        assert answer is not None
        response = dns.message.from_wire(answer)
        assert response.edns == 0
        assert len(response.answer) == 1


def question(*, flags: int = 0x0100, questions: int = 1, rest: bytes = b"\1a\3com\0\0\1\0\1") -> bytes:
    return b"\x12\x34" + flags.to_bytes(2, "big") + questions.to_bytes(2, "big") + bytes(6) + rest


def test_a_question_that_is_written_by_hand_is_answered() -> None:
    assert Asking().responder.answer(question()) is not None


UNANSWERED = {
    "nothing": b"",
    "one_byte": b"\0",
    "half_a_header": question()[:11],
    "header_alone": question()[:12],
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
    "cut_in_its_name": question()[:15],
    "cut_in_its_class": question()[:-1],
    "bytes_behind_it": question() + b"\0",
    "a_response": question(flags=0x8180),
    "no_question": question(questions=0, rest=b""),
    "two_questions": question(questions=2, rest=b"\1a\3com\0\0\1\0\1\1b\3com\0\0\1\0\1"),
    "65535_questions": question(questions=65535),
    "name_that_points_at_itself": question(rest=b"\xc0\x0c\0\1\0\1"),
    "name_that_points_ahead": question(rest=b"\xc0\xff\0\1\0\1"),
    "name_too_long": question(rest=(b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1"),
    "label_of_another_kind": question(rest=b"\x41a\0\0\1\0\1"),
    "http": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("data", UNANSWERED.values(), ids=UNANSWERED.keys())
def test_what_is_no_question_gets_no_answer(data: bytes) -> None:
    asking = Asking()
    assert asking.responder.answer(data) is None
    assert asking.asked == []


@pytest.mark.parametrize("opcode", range(16))
def test_no_operation_but_a_question_does_anything(opcode: int) -> None:
    asking = Asking()
    answer = asking.responder.answer(question(flags=0x0100 | opcode << 11))
    if answer is not None:
        response = dns.message.from_wire(answer)
        assert response.opcode() == dns.opcode.Opcode(opcode)
        assert len(answer) < 512


def test_a_signed_question_gets_no_answer() -> None:
    signed = dns.message.make_query("example.com", "A")
    signed.use_tsig(dns.tsig.Key("key.", b"secret"))
    assert Asking().responder.answer(signed.to_wire()) is None


def test_the_table_of_names_is_bounded() -> None:
    asking = Asking()
    addresses = [asking.address(f"a{number}.com") for number in range(MOST_NAMES)]
    assert len(set(addresses)) == MOST_NAMES
    assert all(ipaddress.ip_address(address) in INSIDE for address in addresses)
    assert NAMESERVER not in addresses
    for name in ("one-more.com", "another.com"):
        response = asking.ask(name)
        assert (response.rcode(), response.answer) == (dns.rcode.REFUSED, [])
    assert asking.names.address("one-more.com") is None
    assert [asking.address(f"a{number}.com") for number in (0, MOST_NAMES - 1)] == [addresses[0], addresses[-1]]


def test_questions_are_answered_over_a_socket_and_nonsense_is_passed_over() -> None:
    async def answered() -> dns.message.Message:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        asking = Asking()
        transport, _protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: asking.responder, sock=sock
        )
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for data in (*UNANSWERED.values(), question(flags=0x8180)):
                    client.sendto(data, (host, port))
            return await dns.asyncquery.udp(dns.message.make_query("example.com", "A"), host, port=port, timeout=20)
        finally:
            transport.close()

    response = asyncio.run(answered())
    assert ipaddress.ip_address(response.answer[0][0].to_text()) in INSIDE
