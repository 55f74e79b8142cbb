"""Server-sent events, however the connection cuts them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.llm.server_events import event_data

STREAMS = {
    "plain": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "no_space": (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
    "cr_lf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "cr": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "lines": (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
    "comments": (b": hi\n\n:\ndata: a\n: there\n\n", [b"a"]),
    "other_fields": (b"event: x\nid: 7\nretry: 1\ndata: a\n\nevent: y\n\n", [b"a"]),
    "mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "no_end": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "error": (b'error: {"message": "x"}\n\n', [b' {"message": "x"}']),
    "unicode": ("data: é\u2028\x0b\x0c\x1c\n\n".encode(), ["é\u2028\x0b\x0c\x1c".encode()]),
    "nothing": (b"\n\n\r\n", []),
}


@pytest.mark.parametrize(("body", "data"), STREAMS.values(), ids=STREAMS.keys())
def test_the_data_of_each_event_is_found_wherever_the_stream_is_cut(body: bytes, data: list[bytes]) -> None:
    assert list(event_data([body])) == data
    assert list(event_data(bytes([byte]) for byte in body)) == data
    for place in range(len(body)):
        assert list(event_data([body[:place], body[place:]])) == data


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_no_cut_changes_what_is_read(body: bytes, places: list[int]) -> None:
    cuts = [0, *sorted(places), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(cuts)]
    assert list(event_data(pieces)) == list(event_data([body]))


@given(st.text(st.sampled_from("data: x\r\n\ufeff"), max_size=40), st.lists(st.integers(0, 60), max_size=6))
def test_no_cut_of_what_resembles_events_changes_what_is_read(text: str, places: list[int]) -> None:
    test_no_cut_changes_what_is_read.hypothesis.inner_test(text.encode(), places)  # type: ignore[attr-defined]  # hypothesis's own
