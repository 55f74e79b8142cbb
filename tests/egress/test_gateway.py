"""The gateway leads to named places and nowhere else, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from fumehood.egress.gateway import Gateway, Place

CONNECT = "CONNECT {0}:{1} HTTP/1.1\r\nHost: {0}:{1}\r\n\r\n"


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _place(listener: socket.socket) -> Place:
    host, port = listener.getsockname()[:2]
    return host, port


@contextmanager
def _serving(answer: Callable[[bytes], bytes]) -> Iterator[tuple[Place, list[bytes]]]:
    """Give a server that answers each first piece of a connection, and what it heard."""
    heard: list[bytes] = []
    with _listener() as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _address = listener.accept()
                except OSError:
                    return
                with peer:
                    heard.append(peer.recv(65536))
                    peer.sendall(answer(heard[-1]))
                    while b"Connection: close" not in heard[-1] and (piece := peer.recv(65536)):
                        heard.append(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield _place(listener), heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def _gateway(*allowed: Place) -> Iterator[tuple[Gateway, Place]]:
    listener = _listener()
    place = _place(listener)
    with Gateway(allowed) as gateway:
        gateway.serve(listener.detach())
        yield gateway, place


def _exchange(place: Place, *words: str) -> bytes:
    """Say each piece when the one before was answered; return all answers."""
    heard = b""
    with closing(socket.create_connection(place, 10)) as sock:
        for each in words:
            sock.sendall(each.encode("latin-1"))
            heard += sock.recv(65536)
        sock.shutdown(socket.SHUT_WR)
        while piece := sock.recv(65536):
            heard += piece
    return heard


def test_a_tunnel_carries_bytes_both_ways_to_an_allowed_place() -> None:
    with _serving(lambda words: b"you said " + words) as (place, heard), _gateway(place) as (gateway, door):
        answer = _exchange(door, CONNECT.format(*place), "hello")
    assert answer.endswith(b"\r\n\r\nyou said hello")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert heard == [b"hello"]
    assert gateway.refused == ()


def test_what_comes_right_behind_a_request_is_carried_too() -> None:
    with _serving(lambda words: words.upper()) as (place, _heard), _gateway(place) as (_it, door):
        assert _exchange(door, CONNECT.format(*place) + "hello").endswith(b"HELLO")


def test_another_place_is_refused_and_remembered_and_hears_nothing() -> None:
    with _serving(lambda words: words) as (place, heard), _gateway(("127.0.0.1", 1)) as (gateway, door):
        assert _exchange(door, CONNECT.format(*place)).startswith(b"HTTP/1.1 403 ")
        assert _exchange(door, CONNECT.format("localhost", place[1])).startswith(b"HTTP/1.1 403 ")
        assert _exchange(door, f"GET http://127.0.0.1:{place[1]}/ HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        assert gateway.refused == (place, ("localhost", place[1]))
    assert heard == []


def test_a_name_is_the_same_in_any_case() -> None:
    with _serving(lambda words: words) as (place, _heard), _gateway(("localhost", place[1])) as (_it, door):
        assert _exchange(door, CONNECT.format("LocalHost", place[1]), "a").endswith(b"\r\n\r\na")


def test_a_plain_request_is_passed_on_without_what_is_not_its_own() -> None:
    answered = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with _serving(lambda _words: answered) as (place, heard), _gateway(place) as (_it, door):
        request = (
            "GET http://{}:{}/simple/?a=b HTTP/1.1\r\nHost: elsewhere.example\r\nAccept: text/html\r\n"
            "Proxy-Authorization: Basic eA==\r\nConnection: keep-alive\r\nUpgrade: h2c\r\n\r\n"
        ).format(*place)
        assert _exchange(door, request).endswith(b"ok")
    host = f"Host: {place[0]}:{place[1]}".encode()
    assert heard == [b"GET /simple/?a=b HTTP/1.1\r\n" + host + b"\r\nConnection: close\r\nAccept: text/html\r\n\r\n"]


def test_a_second_request_on_the_same_connection_is_not_passed_on() -> None:
    with (
        _serving(lambda _words: b"one") as (place, heard), _gateway(place) as (_it, door),
        closing(socket.create_connection(door, 10)) as sock,
    ):  # fmt: skip
        sock.sendall("GET http://{}:{}/1 HTTP/1.1\r\n\r\n".format(*place).encode())
        assert sock.recv(100) == b"one"
        sock.sendall(b"GET /2 HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n")
    assert [words.split()[1] for words in heard] == [b"/1"]


@pytest.mark.parametrize(
    "request_line",
    [
        "CONNECT {0}:{1}@evil.example:443 HTTP/1.1",
        "CONNECT {0}:{1} HTTP/1.1 ",
        "CONNECT {0}:{1}\tHTTP/1.1",
        "CONNECT  {0}:{1} HTTP/1.1",
        "CONNECT {0} HTTP/1.1",
        "CONNECT {0}:{1} HTTP/1.0",
        "CONNECT {0}\0:{1} HTTP/1.1",
        "POST http://{0}:{1}/ HTTP/1.1",
        "GET http://user@{0}:{1}/ HTTP/1.1",
        "GET http://{0}:{1} HTTP/1.1",
        "GET http://{0}:{1}/a b HTTP/1.1",
        "GET ftp://{0}:{1}/ HTTP/1.1",
        "GET / HTTP/1.1",
        # A server that takes a bare line feed or carriage return for the end of a line would hear another host, or a cookie.
        "GET http://{0}:{1}/ HTTP/1.1\r\nAccept: x\nHost: elsewhere.example",
        "GET http://{0}:{1}/ HTTP/1.1\r\nAccept: x\rCookie: y",
        "GET http://{0}:{1}/ HTTP/1.1\r\nAccept: x\0y",
        "",
    ],
)
def test_what_is_not_a_plain_request_for_a_place_is_answered_with_400(request_line: str) -> None:
    with _serving(lambda words: words) as (place, heard), _gateway(place) as (_it, door):
        answer = _exchange(door, request_line.format(*place) + f"\r\nHost: {place[0]}\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert heard == []


def test_a_place_that_does_not_answer_is_told() -> None:
    with _listener() as listener:
        place = _place(listener)
    with _gateway(place) as (_it, door):
        assert b"502 Bad Gateway" in _exchange(door, CONNECT.format(*place))


def test_the_machines_own_proxy_is_used_and_told_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with _serving(lambda _words: b"HTTP/1.1 200 fine\r\n\r\n") as (proxy, heard):
        monkeypatch.setenv("https_proxy", f"http://me:a%20b@{proxy[0]}:{proxy[1]}")
        with _gateway(("index.example", 443)) as (_it, door):
            answer = _exchange(door, CONNECT.format("index.example", 443) + "x")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert heard[0].startswith(b"CONNECT index.example:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6YSBi\r\n" in heard[0]  # me:a b
    assert heard[1:] == [b"x"]


def test_a_proxy_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    with _serving(lambda _words: b"HTTP/1.1 407 Say who you are\r\n\r\n") as (proxy, _heard):
        monkeypatch.setenv("https_proxy", f"http://{proxy[0]}:{proxy[1]}")
        with _gateway(("index.example", 443)) as (_it, door):
            answer = _exchange(door, CONNECT.format("index.example", 443))
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"407 Say who you are" in answer


def test_a_closed_gateway_takes_nobody() -> None:
    with _serving(lambda words: words) as (place, _heard):
        with _gateway(place) as (_it, door):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(door, 5)


def test_connections_that_say_nothing_do_not_keep_others_out() -> None:
    with _serving(lambda words: words) as (place, _heard), _gateway(place) as (_it, door):
        silent = [socket.create_connection(door, 10) for _each in range(100)]
        try:
            assert _exchange(door, CONNECT.format(*place), "a").endswith(b"a")
        finally:
            for each in silent:
                each.close()
