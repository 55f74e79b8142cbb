"""Whatever a session's program sends over its channel is a message, an event, or `BrokenProtocol`, and nothing else."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.protocol.session import CellError, Cleared, Display, Output
from fumehood.sandbox.cell import Held
from fumehood.sandbox.channel import BrokenProtocol, Channel, event_of

from .budget import FUZZ, corpus

MOST_BYTES = 100_000
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_WORDS = st.sampled_from(
    ["stream", "display", "result", "error", "clear", "done", "ready", "still", "stdout", "stderr"]
)
_MESSAGES = st.dictionaries(
    st.sampled_from(["type", "name", "text", "data", "metadata", "ok", "pid", "lost", "value", "traceback"]) | st.text(max_size=5),
    _JSON | _WORDS, max_size=6,
).map(lambda message: json.dumps(message).encode())  # fmt: skip
_HEADERS = st.tuples(st.integers(-1, 1 << 40), st.sampled_from([0, 1, 2])).map(lambda pair: b"%d %d " % pair)
_PIECES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(corpus("channel")),
    st.tuples(_HEADERS, _MESSAGES | st.binary(max_size=50)).map(b"".join),
    _MESSAGES.map(lambda data: b"7 0 " + data),
    _MESSAGES.flatmap(lambda data: st.integers(0, len(data)).map(lambda end: b"7 1 " + data[:end])),
)


@FUZZ
@given(st.lists(_PIECES, max_size=8))
def test_every_sequence_of_pieces_is_understood_or_refused(pieces: list[bytes]) -> None:
    for message in received(pieces):
        assert message
        assert isinstance(event_of(message), (Output, Display, CellError, Cleared, type(None)))


@FUZZ
@given(_JSON, _JSON)
def test_a_program_that_says_it_stands_still_says_who_and_what_it_lost_or_is_refused(pid: Any, lost: Any) -> None:
    try:
        held = Held.of({"type": "still", "pid": pid, "lost": lost})
    except BrokenProtocol:
        assert not (isinstance(pid, int) and isinstance(lost, list))
        return
    assert isinstance(held.pid, int)
    assert all(len(each) <= 100 for each in held.lost)
    assert len(held.lost) <= 100


@pytest.mark.parametrize("seed", corpus("channel"))
def test_each_seed_is_understood_or_refused(seed: bytes) -> None:
    list(received([seed]))


def test_a_message_of_many_pieces_is_refused_once_it_is_too_long() -> None:
    pieces = [b"7 1 " + b"x" * 30_000] * 4
    with pytest.raises(BrokenProtocol):
        list(received(pieces, swallow=False))


def received(pieces: list[bytes], *, swallow: bool = True) -> list[dict[str, Any]]:
    """Send the pieces to a channel and return the messages that it understood before it refused one."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    understood: list[dict[str, Any]] = []
    with near, far:
        near.setblocking(False)
        channel = Channel(near, MOST_BYTES)
        try:
            for piece in pieces:
                far.send(piece)
                while message := channel.receive():
                    understood.append(message)
        except BrokenProtocol:
            if not swallow:
                raise
    return understood
