"""The name in the first bytes of TLS, as OpenSSL writes them and as nobody should."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import pytest

from fumehood.egress.hello import MOST_BYTES, BadHello, server_name

NAME = "api.example.com"


def spoken(name: str | None, alpn: Sequence[str] = (), newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """Return the first bytes that OpenSSL sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = newest
    context.check_hostname = name is not None
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def block(size: int, *parts: bytes) -> bytes:
    """Return bytes behind their length, which takes `size` bytes."""
    data = b"".join(parts)
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + block(2, body)


def named(*names: bytes, kind: int = 0) -> bytes:
    """Return the extension that asks for names (RFC 6066, 3)."""
    return extension(0, block(2, *(bytes([kind]) + block(2, name) for name in names)))


def body_of(*extensions: bytes) -> bytes:
    """Return the body of a client's first message (RFC 8446, 4.1.2)."""
    return (
        b"\3\3" + bytes(32) + block(1, bytes(32)) + block(2, b"\x13\1\x13\2") + block(1, b"\0") + block(2, *extensions)
    )


def records(message: bytes, size: int = 1 << 14, kind: int = 22, version: bytes = b"\3\1") -> bytes:
    """Return a message in records of `size` bytes."""
    pieces = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(bytes([kind]) + version + block(2, piece) for piece in pieces)


def hello(*extensions: bytes, kind: int = 1) -> bytes:
    return records(bytes([kind]) + block(3, body_of(*extensions)))


SPOKEN = {
    "name": (spoken(NAME), NAME),
    "no_name": (spoken(None), ""),
    "tls_1_2": (spoken(NAME, newest=ssl.TLSVersion.TLSv1_2), NAME),
    "alpn": (spoken(NAME, ["h2", "http/1.1"]), NAME),
    "long_alpn": (spoken(NAME, [f"{number:0200}" for number in range(60)]), NAME),
    "long_alpn_and_no_name": (spoken(None, [f"{number:0200}" for number in range(60)]), ""),
    "longest_name": (spoken(".".join(["a" * 49] * 5)), ".".join(["a" * 49] * 5)),
    "one_letter": (spoken("a"), "a"),
}


@pytest.mark.parametrize(("data", "name"), SPOKEN.values(), ids=SPOKEN.keys())
def test_the_name_is_found_once_its_message_is_whole(data: bytes, name: str) -> None:
    assert [server_name(data[:end]) for end in range(len(data))] == [None] * len(data)
    assert server_name(data) == name
    assert server_name(data + b"\x17\3\3\0\1x") == name  # what comes after it is not looked at


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100, 250])
def test_the_name_is_found_in_a_message_of_several_records(size: int) -> None:
    data = spoken(NAME)
    message = data[5:]
    assert data == records(message)
    pieces = records(message, size)
    assert len(pieces) > len(data)
    assert server_name(pieces) == NAME
    assert {server_name(pieces[:end]) for end in range(len(pieces))} == {None}


def test_a_message_that_is_written_by_hand_is_read_as_openssls() -> None:
    assert server_name(hello(named(NAME.encode()))) == NAME
    assert server_name(hello(extension(16, b"\0\3\2h2"), named(NAME.encode()), extension(43, b"\2\3\4"))) == NAME
    assert server_name(hello(extension(16, b"\0\3\2h2"))) == ""
    assert server_name(hello()) == ""


def test_a_message_without_extensions_asks_for_no_name() -> None:
    body = body_of()[:-2]
    assert server_name(records(b"\1" + block(3, body))) == ""


def test_the_name_is_given_as_it_was_written() -> None:
    """Whether it is one is for others to say: none of these is taken for another name."""
    for name in ("API.Example.COM", "127.0.0.1", "a b", "ok.com\0.evil.com", "ok.com.", "-", "\x7f"):
        assert server_name(hello(named(name.encode()))) == name


BAD = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "ssl_2": b"\x80\x2e\1\3\1\0\x15\0\0\0\x10" + bytes(40),
    "alert": records(b"\2\x28", kind=21),
    "application_data": records(b"x" * 20, kind=23),
    "change_of_ciphers_first": b"\x14\3\3\0\1\1" + hello(named(NAME.encode())),
    "version_2": records(b"\1" + block(3, body_of(named(NAME.encode()))), version=b"\2\0"),
    "empty_record": b"\x16\3\1\0\0" + hello(named(NAME.encode())),
    "record_too_long": b"\x16\3\1\x40\1" + bytes(100),
    "record_of_another_kind_between": records(b"\1" + block(3, body_of()))[:5] + bytes(100),
    "alert_between_two_records": records(b"\1\0\1\0") + records(b"\2\x28", kind=21),
    "servers_hello": hello(named(NAME.encode()), kind=2),
    "no_hello": hello(named(NAME.encode()), kind=0),
    "empty_message": records(b"\1" + block(3)),
    "cut_in_its_version": records(b"\1" + block(3, b"\3")),
    "cut_in_its_random": records(b"\1" + block(3, body_of()[:20])),
    "cut_in_its_session": records(b"\1" + block(3, body_of()[:40])),
    "cut_in_its_extensions": records(b"\1" + block(3, body_of(named(NAME.encode()))[:-1])),
    "bytes_after_its_extensions": records(b"\1" + block(3, body_of(named(NAME.encode())), b"\0")),
    "session_longer_than_it": records(b"\1" + block(3, b"\3\3", bytes(32), b"\xff", bytes(10))),
    "extension_longer_than_it": hello(b"\0\0\xff\xff\0\0"),
    "extension_without_a_length": hello(b"\0\0"),
    "name_empty_extension": hello(extension(0, b"")),
    "name_empty_list": hello(extension(0, b"\0\0")),
    "name_list_longer_than_it": hello(extension(0, b"\0\xff\0\0\1a")),
    "name_longer_than_its_list": hello(extension(0, block(2, b"\0\0\xffa"))),
    "two_names_in_a_list": hello(named(NAME.encode(), b"evil.com")),
    "the_same_name_twice": hello(named(NAME.encode(), NAME.encode())),
    "two_lists": hello(named(NAME.encode()), named(b"evil.com")),
    "two_lists_apart": hello(named(NAME.encode()), extension(16, b"\0\3\2h2"), named(b"evil.com")),
    "name_of_another_kind": hello(named(NAME.encode(), kind=1)),
    "byte_after_the_name": hello(extension(0, block(2, b"\0", block(2, NAME.encode()), b"\0"))),
    "name_beyond_ascii": hello(named("\u0430pi.example.com".encode())),
    "name_of_bytes": hello(named(b"\xff\xfe")),
}  # fmt: skip


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_plain_hello_is_refused(data: bytes) -> None:
    with pytest.raises(BadHello, match=r"\w"):
        server_name(data)


def test_bytes_after_the_list_of_names_are_refused() -> None:
    with pytest.raises(BadHello):
        server_name(hello(extension(0, block(2, b"\0", block(2, NAME.encode())) + b"\0")))


def test_a_message_is_not_waited_for_without_end() -> None:
    endless = records(b"\1" + (1 << 20).to_bytes(3, "big") + bytes(MOST_BYTES))
    assert server_name(endless[: MOST_BYTES - 1]) is None
    with pytest.raises(BadHello, match="longer"):
        server_name(endless[:MOST_BYTES])
    drip = records(b"\1" + (1 << 20).to_bytes(3, "big") + bytes(MOST_BYTES), size=1)
    assert server_name(drip[: MOST_BYTES - 1]) is None
    with pytest.raises(BadHello, match="longer"):
        server_name(drip[:MOST_BYTES])
