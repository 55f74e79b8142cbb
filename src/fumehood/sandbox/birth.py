"""How a sandbox comes out of its zygote, by one fork: the maker puts up the walls, starts process 1, and hands on to the program.

The maker stays outside of the new process namespace. Process 1 (`reaper`) is a program of its own; the program's process has the
maker's memory, which so lives on after it has ended and is taken apart when nobody waits for it any more (`succession`).
Promised: whoever is killed on the way takes the others along; a program that waits for its order has walls that were read back
from the kernel.
"""

from __future__ import annotations

import os

from . import init, kernel, reaper, rlimits, tree
from .isolation.namespaces import NAMESPACES, map_users
from .live import BORN, WAITING
from .spec import USER_ID, Spec
from .succession import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

_UNSHARED = b"u"
#: Where the zygote has process 1's program: below the sandbox's own `/work`, so no guest sees it.
REAPER = "/work/reaper"


class Birth:
    """One sandbox on its way. Made in the zygote, which forks then: `map_its_users` is for it, `come_out` for its child."""

    def __init__(self, user: int | None, place: Place) -> None:
        self._user, self._place = user, place
        self._told, self._tells = os.pipe()

    def map_its_users(self, pid: int) -> None:
        """Give the new process its user, once it has a user namespace. Raises OSError where it is dead."""
        self._tells = _closed(self._tells)
        if os.read(self._told, 1) != _UNSHARED:
            raise OSError("a new process ended before it had a user namespace")
        map_users(pid, USER_ID, os.getuid() if self._user is None else self._user, deny_groups=self._user is None)

    def close(self) -> None:
        """Close what the zygote has of it."""
        self._told, self._tells = _closed(self._told), _closed(self._tells)

    def come_out(self, wiring: init.Wiring, spec: Spec, system_calls: bytes) -> None:
        """Become the maker, and return in the program's process."""
        kernel.unshare(kernel.CLONE_NEWUSER)
        os.write(self._tells, _UNSHARED)
        # While the zygote maps its user.
        kernel.unshare(NAMESPACES & ~kernel.CLONE_NEWUSER)
        _hear(wiring, init.MAPPED)
        init.settle_descriptors(wiring)
        hidden = os.open(os.path.dirname(REAPER), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        init.become_user(self._user)
        kernel.set_hostname("fumehood")
        kernel.raise_loopback()
        tree.mount_own(spec)
        rlimits.apply(spec.limits, sampled=wiring.sampled, forkable=spec.forkable, keepers=wiring.keepers)
        init.reset_signals()
        _hear(wiring, init.ENTERED)
        # It takes for its root the group in which it is made.
        kernel.unshare(kernel.CLONE_NEWCGROUP)
        _start_process_1(wiring, hidden)
        kernel.keep_capabilities()
        init.confine(spec, wiring)
        kernel.seccomp_filter(system_calls)
        self._place.hand_on()
        _settle(wiring, spec)


def _closed(descriptor: int) -> int:
    if descriptor >= 0:
        os.close(descriptor)
    return -1


def _hear(wiring: init.Wiring, what: bytes) -> None:
    if wiring.control.recv(1) != what:
        os._exit(1)  # whoever asked is gone


def _start_process_1(wiring: init.Wiring, hidden: int) -> None:
    """Start it, and wait until `/proc` is there and its life is tied to this process's. `hidden` has its program."""
    import _signal  # noqa: PLC0415 - loaded by now

    kernel.lend_capability(kernel.CAP_SYS_ADMIN)
    kernel.bound_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    # Whoever may override the modes of files may read its program, and it would be dumpable.
    kernel.keep_capabilities(kernel.CAP_SYS_ADMIN, lent=True)
    tied, ties = os.pipe()
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, ties, 0), (os.POSIX_SPAWN_DUP2, wiring.control.fileno(), 1)]
    # The guest's streams are no business of its.
    actions += [(os.POSIX_SPAWN_CLOSE, number) for number in (2, init.CHANNEL)[: len(wiring.stdio) - 2]]
    os.fchdir(hidden)
    waits_for = [_signal.SIGCHLD]
    pid = os.posix_spawn(
        os.path.basename(REAPER), ["init"], {}, file_actions=actions, setsigmask=waits_for, setsigdef=waits_for
    )
    os.chdir("/work")
    os.close(hidden)
    os.close(ties)
    said = os.read(tied, 1)
    if said != b"\0":
        why = os.strerror(said[0]) if said else "process 1 ended"
        raise OSError(f"mount proc on /proc: {why}")
    os.close(tied)
    # The host has to know it before Landlock is up: that would keep the signal that tells it of this process's end.
    process_1 = os.pidfd_open(pid)
    init.tell(wiring.control, BORN, process_1)
    os.close(process_1)
    # What this process makes from here on it never waits for.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)


def _settle(wiring: init.Wiring, spec: Spec) -> None:
    """In the program's process: be what a new one is, look at the walls, and say that they are up."""
    import _signal  # noqa: PLC0415 - loaded by now

    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    os.setsid()
    os.close(wiring.parent)
    if os.getpid() != reaper.PROGRAM:
        raise OSError(f"the program has number {os.getpid()}, not {reaper.PROGRAM}")
    init.verify(spec)
    opened = [os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), *init.open_network()]
    init.tell(wiring.control, init.READY, *opened)
    for each in opened:
        os.close(each)


def tell_that_it_waits(control: socket) -> None:
    """Say that the program waits for its order, and whom the host has to end before."""
    import time  # noqa: PLC0415 - loaded by now

    between = os.pidfd_open(os.getppid())
    init.tell(control, WAITING + init.MICROSECONDS.pack(int(time.process_time() * 1e6)), between)
    os.close(between)
