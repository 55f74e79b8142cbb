"""Whatever a build sends to its gateway is a place in one strict spelling, with a request that carries nothing hidden, or nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.egress.gateway import _understood

from .budget import FUZZ, corpus

_HOSTS = st.sampled_from(
    ["index.example", "Index.Example", "index.example.", "index.example@evil", "evil\0.index.example", "[::1]", "127.1", "0x7f.1", "index.example#", "xn--a",
     "a b", "%2e", "\uff49ndex.example", ""]
).map(str.encode) | st.binary(max_size=20)  # fmt: skip
_PORTS = st.sampled_from([b"443", b"80", b"0", b"65536", b"-1", b"44 3", b"", b"\xd9\xa1"]) | st.binary(max_size=6)
_LINES = st.one_of(
    st.tuples(_HOSTS, _PORTS).map(lambda pair: b"CONNECT %b:%b HTTP/1.1" % pair),
    st.tuples(st.sampled_from([b"GET", b"HEAD", b"POST"]), _HOSTS, _PORTS, st.binary(max_size=20)).map(
        lambda parts: b"%b http://%b:%b/%b HTTP/1.1" % parts
    ),
    st.binary(max_size=60),
)
_FIELDS = st.tuples(
    st.sampled_from([b"Accept", b"User-Agent", b"Host", b"Cookie", b"Range"]) | st.binary(max_size=10), st.binary(max_size=30)
).map(b": ".join)  # fmt: skip
_HEADS = st.tuples(_LINES, st.lists(_FIELDS, max_size=4)).map(lambda parts: b"\r\n".join([parts[0], *parts[1]]))


@FUZZ
@given(_HEADS | st.sampled_from(corpus("gateway")) | st.binary(max_size=200))
def test_every_head_leads_to_one_place_or_none(head: bytes) -> None:
    look_at(head)


@pytest.mark.parametrize("head", corpus("gateway"))
def test_each_seed_leads_to_one_place_or_none(head: bytes) -> None:
    look_at(head)


def look_at(head: bytes) -> None:
    """Check what the gateway makes of the head of a request."""
    place, words = _understood(head)
    if place is None:
        return
    host, port = place
    assert re.fullmatch(r"[a-z0-9._:-]+", host), host
    # Five digits: who asks for more than there are ports asks for a place that is never allowed.
    assert 0 <= port <= 99_999
    if words:
        first, said_host, *fields, blank, end = words.split(b"\r\n")
        assert (blank, end) == (b"", b"")
        assert said_host.lower().startswith(b"host: " + (b"[" if b"[" in said_host else b"") + host.encode())
        for line in (first, said_host, *fields):
            # A server that takes a bare line feed or carriage return for the end of a line must hear nothing else.
            assert not re.search(rb"[\r\n\0]", line), line
