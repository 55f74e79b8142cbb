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
from .spec import USER_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from .spec import Spec

#: First byte of a message from here to the host.
READY, FAILED, ENDED = b"R", b"F", b"E"
#: After ENDED: wait status, user and system CPU microseconds, largest resident KiB, refused network attempts.
REPORT = struct.Struct("=iqqqq")


class Wiring:
    """The descriptors that a new sandbox is born with: its standard streams, the way to the host, the go-ahead."""

    def __init__(
        self, stdio: tuple[int, int, int], control: socket, mapped: int, parent: int, *, sampled: bool
    ) -> None:
        self.stdio = stdio
        self.control = control
        self.mapped = mapped
        self.parent = parent
        self.sampled = sampled


def run(spec: Spec, wiring: Wiring, user: int | None) -> None:
    """Do the whole job and exit the process. `user` is the global uid to become, None for the caller's own."""
    status = 1
    try:
        status = _run(spec, wiring, user)
    except Exception as error:  # noqa: BLE001 - the outermost frame of this process; there is no one else to tell
        text = str(error) if isinstance(error, OSError) else repr(error)
        _tell(wiring.control, FAILED + text.encode("utf-8", "replace")[:1000])
    finally:
        os._exit(status)


def _run(spec: Spec, wiring: Wiring, user: int | None) -> int:
    if os.read(wiring.mapped, 1) != b"m":
        return 1  # the parent died before it could map our user
    _settle_descriptors(wiring)
    sources = tree.open_sources(spec)
    system_calls = filters.load(kernel.MACHINE, spec.profile, sampled=wiring.sampled)
    _become_user(user)
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    kernel.set_hostname("fumehood")
    kernel.raise_loopback()
    if "seccomp" in spec.without:
        _forbid_nested_namespaces()
    tree.build(sources, spec)
    work = _lay_files(spec)
    _confine(spec, wiring, system_calls)
    _verify(spec)
    _tell(wiring.control, READY, work)
    os.close(work)
    program = _start(spec)
    if program < 0:
        _tell(wiring.control, FAILED + f"{spec.argv[0]}: {os.strerror(-program)}".encode())
        return 1
    _tell(wiring.control, ENDED + _wait_and_end_all(program))
    return 0


def _settle_descriptors(wiring: Wiring) -> None:
    for number, descriptor in enumerate(wiring.stdio):
        os.dup2(descriptor, number)
    keep = sorted({wiring.control.fileno(), wiring.mapped, wiring.parent})
    for low, high in zip([2, *keep], [*keep, 1 << 20], strict=True):
        os.closerange(low + 1, high)
    # A terminal that the caller may have is not ours to control, nor the guest's.
    os.setsid()


def _become_user(user: int | None) -> None:
    if user is not None:
        os.setgroups([])
        os.setresgid(USER_ID, USER_ID, USER_ID)
        os.setresuid(USER_ID, USER_ID, USER_ID)
    # A change of user makes /proc/self root's; it is needed until the tree stands.
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    os.umask(0o022)


def _forbid_nested_namespaces() -> None:
    # What seccomp refuses otherwise, at no cost; this way takes 0.6 ms.
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="utf-8") as file:
        file.write("0")


def _lay_files(spec: Spec) -> int:
    os.chdir("/work")
    for path, data in spec.files.items():
        if "/" in path:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        # No process of the guest lives yet and the folder was empty: nothing can have put a link here.
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _confine(spec: Spec, wiring: Wiring, system_calls: bytes) -> None:
    rlimits.apply(spec.limits, sampled=wiring.sampled)
    _reset_signals()
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    # After the last change of credentials, which would clear it.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
    if _is_dead(wiring.parent):
        os._exit(1)  # it died before the line above, whose signal then never comes
    if "landlock" not in spec.without:
        landlock.restrict()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    if "seccomp" not in spec.without:
        kernel.seccomp_filter(system_calls)


def _reset_signals() -> None:
    import _signal  # noqa: PLC0415 - `signal` takes 3 ms to import (enum), this nothing

    # Python's own handler for SIGINT would let the guest interrupt this process: with the default, what a
    # namespace's process 1 does not handle never reaches it from inside.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _is_dead(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _verify(spec: Spec) -> None:
    """Read back from the kernel what was asked of it. A wall that is not there is a failure to start."""
    if "proc" in spec.without:
        return
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        facts = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    no_capability = "0" * 16
    expected = {"NoNewPrivs": "1", "CapEff": no_capability, "CapPrm": no_capability, "CapBnd": no_capability,
                "CapInh": no_capability, "CapAmb": no_capability,
                "Seccomp": "0" if "seccomp" in spec.without else "2"}  # fmt: skip
    for name, value in expected.items():
        if (seen := facts.get(name, "nothing").strip()) != value:
            raise OSError(f"the kernel reports {name} {seen} where {value} was asked for")


def _start(spec: Spec) -> int:
    """Start the program; return its pid, or the negative errno."""
    try:
        return os.posix_spawn(spec.argv[0], spec.argv, spec.environment, setsid=True)
    except OSError as error:
        return -(error.errno or 1)


def _wait_and_end_all(program: int) -> bytes:
    """Wait for the program, kill and reap the rest, and return the packed report."""
    status = 0
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == program:
            break
    refused = _network_refused()
    try:
        os.kill(-1, 9)  # all but this process
    except ProcessLookupError:
        pass
    user_seconds, system_seconds, largest_kib = _reap_all()
    return REPORT.pack(status, int(user_seconds * 1e6), int(system_seconds * 1e6), largest_kib, refused)


def _reap_all() -> tuple[float, float, int]:
    import resource  # noqa: PLC0415 - a module of C, needed at the end alone

    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime, usage.ru_stime, usage.ru_maxrss


def _network_refused() -> int:
    """Return how many packets and connections this namespace's kernel refused for want of a route."""
    total = 0
    try:
        with open("/proc/self/net/snmp", encoding="utf-8") as file:
            names, values = (line.split() for line in file if line.startswith("Ip:"))
        total += int(values[names.index("OutNoRoutes")])
        with open("/proc/self/net/snmp6", encoding="utf-8") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Ip6OutNoRoutes"))
    except (OSError, ValueError):
        pass  # without /proc there is nothing to read; the count is a courtesy
    return total


def _tell(control: socket, message: bytes, descriptor: int | None = None) -> None:
    if descriptor is None:
        control.send(message)
    else:
        control.sendmsg([message], [(1, 1, struct.pack("i", descriptor))])  # SOL_SOCKET, SCM_RIGHTS
