"""What commands share that listen: an address of this machine, and the options that bound them."""

from __future__ import annotations

import errno
import socket

from ..errors import ConfigurationError

_BACKLOG = 2048


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there. Raises `ConfigurationError`, naming the option to change."""
    # By its protocol's number: only then asyncio sends small answers at once, which otherwise wait 40 ms for an acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        # A name that nobody has, and an address that is not this machine's, are none of the port's.
        named = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        raise ConfigurationError(
            f"{host} port {port} cannot be had: {error.strerror}; choose another by {'--host' if named else '--port'}"
        ) from error
    return listener


def port_number(text: str) -> int:
    """Return a port; 0 stands for any free one. Raises ValueError."""
    if not text.isdigit() or int(text) > 65535:
        raise ValueError("write a number from 0, for any free one, to 65535")
    return int(text)


def count_number(text: str) -> int:
    """Return how many at one time. Raises ValueError."""
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise ValueError("write a number from 1 to 100000")
    return int(text)
