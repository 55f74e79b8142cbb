"""What the wire keeps, and what a hostile server cannot do with it."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.conformance.check import Outcome
from fumehood.conformance.checks import CHECKS, chosen
from fumehood.conformance.readiness import lacks
from fumehood.conformance.reading import answer
from fumehood.conformance.running import run
from fumehood.conformance.talk import CHAT, retry_after
from fumehood.conformance.verdicts import Failed
from fumehood.conformance.wire import (
    MAX_ANSWER_BYTES,
    MAX_EVENTS,
    MAX_RUN_BYTES,
    Exchange,
    Wire,
    events,
    strict_json,
)
from fumehood.errors import ConfigurationError, ModelRefused, ModelUnreachable
from tests.testing.raw_server import RawServer

from .scripted_server import MODEL, QuietServer, ScriptedServer, send_bytes

REQUEST = {"model": MODEL, "messages": [{"role": "user", "content": "a"}]}


def test_a_connection_that_the_server_ends_between_two_requests_is_no_fault_of_its() -> None:
    asked: set[socket.socket] = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Keep the tests' output clean."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if self.connection in asked:
                # As one that is closed for idleness while the request is on its way.
                self.close_connection = True
                return
            asked.add(self.connection)
            send_bytes(self, 200, b"{}", "application/json")

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            with Wire(f"http://127.0.0.1:{server.server_address[1]}/v1") as wire:
                assert [wire.post(CHAT, REQUEST).status for _request in range(3)] == [200] * 3
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: 1\n\ndata: 2\n\n", [("1", ""), ("2", "")]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [("1", ""), ("2", "")]),
        (b"data: 1\r\rdata: 2\r\r", [("1", ""), ("2", "")]),
        (b": wait\n\ndata: 1\n\n", [("1", "")]),
        (b"event: error\nid: 7\ndata:1\n\n", [("1", "")]),
        (b"data: [1,\ndata: 2]\n\n", [("[1,\n2]", "")]),
        (b"data: 1", [("1", "")]),
        (b"data: [DONE]\n\n", [("[DONE]", "")]),
        (b"data: {\n\n", [("{", "is not JSON")]),
        (b"data: " + b"[" * 100_000 + b"\n\n", [("[" * 100_000, "is not JSON")]),
        (b'data: "\xe6\x9d"\n\n', [('"\\xe6\\x9d"', "is not UTF-8: invalid continuation byte")]),
    ],
    ids=[
        "lf",
        "crlf",
        "cr",
        "comment",
        "other-fields",
        "two-lines",
        "no-end",
        "done",
        "no-json",
        "deep",
        "half-a-char",
    ],
)
def test_events_are_split_as_the_standard_says(body: bytes, expected: list[tuple[str, str]]) -> None:
    assert [(event.data, event.problem) for event in events(body)] == expected


@given(st.binary(max_size=200))
def test_no_bytes_break_the_splitting_of_events(body: bytes) -> None:
    assert all(event.data is not None for event in events(body))


def test_a_stream_keeps_its_bytes_and_when_the_first_came() -> None:
    with ScriptedServer() as server, Wire(server.url) as wire:
        exchange = wire.post(CHAT, {**REQUEST, "stream": True})
    assert exchange.body.endswith(b"data: [DONE]\n\n")
    assert exchange.first_byte_seconds is not None
    assert 0 < exchange.first_byte_seconds <= exchange.seconds
    assert answer(exchange).way == "streamed"


def test_the_key_is_sent_and_stands_in_no_record() -> None:
    key = "sk-0123456789abcdef"
    body = json.dumps({"error": {"message": f"Incorrect API key: {key}"}}).encode()
    with ScriptedServer() as server, Wire(server.url, key=key) as wire:
        wire.post(CHAT, REQUEST)
        assert server.keys == {f"Bearer {key}"}
    with RawServer(body, status=401) as raw, Wire(raw.url, key=key) as wire:
        exchange = wire.post(CHAT, REQUEST)
    assert key not in exchange.text
    assert "Incorrect API key: [key]" in exchange.text


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://a/v1", "http://", "http://me:word@a/v1", "http://a/v1?b", "http://a:99999999/v1"],
)
def test_what_is_no_base_url_is_said_so(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no base URL"), Wire(url) as wire:
        wire.get("/models")


def test_a_key_that_no_header_can_carry_is_said_so() -> None:
    with pytest.raises(ConfigurationError, match="no HTTP header"):
        Wire("http://127.0.0.1:1/v1", key="a\nb")


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_said_so(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="no time to wait"):
        Wire("http://127.0.0.1:1/v1", timeout_seconds=seconds)


def test_no_server_is_one_error_and_not_fifty_failures() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Wire(f"http://127.0.0.1:{port}/v1") as wire, pytest.raises(ModelUnreachable, match="cannot be reached"):
        list(run(wire, MODEL, CHECKS))


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_taken_is_one_error_which_does_not_show_it(status: int) -> None:
    key = "sk-01/23456789abcdef"
    said = json.dumps({"message": f"not known: {key}"}).replace("/", "\\/").encode()
    with RawServer(said, status=status) as raw, Wire(raw.url, key=key) as wire, pytest.raises(ModelRefused) as caught:
        list(run(wire, MODEL, CHECKS))
    assert "--key-env" in str(caught.value)
    assert "23456789" not in str(caught.value)


def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else() -> None:
    key = "sk-0123456789abcdef"
    with ScriptedServer() as other, ScriptedServer(redirect=other.url) as server, Wire(server.url, key=key) as wire:
        exchange = wire.post(CHAT, REQUEST)
        assert (exchange.status, exchange.headers["location"]) == (307, other.url + CHAT)
        assert server.keys == {f"Bearer {key}"}
        assert other.keys == set()


def test_a_limit_of_requests_is_waited_for() -> None:
    with ScriptedServer(at_most_each_second=20) as server, Wire(server.url) as wire:
        results = {result.check.id: result.outcome for result in run(wire, MODEL, chosen(["H", "P8"]))}
    assert server.refused > 0
    assert set(results.values()) == {Outcome.PASS}


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("7", 7, 7), ("0", 0, 0), ("Fri, 13 Mar 2020 00:00:00 GMT", 0, 0), ("Fri, 13 Mar 2099 00:00:00 GMT", 1e8, 1e10)],
    ids=["seconds", "none", "past", "future"],
)
def test_retry_after_is_a_number_or_a_date(text: str, low: float, high: float) -> None:
    seconds = retry_after(answered(text))
    assert seconds is not None
    assert low <= seconds <= high


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "9" * 400, "٣"])
def test_what_is_no_retry_after_is_none(text: str) -> None:
    assert retry_after(answered(text)) is None


def answered(after: str) -> Exchange:
    """Return a refusal with this Retry-After."""
    return Exchange(
        method="POST", path=CHAT, request={}, streamed=False, status=429, headers={"retry-after": after}, body=b"",
        first_byte_seconds=None, seconds=0.1,
    )  # fmt: skip


@pytest.mark.parametrize("text", ['{"a": NaN}', "Infinity", "[-Infinity]", "[" * 100_000, "{'a': 1}", ""])
def test_what_rfc_8259_does_not_know_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict_json(text)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'data: {"error": {"message": "out of memory"}}\n\n', "the stream carries an error"),
        (b'data: {"object": "error", "message": "out of memory", "code": "3505"}\n\n', "the stream carries an error"),
        (b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "error"}]}\n\n', "ends in an error"),
    ],
    ids=["openai", "mistral", "mistral-reason"],
)
def test_an_error_in_a_stream_is_no_answer(body: bytes, why: str) -> None:
    with (
        RawServer(body, kind="text/event-stream") as server,
        Wire(server.url) as wire,
        pytest.raises(Failed, match=why),
    ):
        answer(wire.post(CHAT, {**REQUEST, "stream": True}))


def dripping(listener: socket.socket, head: bytes) -> None:
    """Answer one request with a head that never ends, a byte at a time."""
    connection, _address = listener.accept()
    with connection:
        connection.recv(65536)
        try:
            for byte in itertools.chain(head, itertools.repeat(ord("a"))):
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            return


def test_headers_that_never_end_are_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=dripping, args=(listener, b"HTTP/1.1 200 OK\r\nx: "))
        thread.start()
        begun = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Wire(url, timeout_seconds=0.5) as wire, pytest.raises(ModelUnreachable, match="no answer in 0.5"):
            wire.post(CHAT, REQUEST)
        assert time.monotonic() - begun < 3
        thread.join()


def test_a_run_keeps_no_more_than_its_share_of_what_a_server_sends() -> None:
    body = b"a" * (MAX_ANSWER_BYTES - 1)
    with RawServer(body) as server, Wire(server.url) as wire:
        kept = [wire.post(CHAT, REQUEST) for _time in range(MAX_RUN_BYTES // MAX_ANSWER_BYTES + 3)]
    assert sum(len(exchange.body) for exchange in kept) < MAX_RUN_BYTES + MAX_ANSWER_BYTES
    assert "all answers together" in kept[-1].broken


def test_a_stream_of_events_without_end_is_read_to_its_limit() -> None:
    found = events(b"data:1\n\n" * (MAX_EVENTS + 5))
    assert len(found) == MAX_EVENTS + 1
    assert "no more are read" in found[-1].problem


def test_a_body_in_pieces_of_one_byte_takes_little_memory() -> None:
    def give() -> None:
        connection, _address = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            connection.sendall(b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n")
            while connection.recv(65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=give)
        thread.start()
        with Wire(f"http://127.0.0.1:{listener.getsockname()[1]}") as wire:
            tracemalloc.start()
            try:
                exchange = wire.post(CHAT, REQUEST)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        thread.join()
    assert exchange.body == b"a" * 30_000
    assert peak < 1 << 20


def test_no_proxy_is_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer() as proxy, ScriptedServer() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with Wire(server.url, key="sk-0123456789abcdef") as wire:
            assert wire.post(CHAT, REQUEST).status == 200
        assert server.keys == {"Bearer sk-0123456789abcdef"}
        assert proxy.keys == set()


def endless(listener: socket.socket, piece: bytes, pause: float) -> None:
    """Answer one request without end."""
    connection, _address = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        try:
            while True:
                connection.sendall(piece)
                time.sleep(pause)
        except OSError:
            return


@pytest.mark.parametrize(
    ("piece", "pause", "seconds", "why"),
    [(b"a" * 65536, 0.0, 30.0, f"longer than {MAX_ANSWER_BYTES}"), (b"a", 0.05, 0.5, "not at its end after 0.5")],
    ids=["fast", "slow"],
)
def test_an_endless_answer_ends(piece: bytes, pause: float, seconds: float, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=endless, args=(listener, piece, pause))
        thread.start()
        with Wire(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=seconds) as wire:
            exchange = wire.post(CHAT, REQUEST)
        thread.join()
    assert why in exchange.broken
    with pytest.raises(Failed, match="the answer is cut"):
        answer(exchange)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["silent", "without_an_end"])
def test_a_server_that_hangs_is_not_asked_on_and_on(head: bytes) -> None:
    with HangingServer(head, after=2) as server, Wire(server.url, timeout_seconds=0.3) as wire:
        begun = time.monotonic()
        results = list(run(wire, MODEL, chosen(["H", "C"])))
        assert time.monotonic() - begun < 6
    outcomes = [result.outcome for result in results]
    assert len(outcomes) > 15
    assert outcomes[:3] == [Outcome.FAIL] * 3
    assert set(outcomes[3:]) == {Outcome.SKIPPED}
    assert "in the 3 checks before: the rest is not asked" in results[-1].seen


class HangingServer(QuietServer):
    """Answers some requests, and then with the beginning of an answer at most, while its `with` lasts."""

    def __init__(self, head: bytes, *, after: int) -> None:
        ended = self._ended = threading.Event()
        answered = itertools.count()
        body = json.dumps({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                """Keep the tests' output clean."""

            def do_GET(self) -> None:
                if next(answered) < after:
                    send_bytes(self, 200, body, "application/json")
                    return
                self.wfile.write(head)
                self.wfile.flush()
                ended.wait(30)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"choices": null}',
    b'{"choices": [1]}',
    b'{"choices": [{"message": 1}]}',
    b'{"choices": [{"message": {"content": 7}}]}',
    b'{"choices": [{"message": {"content": [1]}}]}',
    b'{"choices": [{"message": {"tool_calls": 7}}]}',
    b'{"choices": [{"message": {"tool_calls": {"a": 1}}}]}',
    b'{"choices": [{"message": {"tool_calls": [7]}}]}',
    b'{"choices": [{"message": {"tool_calls": [{"function": 7}]}}]}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 10_000,
    b'data: {"choices": [{"delta": 7}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": 7}}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [{"index": {}, "function": 7}]}}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [{"index": [], "function": {"name": 7, "arguments": {}}}]}}]}\n\n',
    b'data: {"error": "out of memory"}\n\n',
    b"data: 7\n\ndata: [DONE]\n\ndata: [DONE]\n\n",
]

#: Answers, of which some fields are not what they should be.
ODD = [
    b'{"choices": [{"message": {"content": "\\ud83e", "tool_calls": [{"id": "\\ud83e", "function": {"name": "\\ud83e"}}]}}]}',
    b'{"choices": [{"message": {"tool_calls": [{"id": [], "function": {"name": {}, "arguments": []}}]}, "finish_reason": {}}]}',
    b'{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "4", "completion_tokens": true}}',
    b'{"choices": [{"message": {"content": "a"}}], "usage": 7}',
]


class Parrot(QuietServer):
    """Answers everything with one status and body."""

    def __init__(self, status: int, body: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16

            def log_message(self, *_arguments: object) -> None:
                """Keep the tests' output clean."""

            def do_GET(self) -> None:
                send_bytes(self, status, body, "application/json")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                send_bytes(self, status, body, "application/json")

        super().__init__(("127.0.0.1", 0), Handler)


def outcomes(body: bytes, status: int) -> dict[str, Outcome]:
    """Return what comes of every check before a server that answers each request with this."""
    with Parrot(status, body) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with Wire(f"http://127.0.0.1:{server.server_address[1]}/v1") as wire:
                return {result.check.id: result.outcome for result in run(wire, MODEL, CHECKS)}
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_answer_passes_no_check_and_breaks_none(body: bytes, status: int) -> None:
    told = outcomes(body, status)
    assert len(told) == len(CHECKS)
    assert Outcome.PASS not in told.values()


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_odd_fields_break_no_check_and_are_not_taken_for_numbers(body: bytes) -> None:
    told = outcomes(body, 200)
    assert len(told) == len(CHECKS)
    assert {told[id_] for id_ in ("P2", "P3", "P8", "P9", "P10", "P12", "H7")} <= {Outcome.SKIPPED, Outcome.FAIL}


def test_a_server_that_ends_kept_connections_is_not_blamed_for_it() -> None:
    connections: list[object] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: object) -> None:
            """Keep the tests' output clean."""

        def do_POST(self) -> None:
            connections.append(self.client_address)
            self.rfile.read(int(self.headers["content-length"]))
            send_bytes(self, 200, b"{}", "application/json")

    server = QuietServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    with Wire(f"http://127.0.0.1:{server.server_address[1]}/v1") as wire:
        for _ in range(3):
            assert wire.post(CHAT, REQUEST).status == 200
    server.shutdown()
    thread.join()
    server.server_close()
    # Each question by its own: one that the server might have ended meanwhile is never used.
    assert len(set(connections)) == 3


@pytest.mark.parametrize(
    ("names", "missing"),
    [(["m"], ""), (["m:latest"], ""), (["n", "m2"], "it lists 'n, m2'"), ([], "it lists no model yet")],
    ids=["name", "newest", "others", "none"],
)
def test_a_server_has_a_model_once_it_lists_it(names: list[str], missing: str) -> None:
    body = json.dumps({"data": [{"id": name} for name in names]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            """Keep the tests' output clean."""

        def do_GET(self) -> None:
            send_bytes(self, 200, body, "application/json")

    server = QuietServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    with Wire(f"http://127.0.0.1:{server.server_address[1]}/v1") as wire:
        assert lacks(wire, "m") == missing
    server.shutdown()
    thread.join()
    server.server_close()
