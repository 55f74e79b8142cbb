"""What listens on this machine is asked for its models, and cannot hold up who asks."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from fumehood.llm.local_servers import LOCAL_SERVERS, listed, listens, url
from fumehood.models.launching import ENGINES
from tests.testing.chat_servers import ChatServer

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n"


def test_a_servers_models_come_in_its_order() -> None:
    with ChatServer() as server:
        assert listed(server.port) == ["first-model", "second"]
        assert listens(server.port)
    assert listed(server.port) == []
    assert not listens(server.port)


@pytest.mark.parametrize("before", [_HEAD, _HEAD + b"\r\n"], ids=["headers", "body"])
def test_one_that_sends_byte_by_byte_is_given_a_second(before: bytes) -> None:
    over = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(before)
            try:
                while not over.wait(0.1):
                    connection.sendall(b"a")
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        assert listed(listener.getsockname()[1]) == []
        assert time.monotonic() - begun < 3
        over.set()
        thread.join()


ODD = {
    "no_list": b'{"data": 1}',
    "null": b'{"data": null}',
    "no_objects": b'{"data": [1]}',
    "deep": b"[" * 100_000,
    "no_json": b"<html>",
    "no_text": b"\xff\xfe",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD.keys())
def test_what_is_no_list_of_models_is_none(body: bytes) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        assert listed(listener.getsockname()[1]) == []
        thread.join()


def test_every_engine_has_a_port_and_an_address() -> None:
    assert sorted(LOCAL_SERVERS) == sorted(ENGINES)
    assert (url("0.0.0.0", 1), url("::", 1), url("::1", 1)) == (
        "http://127.0.0.1:1/v1", "http://[::1]:1/v1", "http://[::1]:1/v1",
    )  # fmt: skip
