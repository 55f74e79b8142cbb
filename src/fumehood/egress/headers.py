"""What of a message's headers is for the other end, and what for the connection that it came by (RFC 9110, 7.6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h11

    Headers = list[tuple[bytes, bytes]]

_FRAMING = {b"content-length", b"transfer-encoding"}
# By which a request asks to be taken for another than its first line says.
_OVERRIDES = {
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url",
    b"x-forwarded-host", b"forwarded",
}  # fmt: skip
_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"te", b"trailer",
    b"upgrade", b"expect", b"http2-settings", *_FRAMING,
}  # fmt: skip


def end_to_end(headers: Headers, *, is_answer: bool = False) -> Headers:
    """Return the headers that are for the other end: of a request without its host, of an answer with what says how long it is."""
    dropped = (_HOP_BY_HOP - _FRAMING if is_answer else _HOP_BY_HOP | {b"host"}) | _connection_words(headers)
    return [(name, value) for name, value in headers if name not in dropped or (is_answer and name in _FRAMING)]


def without_overrides(headers: Headers) -> Headers:
    """Return the headers of a request that a rule about methods or paths has let through."""
    return [(name, value) for name, value in headers if name not in _OVERRIDES]


def framing(headers: Headers) -> Headers:
    """Return what says how long a message is."""
    return [(name, value) for name, value in headers if name in _FRAMING]


def has_body(headers: Headers) -> bool:
    """Whether a request has a body, be it an empty one that comes in pieces."""
    return any(value.strip() != b"0" or name == b"transfer-encoding" for name, value in framing(headers))


def length_of(response: h11.Response) -> int:
    """Return how long an answer's body is by its own word; 0 where it does not say, or comes in pieces as well."""
    if any(name == b"transfer-encoding" for name, _value in response.headers):
        return 0  # which then counts (RFC 9112, 6.3)
    # h11 has seen to it that it is a number, and only one.
    return next((int(value) for name, value in response.headers if name == b"content-length"), 0)


def stays(message: h11.Request | h11.Response) -> bool:
    """Whether the connection of a message stays for another (RFC 9112, 9.3)."""
    return message.http_version >= b"1.1" and b"close" not in _connection_words(list(message.headers))


def wants_websocket(headers: Headers) -> bool:
    """Whether a request asks for a WebSocket (RFC 6455, 4.1)."""
    return any(name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in headers)


def _connection_words(headers: Headers) -> set[bytes]:
    return {each.strip().lower() for name, value in headers if name == b"connection" for each in value.split(b",")}
