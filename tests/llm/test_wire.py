"""How a question is asked and what ends it: busy servers, stalls, broken lines, bounds, redirections, keys."""

from __future__ import annotations

import gzip
import itertools
import socket
import threading
import time
import tracemalloc
import zlib
from email.utils import formatdate
from typing import Any

import pytest

from fumehood.errors import ConfigurationError, ModelBusy, ModelMisbehaved, ModelRefused, ModelStalled, ModelUnreachable
from fumehood.llm.openai_compatible import OpenAICompatible
from fumehood.llm.patience import LONGEST_SECONDS, retry_after_seconds
from fumehood.llm.port import Quirk, UserMessage
from tests.llm.quirky_server import EVENTS, QUESTION, QuirkyServer, Reply, ask, piece, stream
from tests.testing.raw_server import whole

STREAMED, WHOLE = True, False
OK = Reply(body=whole({"content": "ok"}))


@pytest.fixture(params=["openai", "mistral"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Retry-After


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("streamed", [STREAMED, WHOLE], ids=["streamed", "whole"])
def test_a_server_that_asks_for_time_is_asked_again(kind: str, streamed: bool, status: int) -> None:
    later = Reply(body=b"{}", status=status, headers=(("Retry-After", "0.2"),))
    last = Reply(body=stream(piece(content="ok"), piece("stop")), kind=EVENTS) if streamed else OK
    with QuirkyServer(later, later, last) as server:
        completion, heard = ask(kind, server, streamed=streamed)
    assert completion.text == "ok"
    assert heard == (["ok"] if streamed else [])
    assert completion.quirks == (Quirk.ASKED_TO_WAIT, Quirk.ASKED_TO_WAIT)
    assert all(after - before >= 0.2 for before, after in zip(server.times, server.times[1:], strict=False))
    assert server.requests[0] == server.requests[2]


def test_waiting_ends_after_three_times(kind: str) -> None:
    later = Reply(body=b"{}", status=429, headers=(("Retry-After", "0"),))
    with QuirkyServer(later, later, later, later, OK) as server:
        with pytest.raises(ModelBusy, match="answered 429"):
            ask(kind, server)
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "after"), [(429, str(LONGEST_SECONDS + 1)), (429, "soon"), (429, "nan"), (500, "0"), (400, "0")]
)
def test_what_asks_for_too_much_or_not_in_earnest_is_refused_at_once(kind: str, status: int, after: str) -> None:
    with QuirkyServer(Reply(body=b"{}", status=status, headers=(("Retry-After", after),)), OK) as server:
        with pytest.raises(ModelRefused, match=f"answered {status}") as caught:
            ask(kind, server)
        assert len(server.requests) == 1
    assert ("come back in 61 seconds" in str(caught.value)) == (after == "61.0")
    assert getattr(caught.value, "retry_after_seconds", None) == (61 if after == "61.0" else None)


def test_a_date_and_a_time_that_is_past_are_understood() -> None:
    assert 28 <= (retry_after_seconds(429, {"retry-after": formatdate(time.time() + 30, usegmt=True)}) or 0) <= 31
    assert retry_after_seconds(503, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after_seconds(503, {"retry-after": "-5"}) == 0


# Stalls and broken lines


DRIPS = {
    "comments": b": keep-alive\n\n",
    "half_an_event": b"data: {",
    "empty_pieces": stream(piece(role="assistant", content=""), done=False),
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS.keys())
def test_a_stream_that_is_kept_open_with_nothing_is_given_up(kind: str, drip: bytes) -> None:
    reply = Reply(body=stream(piece(content="Hel"), done=False), kind=EVENTS, drip=drip)
    with (
        QuirkyServer(reply) as server,
        pytest.raises(ModelStalled, match=r"stalled.*nothing new came in 0\.5 seconds"),
    ):
        ask(kind, server, streamed=True, seconds=0.5)


def test_a_stream_that_falls_silent_is_given_up(kind: str) -> None:
    reply = Reply(body=stream(piece(content="Hel"), done=False), kind=EVENTS, silent=True)
    with QuirkyServer(reply) as server, pytest.raises(ModelStalled, match="stalled"):
        ask(kind, server, streamed=True, seconds=0.3)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;"],
    ids=["head", "chunks_line"],
)
def test_bytes_that_are_no_part_of_an_answer_do_not_keep_it_open(head: bytes) -> None:
    def drip() -> None:
        connection, _address = listener.accept()
        with connection:
            connection.recv(65536)
            try:
                for byte in itertools.chain(head, itertools.repeat(ord("a"), 200)):
                    connection.sendall(bytes([byte]))
                    time.sleep(0.02)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        begun = time.monotonic()
        with pytest.raises(ModelUnreachable, match=r"did not answer in 0\.5 seconds"):
            OpenAICompatible("m", base_url=url, timeout_seconds=0.5).complete(QUESTION)
        assert time.monotonic() - begun < 3
        thread.join()


def test_a_listener_that_takes_its_time_ends_no_answer() -> None:
    reply = Reply(body=stream(piece(content="a"), piece(content="b"), piece("stop")), kind=EVENTS)
    with QuirkyServer(reply) as server:
        model = OpenAICompatible("m", base_url=f"{server.url}/v1", timeout_seconds=0.3)
        assert model.complete(QUESTION, on_text=lambda _piece: time.sleep(0.5)).text == "ab"


def test_a_whole_answer_that_drips_blanks_is_given_up(kind: str) -> None:
    with QuirkyServer(Reply(drip=b" ")) as server, pytest.raises(ModelUnreachable, match="did not answer"):
        ask(kind, server, seconds=0.5)


def test_thoughts_are_something_new() -> None:
    # It thinks for longer than may pass without anything new.
    reply = Reply(kind=EVENTS, drip=stream(piece(content="", reasoning_content="hm"), done=False), drip_seconds=1.5)
    with QuirkyServer(reply) as server, pytest.raises(ModelMisbehaved, match="no finish reason"):
        ask("openai", server, streamed=True, seconds=0.5)
    assert time.monotonic() - server.times[0] > 1.4


@pytest.mark.parametrize("end", [{"broken": True}, {"silent": True}], ids=["breaks", "falls_silent"])
def test_a_line_that_fails_after_the_finish_reason_has_brought_the_answer(kind: str, end: dict[str, Any]) -> None:
    reply = Reply(body=stream(piece(content="hi"), piece("stop"), done=False), kind=EVENTS, **end)
    with QuirkyServer(reply) as server:
        completion, _heard = ask(kind, server, streamed=True, seconds=0.5)
    assert (completion.text, completion.finish_reason) == ("hi", "stop")
    assert completion.quirks == (Quirk.BROKE_OFF_AT_ITS_END,)


def test_a_line_that_breaks_before_it_has_brought_none(kind: str) -> None:
    reply = Reply(body=stream(piece(content="hi"), done=False), kind=EVENTS, broken=True)
    with QuirkyServer(reply) as server, pytest.raises(ModelUnreachable, match="broke off"):
        ask(kind, server, streamed=True)


def test_a_well_behaved_stream_without_its_end_mark_is_whole(kind: str) -> None:
    with QuirkyServer(Reply(body=stream(piece(content="hi"), piece("stop"), done=False), kind=EVENTS)) as server:
        completion, _heard = ask(kind, server, streamed=True)
    assert (completion.text, completion.notes) == ("hi", ())


def test_a_line_that_stays_open_after_the_end_holds_nobody_up(kind: str) -> None:
    ends = stream(piece(content="hi"), piece("stop")), stream(piece(content="hi"), piece("stop"), None, done=False)
    for body in ends:
        with QuirkyServer(Reply(body=body, kind=EVENTS, silent=True)) as server:
            begun = time.monotonic()
            assert ask(kind, server, streamed=True, seconds=20)[0].notes == ()
            assert time.monotonic() - begun < 10


# Bounds, redirections, keys, listeners


def test_an_answer_without_an_end_is_given_up(kind: str) -> None:
    reply = Reply(kind=EVENTS, drip=stream(piece(content="x" * (8 << 20)), done=False))
    with QuirkyServer(reply) as server, pytest.raises(ModelMisbehaved, match="more than 64 MiB"):
        ask(kind, server, streamed=True)


def test_an_answer_that_comes_compressed_is_read(kind: str) -> None:
    packed = Reply(body=gzip.compress(OK.body), headers=(("content-encoding", "gzip"),))
    with QuirkyServer(packed) as server:
        assert ask(kind, server)[0].text == "ok"
    broken = Reply(body=b"not gzip", headers=(("content-encoding", "gzip"),))
    with QuirkyServer(broken) as server, pytest.raises(ModelUnreachable):
        ask(kind, server)


def test_a_bomb_of_two_layers_is_not_unpacked(kind: str) -> None:
    layers = (("content-encoding", "gzip, gzip"),)
    with (
        QuirkyServer(Reply(body=gzip.compress(OK.body), headers=layers)) as server,
        pytest.raises(ModelMisbehaved, match="compressed by 'gzip, gzip', though a plain one was asked for"),
    ):
        ask(kind, server)


def test_a_bomb_of_one_layer_takes_little_memory(kind: str) -> None:
    packer = zlib.compressobj(wbits=31)
    blanks = b" " * (1 << 20)
    bomb = b"".join([*(packer.compress(blanks) for _time in range(80)), packer.flush()])
    with QuirkyServer(Reply(body=bomb, headers=(("content-encoding", "gzip"),))) as server:
        tracemalloc.start()
        try:
            with pytest.raises(ModelMisbehaved, match="more than 64 MiB"):
                ask(kind, server)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_what_is_compressed_is_read_in_pieces_and_to_its_end(kind: str) -> None:
    body = whole({"content": "ab" * 500_000})
    with QuirkyServer(Reply(body=gzip.compress(body), headers=(("content-encoding", "gzip"),))) as server:
        assert ask(kind, server)[0].text == "ab" * 500_000
    short = Reply(body=gzip.compress(body)[:-20], headers=(("content-encoding", "gzip"),))
    with QuirkyServer(short) as server, pytest.raises(ModelUnreachable, match="no end"):
        ask(kind, server)


def test_a_redirection_that_keeps_the_question_is_followed_on_the_same_server(kind: str) -> None:
    with QuirkyServer(Reply(status=307, headers=(("location", "/v2/chat/completions"),)), OK) as server:
        assert ask(kind, server)[0].text == "ok"
    assert len(server.requests) == 2
    assert server.requests[0] == server.requests[1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirection_leads_a_conversation_to_another_server(kind: str, status: int) -> None:
    with QuirkyServer(OK) as second:
        path = f"{second.url}/v1/chat/completions"
        with (
            QuirkyServer(Reply(status=status, headers=(("location", path),))) as first,
            pytest.raises(ModelRefused, match=f"answered {status} and points to {path}, to which nothing was sent"),
        ):
            ask(kind, first)
    assert second.requests == []


def test_a_redirection_without_an_end_is_said(kind: str) -> None:
    again = Reply(status=307, headers=(("location", "/v1/chat/completions"),))
    with QuirkyServer(*[again] * 30) as server, pytest.raises(ModelUnreachable, match="redirects"):
        ask(kind, server)


@pytest.mark.parametrize("key", ["sk-é", "sk-a\nX-Evil: 1"])
def test_a_key_that_no_header_takes_is_the_users_mistake(key: str) -> None:
    with QuirkyServer(OK) as server:
        model = OpenAICompatible("m", base_url=f"{server.url}/v1", key=key)
        with pytest.raises(ConfigurationError, match="copy it anew") as caught:
            model.complete(QUESTION)
    assert key not in str(caught.value)
    assert server.requests == []


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(ModelUnreachable):
        OpenAICompatible("m", base_url="http://127.0.0.1:99999/v1").complete(QUESTION)


def test_half_a_character_in_the_question_does_not_keep_it_from_being_asked(kind: str) -> None:
    with QuirkyServer(OK) as server:
        ask(kind, server, messages=[UserMessage(text="a\ud800b")])
    assert server.requests[0]["messages"][0]["content"] == "a\ufffdb"


def test_a_listeners_own_error_is_not_taken_for_the_servers(kind: str) -> None:
    def listen(_piece: str) -> None:
        raise ValueError("a fault of the listener's")

    reply = Reply(body=stream(piece(content="hi"), piece("stop")), kind=EVENTS)
    with QuirkyServer(reply) as server, pytest.raises(ValueError, match="of the listener's"):
        OpenAICompatible("m", base_url=f"{server.url}/v1").complete(QUESTION, on_text=listen)
