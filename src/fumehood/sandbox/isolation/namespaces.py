"""The default walls: Linux namespaces, as root or as an ordinary user, without a helper program.

`spawn` forks process 1 of a new sandbox from the calling process, which must have one thread. Started by root the
sandbox runs under a global user id of its own, from a range that nobody else uses, since the kernel counts
processes and pipe pages by that id; started by anyone else, under the caller's.
"""

from __future__ import annotations

import os

from ...errors import SandboxFailed
from .. import init, kernel
from ..spec import USER_ID
from . import gvisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Self

    from ..spec import Spec

# The cgroup namespace is made later, by process 1: it takes for its root the group in which it is made.
NAMESPACES = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
)  # fmt: skip

#: Global user ids for sandboxes that root starts: 65,536 of them, away from people, services and subordinate ids.
FIRST_USER = 1_879_048_192
USERS = 1 << 16
#: How many of them a zygote has, for itself and for the sandboxes that live at one time.
USERS_OF_ONE = 256


def spawn(
    spec: Spec, stdio: tuple[int, ...], control: socket, cgroups: tuple[str, ...], user: int | None
) -> tuple[int, int]:
    """Start a sandbox; return its process 1 as (pid, pidfd). It speaks over `control` from then on.

    `cgroups` are what `Cgroup.entrances` says. Raises OSError where the kernel refuses.
    """
    mapped_read, mapped_write = os.pipe()
    parent = os.pidfd_open(os.getpid())
    try:
        pid, pidfd = _fork(cgroups)
        if pid == 0:
            os.close(mapped_write)
            wiring = init.Wiring(stdio, control, mapped_read, parent, sampled=not cgroups)
            init.run(spec, wiring, user, gvisor if spec.isolation == "gvisor" else None)
        try:
            for path in cgroups:
                if not os.path.isdir(path):
                    kernel.write_file(path, str(pid))
            _map_caller_or(user, pid)
        except OSError as error:
            kernel.send_signal(pidfd, 9)
            os.close(pidfd)
            raise SandboxFailed(f"the new sandbox could not be given its user or cgroup: {error}") from error
        os.write(mapped_write, init.MAPPED)
        return pid, pidfd
    finally:
        os.close(mapped_read)
        os.close(mapped_write)
        os.close(parent)


def _fork(cgroups: tuple[str, ...]) -> tuple[int, int]:
    folder = next((path for path in cgroups if os.path.isdir(path)), None)
    if folder is None:
        return kernel.clone3(NAMESPACES)
    # Born there: to be moved there costs a grace period of the kernel's, 10 to 19 ms on an idle machine.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return kernel.clone3(NAMESPACES, descriptor)
    finally:
        os.close(descriptor)


def _map_caller_or(user: int | None, pid: int) -> None:
    if user is None:
        map_users(pid, USER_ID, os.geteuid(), os.getegid(), deny_groups=True)
    else:
        map_users(pid, USER_ID, user)


def map_users(
    pid: int, inside: int, outside: int, group: int | None = None, *, count: int = 1, deny_groups: bool = False
) -> None:
    """Map `count` user and group ids from `inside` on, in the process's new user namespace, to those from `outside` on.

    `group` is the first outer group where it differs. Without privilege the kernel demands `deny_groups`: that groups
    stay as they are.
    """
    if deny_groups:
        kernel.write_file(f"/proc/{pid}/setgroups", "deny")
    kernel.write_file(f"/proc/{pid}/uid_map", f"{inside} {outside} {count}")
    kernel.write_file(f"/proc/{pid}/gid_map", f"{inside} {outside if group is None else group} {count}")


class UserLease:
    """Global user ids that no other sandbox on this machine has while the lease is open; None without root.

    The lease is an abstract socket's name: the kernel gives it to one process at a time and frees it when that
    process ends, however it ends. `block` asks for `USERS_OF_ONE` ids in a row: those come from the upper half, single
    ones from the lower.
    """

    def __init__(self, *, block: bool = False) -> None:
        #: The first of the ids.
        self.user: int | None = None
        self._socket: socket | None = None
        self._step = USERS_OF_ONE if block else 1
        self._offset = USERS // 2 if block else 0

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            self._claim()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def _claim(self) -> None:
        import _socket  # noqa: PLC0415 - `socket` takes 4 ms to import, this nothing

        count = USERS // 2 // self._step
        first = int.from_bytes(os.urandom(2), "big")
        for turn in range(count):
            number = self._offset + (first + turn) % count * self._step
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            try:
                sock.bind(f"\0fumehood-user-{number}")
            except OSError:
                sock.close()
                continue
            self.user, self._socket = FIRST_USER + number, sock
            return
        raise SandboxFailed(f"all {count} leases of user ids for sandboxes are taken: wait until some have ended")
