"""Process 1 of a sandbox: puts up the walls around itself, starts the program, ends everything, reports.

It is a fork of ours, so it is confined before the guest's first instruction exactly as the guest is, cannot be
traced or read by it, and handles no signal, so none from inside reaches it. What it reports crosses to the host
as fixed-size numbers. When it ends, for whatever reason, the kernel kills every process of the namespace.
"""

from __future__ import annotations

import os
import select
import struct

from . import filters, kernel, landlock, rlimits, tree
from .spec import GATEWAY, USER_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Protocol

    from .spec import Spec

    class Inner(Protocol):
        """What another isolation than the default does in place of this module's own."""

        def orders(self, spec: Spec, wiring: Wiring) -> bytes:
            """Return what it is told, while this process may still load modules."""

        def prepare(self, sources: dict[str, int], spec: Spec, wiring: Wiring, orders: bytes) -> int:
            """Put up the walls; return `/work`, open."""

        def start(self) -> int:
            """Start the program; return its pid, or the negative errno."""

        def problem(self) -> str:
            """Return why the program did not run at all, "" where it did."""


#: First byte of a message from here to the host.
READY, FAILED, ENDED = b"R", b"F", b"E"
#: Before READY, with the listening sockets of a sandbox that has a way out.
LISTENS = b"L"
#: Before READY, with the listener at which refused calls wait, where the sandbox is to be explained.
ASKS = b"A"
#: After ENDED: wait status; user CPU, system CPU as seconds and microseconds; largest resident KiB: `struct rusage` up to there.
REPORT = struct.Struct("=iqqqqq104x")
#: A time of that kind.
MICROSECONDS = struct.Struct("=q")
#: The descriptor at which a session's program finds its channel: beyond those that a process has by itself.
CHANNEL = 63
#: To a new process: its user ids are mapped; to a process 1, that its cgroup is entered too.
MAPPED = b"m"
#: To a warm sandbox's maker, after that: its cgroup is entered, so what it makes from here on is born there.
ENTERED = b"e"


#: The signal by which the host has process 1 interrupt a program that another kernel than the host's runs: SIGUSR1.
PASS_INTERRUPT = 10


class Wiring:
    """The descriptors that a new sandbox is born with: its standard streams, the way to the host, the go-ahead.

    A fourth of `stdio` is a session's channel, which its program finds at `CHANNEL`.
    """

    #: How many processes of ours count as the sandbox's.
    keepers = 1

    def __init__(self, stdio: tuple[int, ...], control: socket, mapped: int, parent: int, *, sampled: bool) -> None:
        self.stdio = stdio
        self.control = control
        self.mapped = mapped
        self.parent = parent
        self.sampled = sampled


def run(spec: Spec, wiring: Wiring, user: int | None, inner: Inner | None = None) -> None:
    """Do the whole job and exit the process. `user` is the global uid to become, None for the caller's own.

    `inner` is a second isolation, which runs inside and starts the program itself.
    """
    status = 1
    try:
        status = _run(spec, wiring, user, inner)
    except Exception as error:  # noqa: BLE001 - the outermost frame of this process; there is no one else to tell
        text = str(error) if isinstance(error, OSError) else repr(error)
        tell(wiring.control, FAILED + text.encode("utf-8", "replace")[:1000])
    finally:
        os._exit(status)


def _run(spec: Spec, wiring: Wiring, user: int | None, inner: Inner | None) -> int:
    if os.read(wiring.mapped, 1) != MAPPED:
        return 1  # the parent died before it could map our user
    settle_descriptors(wiring)
    sources = tree.open_sources(spec)
    system_calls, orders = _filter(spec, wiring), b"" if inner is None else inner.orders(spec, wiring)
    open_way_out = _way_out(spec)
    become_user(user)
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    kernel.set_hostname("fumehood")
    kernel.raise_loopback()
    if open_way_out is not None:
        _hand_over(open_way_out(), wiring.control)
    work = (
        _prepare(sources, spec, wiring, system_calls) if inner is None else inner.prepare(sources, spec, wiring, orders)
    )
    tell(wiring.control, READY, work, *open_network())
    os.close(work)
    # A second isolation bounds its program's open files by itself, and needs more.
    rlimits.narrow(shares_user=user is None and inner is None)
    program = _start(spec) if inner is None else inner.start()
    if program < 0:
        tell(wiring.control, FAILED + f"{spec.argv[0]}: {os.strerror(-program)}".encode())
        return 1
    report = wait_and_end_all(program)
    if inner is not None and (problem := inner.problem()):
        tell(wiring.control, FAILED + problem.encode())
        return 1
    tell(wiring.control, ENDED + report)
    return 0


def _prepare(sources: dict[str, int], spec: Spec, wiring: Wiring, system_calls: bytes) -> int:
    """Put up the walls; return `/work`, open."""
    if "seccomp" in spec.without:
        _forbid_nested_namespaces()
    tree.build(sources, spec)
    work = lay_files(spec, "/work")
    give_up_privileges(spec, wiring)
    if spec.explain:
        _seal_asking(wiring.control, system_calls)
    else:
        seal(spec, system_calls)
    verify(spec)
    return work


def _filter(spec: Spec, wiring: Wiring) -> bytes:
    system_calls = filters.load(kernel.MACHINE, spec.profile, sampled=wiring.sampled)
    if not spec.explain:
        return system_calls
    from .seccomp import notifying  # noqa: PLC0415 - explanations alone need the compiler

    return notifying(system_calls)


def settle_descriptors(wiring: Wiring) -> None:
    """Make the guest's streams this process's, close all else but the wiring, and leave the caller's terminal."""
    kept = {wiring.control.fileno(), wiring.mapped, wiring.parent}
    for number, descriptor in zip((0, 1, 2, CHANNEL), wiring.stdio, strict=False):
        if number in kept:
            raise OSError(f"descriptor {number} is taken")
        os.dup2(descriptor, number)
        kept.add(number)
    close_all_but(kept)
    # A terminal that the caller may have is not ours to control, nor the guest's.
    os.setsid()


def close_all_but(kept: set[int]) -> None:
    """Close every descriptor but the standard streams and these."""
    keep = sorted(kept - {0, 1, 2})
    for low, high in zip([2, *keep], [*keep, 1 << 20], strict=True):
        os.closerange(low + 1, high)


def become_user(user: int | None) -> None:
    """Take the sandbox's user, where it is not the caller's own, and be readable to it until `seal`."""
    if user is not None:
        kernel.become(USER_ID)
    # A change of user makes /proc/self root's; it is needed until the tree stands.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    os.umask(0o022)


def _way_out(spec: Spec) -> Callable[[], list[socket]] | None:
    """Return what opens sockets that listen in this network namespace; load it while this process may still load modules."""
    if not spec.gateway and not spec.ports:
        return None
    from . import listeners  # noqa: PLC0415 - few sandboxes have one

    return lambda: listeners.open_listeners(spec.ports) if spec.ports else [listeners.listening(*GATEWAY)]


def _hand_over(opened: list[socket], control: socket) -> None:
    """Give the host those sockets: nothing else leads out of here."""
    tell(control, LISTENS, *(each.fileno() for each in opened))
    for each in opened:
        each.close()


def _forbid_nested_namespaces() -> None:
    # What seccomp refuses otherwise, at no cost; this way takes 0.6 ms.
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="utf-8") as file:
        file.write("0")


def lay_files(spec: Spec, folder: str) -> int:
    """Write the execution's files into its working folder; return that, open."""
    os.chdir(folder)
    lay(spec.files)
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def lay(files: dict[str, bytes]) -> None:
    """Write files below the current folder, which is empty."""
    for path, data in files.items():
        if "/" in path:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        # No process of the guest lives yet and the folder was empty: nothing can have put a link here.
        fill(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), data)


def fill(descriptor: int, data: bytes) -> None:
    """Write all of it to an open file, and close that."""
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def give_up_privileges(spec: Spec, wiring: Wiring) -> None:
    """Set limits, drop capabilities, tie this process to its maker's life, and put up Landlock."""
    rlimits.apply(spec.limits, sampled=wiring.sampled, forkable=spec.forkable, keepers=wiring.keepers)
    reset_signals()
    kernel.drop_capabilities()
    confine(spec, wiring)


def confine(spec: Spec, wiring: Wiring) -> None:
    """Do the last of that, for a process that has no capability any more."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    # After the last change of credentials, which would clear it.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    if is_dead(wiring.parent):
        os._exit(1)  # it died before the line above, whose signal then never comes
    if "landlock" not in spec.without:
        writable = tuple(mount.inside for mount in spec.mounts if mount.writable)
        landlock.restrict(any_disk=spec.forkable, writable=writable)


def seal(spec: Spec, system_calls: bytes) -> None:
    """Close this process to the guest's eyes, and the kernel's surface to both."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if "seccomp" not in spec.without:
        kernel.seccomp_filter(system_calls)


def _seal_asking(control: socket, system_calls: bytes) -> None:
    """Do the same with a filter that asks the host before it refuses."""
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    listener = kernel.seccomp_filter(system_calls, listens=True)
    tell(control, ASKS, listener)
    os.close(listener)


def reset_signals() -> None:
    """Have every signal do what it does by itself."""
    import _signal  # noqa: PLC0415 - `signal` takes 3 ms to import (enum), this nothing

    # Python's own handler for SIGINT would let the guest interrupt this process: with the default, what a
    # namespace's process 1 does not handle never reaches it from inside.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def is_dead(pidfd: int) -> bool:
    """Whether a process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def verify(spec: Spec) -> None:
    """Read back from the kernel what was asked of it. A wall that is not there is a failure to start."""
    if "proc" not in spec.without:
        verify_process("self", seccomp="seccomp" not in spec.without)


def verify_process(pid: int | str, *, seccomp: bool = True) -> None:
    """Do the same for another process, by its number where `/proc` is ours. Raises OSError."""
    descriptor = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Of bytes, without the layers of a text file: every sandbox does this. The kernel gives all of it at once.
        status = os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
    facts = dict(line.split(b":\t", 1) for line in status.splitlines() if b":\t" in line)
    no_capability = b"0" * 16
    expected = {b"NoNewPrivs": b"1", b"CapEff": no_capability, b"CapPrm": no_capability, b"CapBnd": no_capability,
                b"CapInh": no_capability, b"CapAmb": no_capability,
                b"Seccomp": b"2" if seccomp else b"0"}  # fmt: skip
    for name, value in expected.items():
        if (seen := facts.get(name, b"nothing").strip()) != value:
            raise OSError(f"the kernel reports {name.decode()} {seen!r} where {value.decode()} was asked for")


def _start(spec: Spec) -> int:
    """Start the program; return its pid, or the negative errno."""
    # A program forked from a zygote has number 3, so this one does too.
    kernel.use_up_pid()
    try:
        return os.posix_spawn(spec.argv[0], spec.argv, spec.environment, setsid=True)
    except OSError as error:
        return -(error.errno or 1)


def wait_and_end_all(program: int) -> bytes:
    """Wait for the program, kill and reap the rest, and return the packed report."""
    import resource  # noqa: PLC0415 - a module of C, needed here alone

    status = 0
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == program:
            break
    _end_others()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = (divmod(round(seconds * 1e6), 1_000_000) for seconds in (usage.ru_utime, usage.ru_stime))
    return REPORT.pack(status, *user, *system, usage.ru_maxrss)


def _end_others() -> None:
    # Every process of the namespace descends from this one: where it has no child, there is none.
    flags = os.WNOHANG
    while True:
        try:
            pid, _status = os.waitpid(-1, flags)
        except ChildProcessError:
            return
        if pid == 0:
            os.kill(-1, 9)  # all but this process
            flags = 0


def open_network() -> list[int]:
    """Open this network namespace, for the host to open a way out (`listeners`), and what the kernel counts of it (`usage`)."""
    opened: list[int] = []
    for path in ("/proc/self/ns/net", "/proc/self/net/snmp", "/proc/self/net/snmp6"):
        try:
            opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            break  # without /proc there is nothing to open
    return opened


def tell(control: socket, message: bytes, *descriptors: int) -> None:
    """Send one message, and descriptors with it."""
    if descriptors:
        rights = struct.pack(f"{len(descriptors)}i", *descriptors)
        control.sendmsg([message], [(1, 1, rights)])  # SOL_SOCKET, SCM_RIGHTS
    else:
        control.send(message)
