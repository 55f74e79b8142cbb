"""Whatever comes to the egress proxy is read in one strict way or refused: names, rules, addresses, TLS, questions, secrets."""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
import ssl
from urllib.parse import parse_qsl

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fumehood import Allow, Basic, Bearer, Header, Network, Query
from fumehood.egress.addresses import why_refused
from fumehood.egress.hello import BadHello, server_name
from fumehood.egress.injection import Injection, Placeholders, Redactor, masked
from fumehood.egress.names import Names, Responder
from fumehood.egress.policy import Denied, Policy
from fumehood.errors import InvalidRequest
from fumehood.protocol.credentials import Credential
from fumehood.protocol.hosts import authority, host_name

from .budget import FUZZ

INSIDE = ipaddress.ip_network("198.18.0.0/15")
_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_ODD = st.sampled_from(
    ["\0", ".", "..", "@", "#", "%2e", "%", ":", "/", "\\", "?", " ", "\n", "\r\n", "[", "]", "*", "_", "-", "\uff0e", "\u3002",
     "\u0130", "\u212a", "0x", "127.1", "1", "a", "A.com", "xn--", "x" * 63, "::1", "\udcff"]
)  # fmt: skip
_ODD_TEXTS = st.lists(_ODD | st.text(max_size=3), max_size=8).map("".join)
_LABELS = st.from_regex(re.compile(rf"{_LABEL}"), fullmatch=True)
_NAMES = st.lists(_LABELS, min_size=1, max_size=5).map(".".join).filter(lambda name: len(name) <= 253)


def reads_as_address(name: str) -> bool:
    """Whether the URL standard takes a name for an IPv4 address, or an error (url.spec.whatwg.org, ends in a number)."""
    return bool(re.fullmatch(r"[0-9]+|0x[0-9a-f]*", name.rpartition(".")[2]))


@FUZZ
@given(_ODD_TEXTS | st.text(max_size=300) | _NAMES)
def test_a_host_is_a_name_in_its_one_spelling_or_none(text: str) -> None:
    try:
        name = host_name(text)
    except ValueError:
        return
    assert _NAME.fullmatch(name), name
    assert len(name) <= 253
    assert not reads_as_address(name)
    assert name == text.lower().removesuffix(".")
    assert host_name(name) == host_name(name.upper() + ".") == name


@FUZZ
@given(_NAMES)
def test_every_name_that_is_no_address_is_taken(name: str) -> None:
    assume(not reads_as_address(name))
    assert host_name(name) == name
    assert authority(f"{name}:65535", 443) == (name, 65535)


@FUZZ
@given(
    st.tuples(
        st.sampled_from(["", "https://", "http://", "*.", "ftp://", "://"]), _NAMES | _ODD_TEXTS,
        st.sampled_from(["", ":443", ":0", ":", ":65535", ":x"]) | _ODD_TEXTS,
        st.sampled_from(["", "/", "/v1/*", "/v1", "/*/x"]) | _ODD_TEXTS,
        st.sampled_from(["", "@10.0.0.0/8", "@::1", "@", "@x"]) | _ODD_TEXTS,
    ).map("".join) | st.text(max_size=40)
)  # fmt: skip
def test_a_text_is_a_rule_or_an_invalid_request(text: str) -> None:
    try:
        rule = Allow.parse(text)
    except InvalidRequest:
        return
    assert rule.host == "*" or _NAME.fullmatch(rule.host.removeprefix("*."))
    assert all(1 <= port <= 65535 for port in rule.ports)
    assert all(path.startswith("/") and path.isascii() for path in rule.paths)
    assert rule.credential is None
    assert Allow.from_plain(rule.as_plain()) == rule


_V4 = st.sampled_from(
    ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
     "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"]
)  # fmt: skip
_V6 = st.sampled_from(
    ["::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
     "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2620:4f:8000::/48", "5f00::/16"]
)  # fmt: skip
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def around(text: str, away: int) -> _Address:
    """Return the address that lies `away` from a network's first, or, where that is negative, from its last."""
    network = ipaddress.ip_network(text)
    last = (1 << network.max_prefixlen) - 1
    start = int(network.network_address) if away >= 0 else int(network.broadcast_address)
    kind = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    return kind(min(max(start + (-1) ** (away & 1) * (away >> 1), 0), last))


_ADDRESSES = st.one_of(
    st.ip_addresses(), st.builds(around, _V4 | _V6, st.integers(-600, 600)),
    st.ip_addresses(v=4).map(lambda value: ipaddress.IPv6Address(f"::ffff:{value}")),
    st.integers(0, (1 << 125) - 1).map(lambda value: ipaddress.IPv6Address(value | 1 << 125)),
)  # fmt: skip


@FUZZ
@given(_ADDRESSES)
@example(ipaddress.ip_address("192.0.0.8"))
@example(ipaddress.ip_address("255.255.255.255"))
@example(ipaddress.ip_address("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"))
def test_what_python_calls_no_global_address_is_refused(value: _Address) -> None:
    why = why_refused(str(value))
    if not value.is_global or value.is_multicast or value.is_reserved or value.is_unspecified or value.is_link_local:
        assert why
    if isinstance(value, ipaddress.IPv6Address):
        assert why == why_refused(value.exploded) == why_refused(value.compressed.upper())
        if value.ipv4_mapped is not None or value.sixtofour is not None or value.teredo is not None:
            assert why
    # What a rule exempts passes, and the other family's networks exempt nothing.
    assert why_refused(str(value), [ipaddress.ip_network(value)]) == ""
    other = "::/0" if value.version == 4 else "0.0.0.0/0"
    assert why_refused(str(value), [ipaddress.ip_network(other)]) == why


@FUZZ
@given(st.text(max_size=40) | st.text("0123456789abcdefx.:%[]/ ", max_size=40))
def test_what_is_no_address_is_refused(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert why_refused(text) == "no address"


@functools.cache
def spoken(name: str | None, alpn: int = 0) -> bytes:
    """Return the first bytes of TLS as OpenSSL sends them, with `alpn` long protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = name is not None
    if alpn:
        context.set_alpn_protocols([f"{number:0200}" for number in range(alpn)])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


_SPOKEN = st.sampled_from([("api.example.com", 0), (None, 0), ("api.example.com", 5)]).map(lambda given: spoken(*given))
_CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=4), st.booleans()), max_size=6)


def changed(data: bytes, changes: list[tuple[int, bytes, bool]]) -> bytes:
    """Return data with bytes put in, in place of others or between them; none is a cut."""
    for where, put, between in changes:
        at = where % (len(data) + 1)
        data = data[:at] + put + data[at + (0 if between else len(put)) :] if put else data[:at] or data
    return data


def in_records(data: bytes, sizes: list[int]) -> bytes:
    """Return one record's message in several."""
    message, pieces = data[5:], []
    for size in sizes:
        pieces.append(message[:size])
        message = message[size:]
    return b"".join(b"\x16\3\1" + len(each).to_bytes(2, "big") + each for each in (*pieces, message) if each)


def message_in(data: bytes) -> bytes:
    """Return what is in a row of records."""
    message = b""
    while data:
        end = 5 + int.from_bytes(data[3:5], "big")
        message, data = message + data[5:end], data[end:]
    return message


@FUZZ
@given(
    st.builds(changed, _SPOKEN, _CHANGES) | st.binary(max_size=400) | st.binary(max_size=400).map(b"\x16\3\1".__add__)
)
def test_first_bytes_hold_a_name_or_too_little_or_are_refused(data: bytes) -> None:
    try:
        name = server_name(data)
    except BadHello:
        return
    if name is not None:
        assert name.encode("ascii") in message_in(data)
        assert server_name(data + b"anything") == name


@FUZZ
@given(
    # OpenSSL's client sends no address.
    _NAMES.filter(lambda name: not reads_as_address(name)), st.lists(st.integers(1, 300), max_size=8), st.integers(0, 600)
)  # fmt: skip
def test_the_name_that_was_asked_for_is_found(name: str, sizes: list[int], cut: int) -> None:
    data = in_records(spoken(name), sizes)
    assert server_name(data) == name
    assert server_name(data[: min(cut, len(data) - 1)]) is None


_TARGETS = st.lists(
    st.sampled_from(["/", "v1", "..", ".", "%2e", "%2F", "\\", ";", "#", "//", "?", "models", "x"]) | st.text(max_size=2), max_size=8
).map(lambda parts: "/" + "".join(parts))  # fmt: skip


@FUZZ
@given(_TARGETS)
def test_a_path_that_passes_is_below_what_the_rule_names(target: str) -> None:
    held = Policy(Network(allow=["a.com/v1/*"]), {})
    try:
        held.request("a.com", 443, "https", "GET", target)
    except Denied:
        return
    path = target.partition("?")[0]
    assert path.startswith("/v1/")
    assert not {".", ".."} & set(re.split(r"[/\\]", path))
    assert not re.search(r"//|[\\;#]|%(2[ef5]|5c|00)", path, re.IGNORECASE)


_WORDS = st.text("ab/%+ =&\u00fc", min_size=6, max_size=14)


@st.composite
def streams(draw: st.DrawFn, secrets: tuple[bytes, ...]) -> list[bytes]:
    """Give pieces in which secrets, their beginnings and other bytes stand side by side, cut anywhere."""
    beginnings = [each[:end] for each in secrets for end in range(1, len(each) + 1)]
    some = st.sampled_from([*secrets, *beginnings]) if secrets else st.just(b"")
    whole = b"".join(draw(st.lists(some | st.binary(max_size=4), max_size=10)))
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@FUZZ
@given(st.data(), st.text("ab", min_size=6, max_size=12).map(str.encode))
def test_one_secret_is_masked_as_in_the_whole_however_it_is_cut(data: st.DataObject, secret: bytes) -> None:
    pieces = data.draw(streams((secret,)))
    redactor = Redactor((secret,))
    passed = [redactor.feed(piece) for piece in pieces]
    assert b"".join(passed) + redactor.end() == masked(b"".join(pieces), (secret,))
    assert b"".join(part for piece in pieces for part in redactor.feed_long(piece)) + redactor.end() == b"".join(
        [*passed, masked(b"".join(pieces), (secret,))[len(b"".join(passed)) :]]
    )
    # What was held back at each time says nothing of what it is.
    fed = 0
    for at, piece in enumerate(pieces):
        fed += len(piece)
        assert fed - len(b"".join(passed[: at + 1])) == min(fed, len(secret) - 1)


def credentials(word: str) -> list[Credential]:
    plain = word.replace("\u00fc", "u").strip() or "secret"
    return [
        Bearer(token=plain), Header(name="X-Key", value=plain), Basic(user="me", password=word), Query(key="k", value=word)
    ]  # fmt: skip


@FUZZ
@given(st.data(), _WORDS, st.integers(0, 3))
def test_no_spelling_of_a_secret_passes(data: st.DataObject, word: str, kind: int) -> None:
    secrets = Injection(credentials(word)[kind]).secrets
    pieces = data.draw(streams(secrets))
    redactor = Redactor(secrets)
    passed = b"".join(redactor.feed(piece) for piece in pieces) + redactor.end()
    whole = b"".join(pieces)
    assert len(passed) == len(whole)
    assert not any(secret in passed for secret in secrets)
    assert all(got in (sent, ord("*")) for got, sent in zip(passed, whole, strict=True))
    if not any(secret in whole for secret in secrets):
        assert passed == whole


_HEADERS = st.lists(
    st.tuples(st.sampled_from([b"authorization", b"x-key", b"accept", b"accept-encoding", b"cookie"]), st.binary(max_size=8)), max_size=8
)  # fmt: skip


@FUZZ
@given(_HEADERS, _WORDS, st.integers(0, 3))
def test_a_request_carries_its_credential_once_and_the_rest_as_it_was(
    headers: list[tuple[bytes, bytes]], word: str, kind: int
) -> None:
    sent = Injection(credentials(word)[kind]).headers(headers)
    replaced = {b"accept-encoding", *([b"authorization"], [b"x-key"], [b"authorization"], [])[kind]}
    assert [each for each in sent if each[0] not in replaced] == [each for each in headers if each[0] not in replaced]
    assert sorted(name for name, _value in sent if name in replaced) == sorted(replaced)


@FUZZ
@given(st.text("k=&?%6b+v;#/", max_size=30), _WORDS)
def test_a_query_carries_its_credential_once_at_its_end(target: str, word: str) -> None:
    sent = Injection(Query(key="k", value=word)).target(f"/{target}")
    path, _mark, query = sent.partition("?")
    assert path == f"/{target}".partition("?")[0]
    # As a server reads it, which is the other half of urllib.
    heard = parse_qsl(query, keep_blank_values=True)
    given_before = parse_qsl(target.partition("?")[2], keep_blank_values=True)
    assert heard == [*(each for each in given_before if each[0] != "k"), ("k", word)]
    assert Injection(Query(key="k", value=word)).target(sent) == sent


_PLACEHOLDERS = st.binary(min_size=16, max_size=16).map(lambda value: f"fumehood-placeholder-{value.hex()}")


@FUZZ
@given(
    _PLACEHOLDERS, _PLACEHOLDERS, st.booleans(), st.binary(max_size=40), st.binary(max_size=40),
    st.lists(st.integers(0, 200), max_size=8),
)  # fmt: skip
def test_a_placeholder_is_found_in_every_place_and_other_ones_are_not(
    value: str, other: str, in_base64: bool, before: bytes, behind: bytes, cuts: list[int]
) -> None:
    assume(value != other)
    data = before + value.encode() + behind
    if in_base64:
        data = base64.b64encode(data)
    ends = [min(cut, len(data)) for cut in sorted(cuts)]
    pieces = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    for values, is_there in (([value], True), ([other, value], True), ([other], False), ([], False)):
        look = Placeholders(values)
        assert any([look.are_in(piece) for piece in pieces]) is is_there  # noqa: C419 - all of them are fed


_QUESTIONS = st.builds(
    lambda name, kind, edns: dns.message.make_query(name, kind, use_edns=edns).to_wire(),
    st.sampled_from(["a.example.com", "example.com", "_x.example.com", "127.0.0.1", "a\\000.com", "."]),
    st.sampled_from(["A", "AAAA", "HTTPS", "TXT", "ANY", "MX", "OPT", "AXFR"]), st.booleans(),
)  # fmt: skip


def header_and_rest(head: bytes, rest: bytes) -> bytes:
    return head + b"\0\1" + bytes(6) + rest


@FUZZ
@given(
    st.one_of(
        st.builds(changed, _QUESTIONS, _CHANGES), st.binary(max_size=100),
        st.builds(header_and_rest, st.binary(min_size=4, max_size=4), st.binary(max_size=60)),
    )
)  # fmt: skip
def test_a_question_gets_an_answer_that_dns_allows_or_none(question: bytes) -> None:
    asked: list[str] = []
    answer = Responder(Names(), asked.append).answer(question)
    if answer is None:
        assert asked == []
        return
    response = dns.message.from_wire(answer)
    assert response.id == int.from_bytes(question[:2], "big")
    assert dns.message.from_wire(question).is_response(response)
    assert response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    records = [record for rrset in response.answer for record in rrset]
    assert len(records) == len(asked) <= 1
    for record in records:
        assert record.rdtype == dns.rdatatype.A
        assert ipaddress.ip_address(record.to_text()) in INSIDE
        assert host_name(response.question[0].name.to_text()) == asked[0]
    assert response.authority == []
    # It is no way to make this machine send more than it was sent.
    assert len(answer) <= len(question) + 64


@FUZZ
@given(_QUESTIONS)
def test_a_question_as_libraries_ask_it_is_always_answered(question: bytes) -> None:
    answer = Responder(Names(), lambda _name: None).answer(question)
    assert answer is not None
    try:
        dns.message.from_wire(answer)
    except dns.exception.DNSException as error:
        raise AssertionError(answer) from error
