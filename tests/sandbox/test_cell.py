"""What a cell has shown, put together."""

from __future__ import annotations

import json
import socket
import time

from fumehood.protocol.session import Cleared, Display, Event, Output
from fumehood.sandbox.cell import Shown
from fumehood.sandbox.channel import Channel, event_of


def shown(*events: Event) -> list[Event]:
    together = Shown()
    for event in events:
        together.add(event)
    return together.all()


def test_pieces_of_one_stream_are_put_together_and_order_is_kept() -> None:
    picture = Display(data={"text/plain": "1"}, metadata={})
    assert shown(
        Output(stream="stdout", text="a"), Output(stream="stdout", text="b"), Output(stream="stderr", text="c"),
        picture, Output(stream="stderr", text="d"), Cleared(),
    ) == [
        Output(stream="stdout", text="ab"), Output(stream="stderr", text="c"), picture, Output(stream="stderr", text="d"),
        Cleared(),
    ]  # fmt: skip


def test_nothing_shown_is_nothing() -> None:
    assert shown() == []


def test_a_million_small_pieces_after_a_long_one_take_no_time_by_the_square() -> None:
    started = time.monotonic()
    (event,) = shown(Output(stream="stdout", text="x" * 8_000_000), *[Output(stream="stdout", text="y")] * 200_000)
    assert isinstance(event, Output)
    assert len(event.text) == 8_200_000
    # By the square it would be 1.6 TB to copy.
    assert time.monotonic() - started < 5


def test_half_a_character_does_not_reach_the_caller() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        message = {"type": "display", "data": {"a\ud800": ["\udcff", {"b": "\ud83d\ude00"}]}, "metadata": {}}
        far.send(b"3 0 " + json.dumps(message).encode())
        received = Channel(near, 1000).receive()
    assert received is not None
    event = event_of(received)
    assert isinstance(event, Display)
    assert event.data == {"a?": ["?", {"b": "\U0001f600"}]}
    json.dumps(event.data, ensure_ascii=False).encode()
