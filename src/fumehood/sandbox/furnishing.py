"""Puts up what is a copy's own in its new namespaces: user, host name, loopback, `/proc`, and a disk with the template's files.

A process beside the one that copies does it: children of its own that borrow its memory (`borrowing`) join the namespaces, which is
for good. No process of the guest runs there yet. Promised: a copy has no file system in common with its template but what is
read-only.
"""

from __future__ import annotations

import _socket
import contextlib
import marshal
import os
import struct

from ..protocol.limits import Limits
from . import borrowing, disk, init, kernel, tree
from .isolation.namespaces import map_users
from .spec import USER_ID, Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

CMSG_CLOEXEC = 0x40000000
#: The longest order.
ORDER_BYTES = 1 << 12


class Furnisher:
    """A process beside this one that puts up what is a copy's own in its new namespaces, one copy after another."""

    def __init__(self) -> None:
        self._socket, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        if kernel.fork() == 0:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
            self._socket.close()
            try:
                _in_child(None, lambda: None)
                self._serve(far)
            finally:
                os._exit(1)
        far.close()

    def begin(self, template: int, first: int, limits: Limits, control: socket) -> None:
        """Have it begin with process 1's namespaces; what goes wrong it tells the host."""
        order = marshal.dumps((template, first, limits.as_dict()))
        self._socket.sendmsg([order], [(1, 1, struct.pack("i", control.fileno()))])

    def wait(self) -> None:
        """Wait for the one that it began with first. Raises OSError where it could not."""
        if self._socket.recv(1) != b"1":
            raise OSError("its mounts could not be put up")

    @staticmethod
    def _serve(orders: socket) -> None:
        while True:
            order, ancillary, _flags, _address = orders.recvmsg(ORDER_BYTES, 32, CMSG_CLOEXEC)
            if not order:
                return
            (control,) = (_socket.socket(fileno=struct.unpack("i", data)[0]) for _level, _kind, data in ancillary)
            template, first, limits = marshal.loads(order)  # noqa: S302 - this program's own
            orders.send(b"1" if _furnish(template, first, Limits(**limits), control) else b"0")
            control.close()


def _furnish(template: int, first: int, limits: Limits, control: socket) -> bool:
    # Opened here: who has joined may not look into the process any more.
    users = [os.open(f"/proc/{pid}/ns/user", os.O_RDONLY) for pid in (template, first)]
    others = [os.open(f"/proc/{first}/ns/{name}", os.O_RDONLY) for name in ("pid", "net", "uts", "ipc", "mnt")]
    spec = Spec(argv=(), environment={}, mounts=(), files={}, limits=limits)

    def join_and_fork() -> None:
        _join(users, others)
        # The process namespace is its children's.
        if not _in_child(control, put_up):
            raise OSError("its disk could not be put up")

    def put_up() -> None:
        work = _put_up_disk(spec)
        init.tell(control, init.READY, work, os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    try:
        return _in_child(control, join_and_fork)
    finally:
        for each in users + others:
            os.close(each)


def _in_child(control: socket | None, body: Callable[[], None]) -> bool:
    """Run it in a child that borrows this process's memory; what is wrong there is told to the host."""

    def run() -> int:
        try:
            body()
        except Exception as error:  # noqa: BLE001 - the outermost frame of this process
            if control is not None:
                with contextlib.suppress(OSError):
                    init.tell(control, init.FAILED + str(error).encode("utf-8", "replace")[:1000])
            return 1
        return 0

    status = borrowing.run(run)
    if os.WIFSIGNALED(status):
        os._exit(1)  # whatever it did in this memory it did not end
    return status == 0


def _join(users: list[int], others: list[int]) -> None:
    outer, inner = users
    is_root = os.geteuid() == 0
    if is_root:
        kernel.leave_groups()
    # As the user who made the inner one, its only user may be mapped.
    kernel.setns(outer, kernel.CLONE_NEWUSER)
    if is_root:
        kernel.become_without_groups(USER_ID)
    kernel.setns(inner, kernel.CLONE_NEWUSER)
    # Joining took it away, and with it the right to write to our own entries in /proc.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    map_users(os.getpid(), USER_ID, USER_ID, deny_groups=True)
    for each in others:
        kernel.setns(each, 0)
    kernel.set_hostname("fumehood")
    kernel.raise_loopback()


def _put_up_disk(spec: Spec) -> int:
    """Mount `/proc` and a disk, copy the template's files there; return `/work`, open."""
    folders = ("/work", "/tmp", "/dev/shm")  # noqa: S108 - the sandbox's own
    old = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in folders]
    os.umask(0o022)
    tree.mount_proc("/proc")
    tree.mount_own(spec)
    for path, source in zip(folders, old, strict=True):
        target = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        disk.copy_tree(source, target)
    return os.open("/work", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
