"""Sockets of a sandbox's network namespace at which the host takes what programs send: the only way out of it.

They are made by a process that has every capability in that namespace: process 1 before it gives them up, or later a child of
the launcher's that joins (`open_from_outside`). Promised: the namespace gets an address and listeners by it, and no device,
route or right besides.
"""

from __future__ import annotations

import _socket
import os
import struct

from ..egress.places import NAMESERVER, PREFIX_BITS, PROXY
from . import borrowing, kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_BACKLOG = 512
_RECEIVED_BYTES = 1 << 17
_CMSG_CLOEXEC, _MSG_DONTWAIT = 0x40000000, 0x40


def open_listeners(ports: Sequence[int], *, is_first: bool = True) -> list[_socket.socket]:
    """Return sockets of this network namespace: one for names and a proxy's, where it `is_first`, and one for each port."""
    opened = []
    if is_first:
        kernel.add_loopback_address(NAMESERVER, PREFIX_BITS)
        names = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        names.bind((NAMESERVER, 53))
        opened = [names, listening(*PROXY)]
    return opened + [listening("0.0.0.0", port) for port in ports]  # noqa: S104 - of a namespace where nobody else is


def open_from_outside(network: int, ports: Sequence[int], *, is_first: bool) -> list[int]:
    """Do the same in another network namespace, an open one; return their descriptors. This process has one thread."""
    user = kernel.owner_of_namespace(network)
    near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    def join_and_open() -> int:
        try:
            kernel.setns(user, kernel.CLONE_NEWUSER)
            kernel.setns(network, kernel.CLONE_NEWNET)
            sockets = open_listeners(ports, is_first=is_first)
            opened = [each.fileno() for each in sockets]
            far.sendmsg([b"1"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(opened)}i", *opened))])
            for each in sockets:
                each.detach()
        except OSError as error:
            far.send(b"0" + str(error).encode())
            return 1
        return 0

    try:
        borrowing.run(join_and_open)
        try:
            said, ancillary, _flags, _address = near.recvmsg(1 << 10, 1 << 10, _CMSG_CLOEXEC | _MSG_DONTWAIT)
        except BlockingIOError:
            os._exit(1)  # it was killed, and whatever it did in this memory it did not end
    finally:
        os.close(user)
        near.close()
        far.close()
        # Joining took it away from the memory, which is ours too, and with it the right to map other processes' users.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    if said[:1] != b"1":
        raise OSError(f"no way out could be opened: {said[1:].decode('utf-8', 'replace')}")
    return [number for _level, _kind, data in ancillary for number in struct.unpack(f"{len(data) // 4}i", data)]


def listening(address: str, port: int) -> _socket.socket:
    """Return a socket that listens there."""
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    # Connections of a proxy that died may linger.
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    # What is prepared there is worked off in one go where TLS is opened.
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, _RECEIVED_BYTES)
    listener.bind((address, port))
    listener.listen(_BACKLOG)
    return listener
