"""An HTTP proxy for one sandbox, which leads to named hosts and nowhere else.

It serves a socket that listens inside the sandbox's network namespace, from a thread on the host's side, so its caller is known
without a word. Promised: a connection is made only to a host and port that were named, and what was refused is remembered for
whoever explains it. TLS stays between the client and that host. The names are the operator's own, so where they
lead is not examined: this serves the builds of environments, no guest's code.
"""

from __future__ import annotations

import base64
import contextlib
import re
import select
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

#: Host, in lower case, and port.
Place = tuple[str, int]

_CONNECT = re.compile(rb"CONNECT ([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]+\]):(\d{1,5}) HTTP/1\.1")
_PLAIN = re.compile(
    rb"(GET|HEAD) http://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]+\])(?::(\d{1,5}))?(/[\x21-\x7e]*) HTTP/1\.1"
)
# Lines end in one way: who takes a bare line feed for an end would hear another request than was looked at here.
_HEAD = re.compile(rb"[^\r\n\0]*(?:\r\n[^\r\n\0]*)*")
# What a request for a file may say besides; the rest is not passed on.
_HEADERS = {"accept", "accept-encoding", "authorization", "cache-control", "if-none-match", "range", "user-agent"}
_HEAD_BYTES = 1 << 16
_PIECE = 1 << 16
_CONNECTIONS = 128
_CONNECT_SECONDS, _IDLE_SECONDS = 30.0, 300.0
_LOOK_SECONDS = 0.1


class Gateway:
    """The relay; use it in a `with`. `allowed` are the places that may be reached."""

    def __init__(self, allowed: Iterable[Place]) -> None:
        self._allowed = frozenset(allowed)
        self._refused: dict[Place, None] = {}
        self._accepting: threading.Thread | None = None
        self._busy = threading.Semaphore(_CONNECTIONS)
        self._over = threading.Event()

    @property
    def refused(self) -> tuple[Place, ...]:
        """Return what was asked for and is not allowed, in the order of the first requests."""
        return tuple(self._refused)

    def serve(self, listener: int) -> None:
        """Take the connections that come to a listening socket, which is closed at the end."""
        self._accepting = _begin(self._accept, socket.socket(fileno=listener))

    def close(self) -> None:
        """Take no more connections; those that there are end within moments, one that is being made when its time is up."""
        self._over.set()
        if self._accepting is not None:
            self._accepting.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while not self._over.is_set():
                if not _ready([listener], _LOOK_SECONDS):
                    continue
                with contextlib.suppress(OSError):
                    client, _address = listener.accept()
                    if self._busy.acquire(blocking=False):
                        _begin(self._attend, client)
                    else:
                        client.close()

    def _attend(self, client: socket.socket) -> None:
        try:
            self._answer(client)
        finally:
            self._busy.release()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, rest = _read_head(client)
            place, words = _understood(head)
            if place is None:
                client.sendall(_answer(b"400 Bad Request", "this proxy takes CONNECT, and GET and HEAD of http: URLs"))
            elif place not in self._allowed:
                self._refused[place] = None
                client.sendall(_answer(b"403 Forbidden", f"{place[0]}:{place[1]} is not among the package indexes"))
            else:
                self._lead(client, place, words, rest)

    def _lead(self, client: socket.socket, place: Place, words: bytes, rest: bytes) -> None:
        try:
            server = _connect(place, tunnel=not words)
        except OSError as error:
            client.sendall(_answer(b"502 Bad Gateway", f"{place[0]}:{place[1]} cannot be reached: {error}"))
            return
        with server:
            if words:
                # One request a connection: the next could be for another host.
                server.sendall(words)
                self._relay(client, server, both=False)
            else:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                server.sendall(rest)
                self._relay(client, server, both=True)

    def _relay(self, client: socket.socket, server: socket.socket, *, both: bool) -> None:
        to = {client: server, server: client} if both else {server: client}
        quiet = 0.0
        while to and quiet < _IDLE_SECONDS and not self._over.is_set():
            ready = _ready(list(to), _LOOK_SECONDS)
            quiet = 0.0 if ready else quiet + _LOOK_SECONDS
            for source in ready:
                piece = source.recv(_PIECE)
                if piece:
                    to[source].sendall(piece)
                else:
                    to.pop(source).shutdown(socket.SHUT_WR)


def _begin(work: Callable[[socket.socket], None], sock: socket.socket) -> threading.Thread:
    thread = threading.Thread(target=work, args=(sock,), name="fumehood-gateway", daemon=True)
    thread.start()
    return thread


def _ready(sockets: list[socket.socket], seconds: float) -> list[socket.socket]:
    poll = select.poll()
    for each in sockets:
        poll.register(each, select.POLLIN)
    ready = {descriptor for descriptor, _event in poll.poll(seconds * 1000)}
    return [each for each in sockets if each.fileno() in ready]


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """Return the head of a request and what came after it; an empty head where there is none."""
    client.settimeout(_IDLE_SECONDS)
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(_PIECE)
        data += piece
        if not piece or len(data) > _HEAD_BYTES:
            return b"", b""
    head, _blank, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _understood(head: bytes) -> tuple[Place | None, bytes]:
    """Return the place that a request is for, and the request as that place is to hear it; nothing for a tunnel."""
    if _HEAD.fullmatch(head) is None:
        return None, b""
    line, *headers = head.split(b"\r\n")
    if tunnel := _CONNECT.fullmatch(line):
        return _place(tunnel[1], tunnel[2]), b""
    if (plain := _PLAIN.fullmatch(line)) is None:
        return None, b""
    host = plain[2] + (b":" + plain[3] if plain[3] else b"")
    kept = [each for each in headers if each.partition(b":")[0].decode("latin-1").lower() in _HEADERS]
    words = [plain[1] + b" " + plain[4] + b" HTTP/1.1", b"Host: " + host, b"Connection: close", *kept, b"", b""]
    return _place(plain[2], plain[3] or b"80"), b"\r\n".join(words)


def _place(host: bytes, port: bytes) -> Place:
    return host.decode("ascii").lower().strip("[]"), int(port)


def _connect(place: Place, *, tunnel: bool) -> socket.socket:
    """Connect to a place, through the proxy that this machine's environment asks for."""
    host, port = place
    settings = urllib.request.getproxies()
    proxy = settings.get("https", settings.get("all"))
    if proxy is None or not tunnel or urllib.request.proxy_bypass(host):
        return socket.create_connection(place, _CONNECT_SECONDS)
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    server = socket.create_connection((parts.hostname or "", parts.port or 3128), _CONNECT_SECONDS)
    try:
        words = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        if parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            words += f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}\r\n"
        server.sendall(f"{words}\r\n".encode())
        head, _rest = _read_head(server)
        first = head.split(b"\r\n")[0].decode("latin-1")
        if first.split()[1:2] != ["200"]:
            raise OSError(f"the proxy {parts.hostname} says {first!r}")
    except BaseException:
        server.close()
        raise
    return server


def _answer(status: bytes, text: str) -> bytes:
    body = f"fumehood: {text}\n".encode()
    return b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status, len(body), body,
    )  # fmt: skip
