"""Edges of the way out: WebSockets, servers that break off, clients in a hurry, what is no HTTP."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from fumehood import Allow, Bearer, Engine, ExecutionRequest, ExecutionResult, Network
from tests.testing.outside import LOOPBACK, Authority, NameServer

SECRET = "correct-horse-battery-staple"


class TlsServer:
    """Gives each connection, opened by TLS, to a function of a test's."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.attend: Callable[[ssl.SSLSocket, bytes], object] = lambda _sock, _head: None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=600)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            client, _address = self._listener.accept()
            if self.port == 0:
                client.close()
                return
            threading.Thread(target=self._attend, args=(client,), daemon=True).start()

    def _attend(self, client: socket.socket) -> None:
        try:
            with self._context.wrap_socket(client, server_side=True) as opened:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = opened.recv(4096)
                    if not piece:
                        return
                    head += piece
                self.attend(opened, head)
        except OSError:
            pass  # the client broke off, as some of these tests have it

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        port, self.port = self.port, 0
        socket.create_connection(("127.0.0.1", port)).close()
        self._thread.join()
        self._listener.close()


class Outside:
    def __init__(self, server: TlsServer, engine: Engine) -> None:
        self.server, self.engine = server, engine

    def run(self, code: str, *, connections: int = 128, **fields: object) -> ExecutionResult:
        fields = {"credential": Bearer(token=SECRET), **fields}
        rule = Allow(host="good.test", ports=(self.server.port,), addresses=LOOPBACK, **fields)  # type: ignore[arg-type]  # fields by name
        network = Network(allow=[rule], connections=connections)
        return self.engine.execute(
            ExecutionRequest(code=_CONNECT.format(port=self.server.port) + code, network=network)
        )


_CONNECT = """import socket, ssl, sys
PORT = {port}
def connect(secure=True):
    s = socket.create_connection(('good.test', PORT), timeout=10)
    return ssl.create_default_context().wrap_socket(s, server_hostname='good.test') if secure else s
def until(s, end):
    data = b''
    while end not in data:
        piece = s.recv(65536)
        if not piece: break
        data += piece
    return data
"""


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    authority = Authority()
    with (
        authority.trusted(),
        NameServer({"good.test": [["127.0.0.1"]]}) as names,
        TlsServer(authority.context("good.test")) as server,
        Engine(nameserver=names.address) as engine,
    ):
        engine.prepare()
        yield Outside(server, engine)


def upgrade(sock: ssl.SSLSocket, head: bytes) -> None:
    """Accept a WebSocket (RFC 6455, 4.2.2), then send back what comes, and the credential once."""
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    assert lines[b"authorization"] == b"bearer " + SECRET.encode(), lines
    key = next(line.split(b": ", 1)[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - the RFC's
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\nearly "
    )
    while data := sock.recv(4096):
        sock.sendall(data + SECRET.encode())


_UPGRADE = """s = connect()
s.sendall(f'GET /ws HTTP/1.1\\r\\nHost: good.test:{PORT}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n'
          'Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n'.encode())
head = until(s, b'\\r\\n\\r\\n')
print(head.split(b'\\r\\n')[0].decode())
"""


def test_a_websocket_passes_where_its_rule_says_so(outside: Outside) -> None:
    outside.server.attend = upgrade
    code = (
        _UPGRADE
        + "print(b's3pPLMBiTxaQ9kYGzzhZRbK+xOo=' in head)\nearly = head.partition(b'\\r\\n\\r\\n')[2] or s.recv(100)\n"
    )
    code += f"s.sendall(b'\\x81\\x03abc')\nprint(early, until(s, b'abc' + b'*' * {len(SECRET)}))"
    result = outside.run(code, websocket=True)
    assert result.stdout.startswith("HTTP/1.1 101"), (result.stdout, result.stderr)
    stars = "*" * len(SECRET)
    assert result.stdout.split("\n")[1:3] == ["True", f"b'early ' b'\\x81\\x03abc{stars}'"]
    (line,) = result.connections
    assert (line.verdict, line.methods) == ("opened", ("GET",))
    assert line.received_bytes > 100 + len(SECRET)


def test_and_is_refused_where_it_does_not(outside: Outside) -> None:
    outside.server.attend = upgrade
    result = outside.run(_UPGRADE)
    assert result.stdout.startswith("HTTP/1.1 403 Refused by Fumehood: WebSockets to host good.test are not allowed")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"half" * 1_000_000,
    ],
    ids=["length", "chunked", "long"],
)
def test_half_an_answer_is_not_taken_for_a_whole_one(outside: Outside, answer: bytes) -> None:
    outside.server.attend = lambda sock, _head: sock.sendall(answer)
    code = "import requests\ntry: print(len(requests.get(f'https://good.test:{PORT}/').content))\nexcept Exception as e: print(type(e).__name__)"
    result = outside.run(code)
    assert result.stdout in ("ChunkedEncodingError\n", "ConnectionError\n", "ProtocolError\n"), result.stdout
    assert "broke its answer off" in result.connections[0].reason


def test_an_answer_that_ends_with_its_connection_is_passed_whole(outside: Outside) -> None:
    outside.server.attend = lambda sock, _head: sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 300_000)
    code = "import requests; print(len(requests.get(f'https://good.test:{PORT}/').content))"
    assert outside.run(code).stdout == "300000\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
def test_a_server_that_does_not_speak_http_is_a_bad_gateway(outside: Outside, answer: bytes) -> None:
    outside.server.attend = lambda sock, _head: sock.sendall(answer)
    code = "import requests; r = requests.get(f'https://good.test:{PORT}/'); print(r.status_code, r.text)"
    assert outside.run(code).stdout.startswith("502 fumehood: host good.test broke its answer off")


def test_an_early_answer_to_a_long_request_reaches_the_program(outside: Outside) -> None:
    def attend(sock: ssl.SSLSocket, _head: bytes) -> None:
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
        # Else its kernel resets the connection, and the answer may be lost with it.
        while sock.recv(1 << 16):
            pass

    outside.server.attend = attend
    code = """s = connect()
s.sendall(f'POST / HTTP/1.1\\r\\nHost: good.test:{PORT}\\r\\nContent-Length: 50000000\\r\\n\\r\\n'.encode())
try:
    for _ in range(500): s.sendall(bytes(100_000))
except OSError: pass
try: print(until(s, b'no\\n').split(b'\\r\\n')[0].decode())
except OSError as error: print(type(error).__name__)"""
    assert outside.run(code).stdout in ("HTTP/1.1 413 Too Large\n", "ConnectionResetError\n", "BrokenPipeError\n")


def test_requests_in_one_go_are_answered_in_order(outside: Outside) -> None:
    def attend(sock: ssl.SSLSocket, head: bytes) -> None:
        data = head
        while data:
            while b"\r\n\r\n" in data:
                asked, _end, data = data.partition(b"\r\n\r\n")
                body = asked.split()[1] * 100_000
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            data += sock.recv(4096)

    outside.server.attend = attend
    code = """s = connect()
s.sendall(b''.join(f'GET /{n} HTTP/1.1\\r\\nHost: good.test:{PORT}\\r\\n\\r\\n'.encode() for n in range(5)))
data = b''
while len(data) < 5 * 200_000: data += s.recv(65536)
print([data.count(b'/%d/%d' % (n, n)) > 0 and data.index(b'/%d/%d' % (n, n)) // 190_000 for n in range(5)])"""
    assert outside.run(code).stdout == "[0, 1, 2, 3, 4]\n"


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "400"),
        (b"EHLO mail\r\n\r\n", "400"),
        (b"\x00" * 64, "400"),
        (b"GET / HTTP/1.1\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: good.test\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "400"),
        (b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", "400"),
        (
            b"POST / HTTP/1.1\r\nHost: good.test:{}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (b"GET / HTTP/1.1\r\nHost: good.test:{}\r\nX: " + b"y" * 300_000 + b"\r\n\r\n", "431"),
        (b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", "400"),
    ],
    ids=[
        "ssh",
        "smtp",
        "zeros",
        "no-host",
        "two-hosts",
        "other-host",
        "absolute",
        "two-lengths",
        "long-head",
        "connect",
    ],
)
def test_what_is_no_request_for_this_host_goes_nowhere(outside: Outside, what: bytes, says: str) -> None:
    heard: list[bytes] = []
    outside.server.attend = lambda _sock, head: heard.append(head)
    words = what.replace(b"{}", str(outside.server.port).encode())
    code = f"s = connect()\ns.sendall({words!r})\nprint(until(s, b'\\r\\n\\r\\n').split()[1].decode())"
    result = outside.run(code)
    assert result.stdout == f"{says}\n", result.stderr
    assert not heard


@pytest.mark.parametrize("name", ["evil.test", "", "good.test.", "GOOD.test"], ids=["other", "none", "dot", "upper"])
def test_tls_asks_for_the_name_that_was_looked_up(outside: Outside, name: str) -> None:
    outside.server.attend = lambda sock, _head: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    code = f"""c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
try:
    s = c.wrap_socket(connect(False), server_hostname={name!r} or None)
    s.sendall(f'GET / HTTP/1.1\\r\\nHost: good.test:{{PORT}}\\r\\n\\r\\n'.encode())
    print(s.recv(15))
except OSError as error: print(error)"""
    for credential in (Bearer(token=SECRET), None):
        result = outside.run(code, credential=credential)
        if name.lower().rstrip(".") == "good.test":
            assert result.stdout == "b'HTTP/1.1 200 OK'\n"
        else:
            assert "ALERT_ACCESS_DENIED" in result.stdout.upper(), result.stdout
            assert result.refusals[-1].why == f"TLS asks for {name or 'no name'}, and the connection is for good.test"


def test_a_program_in_a_hurry_waits_and_is_served(outside: Outside) -> None:
    outside.server.attend = lambda sock, _head: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    code = """import time
began = time.monotonic()
for _ in range(900): connect(False).close()
s = connect()
s.sendall(f'GET / HTTP/1.1\\r\\nHost: good.test:{PORT}\\r\\n\\r\\n'.encode())
print(s.recv(15), time.monotonic() - began > 1)"""
    assert outside.run(code, connections=2000).stdout == "b'HTTP/1.1 200 OK' True\n"


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000,
    ],
    ids=["interim", "chunks"],
)
def test_a_server_that_never_stops_keeps_nobody_else_waiting(outside: Outside, flood: bytes) -> None:
    stop = threading.Event()

    def attend(sock: ssl.SSLSocket, head: bytes) -> None:
        if b"/flood" in head:
            sock.sendall(flood)
            while not stop.is_set():
                sock.sendall(flood.partition(b"\r\n\r\n")[2] or flood)
        else:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    outside.server.attend = attend
    hog = "import requests\ntry:\n    for piece in requests.get(f'https://good.test:{PORT}/flood', stream=True).iter_content(1 << 20): pass\nexcept OSError as e: print(e)"
    hogging = threading.Thread(target=lambda: outside.run(hog))
    hogging.start()
    try:
        time.sleep(0.5)
        began = time.monotonic()
        assert outside.run("import requests; print(requests.get(f'https://good.test:{PORT}/').text)").stdout == "ok\n"
        assert time.monotonic() - began < 5
    finally:
        stop.set()
        hogging.join(30)
    assert not hogging.is_alive()


LEAKS = {
    "name": b"HTTP/1.1 200 OK\r\nX-{}: 1\r\nContent-Length: 0\r\n\r\n",
    "value": b"HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n",
    "reason": b"HTTP/1.1 200 {}\r\nContent-Length: 0\r\n\r\n",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{}",
    "no header": b"HTTP/1.1 200 OK\r\nnonsense {}\r\n\r\n",
    "no status": b"HTTP/1.1 {} OK\r\n\r\n",
    "no chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n",
    "early": b"HTTP/1.1 103 {}\r\nLink: {}\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "location": b"HTTP/1.1 302 Found\r\nLocation: https://evil.test/?{}\r\nContent-Length: 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\nTransfer-Encoding: chunked\r\n\r\n1c\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("answer", LEAKS.values(), ids=LEAKS.keys())
def test_the_secret_does_not_come_back_in_any_part_of_an_answer(outside: Outside, answer: bytes) -> None:
    assert len(SECRET) == 28
    outside.server.attend = lambda sock, _head: sock.sendall(answer.replace(b"{}", SECRET.encode()))
    code = """s = connect()
s.sendall(f'GET / HTTP/1.1\\r\\nHost: good.test:{PORT}\\r\\nConnection: close\\r\\n\\r\\n'.encode())
try: print(until(s, b'never').decode())
except OSError as error: print(error)"""
    result = outside.run(code)
    assert SECRET not in result.stdout.lower()
    assert SECRET not in repr(result).lower()


def test_one_datagram_does_not_stop_the_proxy(outside: Outside) -> None:
    # Thousands of records in a question: it takes seconds to read them.
    code = """import struct, time
record = b'\\xc0\\x0c' + struct.pack('!HHIH', 2, 1, 0, 2) + b'\\xc0\\x0c'
bomb = struct.pack('!HHHHHH', 1, 0, 1, 4600, 0, 0) + b'\\x01a\\x04test\\0' + struct.pack('!HH', 1, 1) + record * 4600
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(4): s.sendto(bomb, ('198.18.0.1', 53))
began = time.monotonic()
socket.getaddrinfo('good.test', PORT)
print(time.monotonic() - began < 2)"""
    assert outside.run(code).stdout == "True\n"
