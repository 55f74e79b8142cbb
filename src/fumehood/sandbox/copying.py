"""Forks a sandbox of its own from a session's program that was stopped: `launcher` runs this in a process of its own.

The stopped program, the template, is in the guest's hands: every system call below that it or its copy makes is put to it from
here, by ptrace, and between two of them it executes nothing of the guest's. Its first child becomes process 1 of new namespaces
nested in the template's, shares the template's memory, and never runs an instruction again. The second, forked from that one with
the memory copied on write, becomes the copy's program. A process of ours joins the new namespaces for a moment to put up mounts
and disk.

Promised: a copy has no descriptor, writable file, mapping, user namespace or process in common with the template or another copy;
it runs only once its walls have been read back from the kernel. Should this process fail or be killed, so are all that it holds.
Not promised: that memory which was there before the fork is charged to the copy; it stays charged to the sandbox that made it.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import gc
import marshal
import os
import resource
import select
import stat
import struct
import time

from ..protocol.limits import Limits
from . import disk, init, kernel, tracing, usage
from .furnishing import CMSG_CLOEXEC, ORDER_BYTES, Furnisher
from .isolation.namespaces import NAMESPACES
from .live import BORN, RUNS
from .syscall_numbers import NUMBERS
from .tracing import Tracee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterator

_CLONE_VM = 0x100
_WAITS_SECONDS = 2.0
_SIG_IGN, _SIG_BLOCK, _SIGCHLD = 1, 0, 17
_RSEQ_UNREGISTER = 1
_MSG_DONTWAIT = 0x40
# As many as the kernel passes with one message.
_MOST_DESCRIPTORS = 253
_F_DUPFD_CLOEXEC = 1030
_EVERY_SIGNAL = (1 << 64) - 1
# A program looks for forks by its pid, so a copy's differs from its template's; above what starts by itself.
_PIDS = range(300, 30_000)
_O_TMPFILE = 0o20200000
# What is the file's own: access mode, append, non-blocking, directory, path only.
_FILE_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_NONBLOCK | os.O_DIRECTORY | os.O_PATH
_COLUMN = int(kernel.MACHINE == "aarch64")


class Order:
    """One copy that is asked for: the descriptors that it will have, and the way to the host."""

    def __init__(self, stdio: tuple[int, ...], control: socket) -> None:
        self.stdio, self.control = stdio, control


class Held:
    """What copies are forked from, by numbers of the host's: its process 1, the template, and the session's own process.

    That is another one where it had threads and forked itself; else the template again.
    """

    def __init__(self, first: int, template: int, own: int) -> None:
        self.first, self.template, self.own = first, template, own


def serve(launcher: socket) -> None:
    """Wait for one order and do it. Ends this process."""
    import array  # noqa: PLC0415 - a shared object; loaded while nobody waits

    gc.disable()
    furnisher = Furnisher()
    with contextlib.suppress(OSError):  # where nobody may be traced, the first copy says so
        _rehearse()
    message, ancillary, _flags, _address = launcher.recvmsg(ORDER_BYTES, 8 * _MOST_DESCRIPTORS, CMSG_CLOEXEC)
    if not message:
        os._exit(0)
    launcher.close()
    numbers = array.array("i")
    for _level, _kind, data in ancillary:
        numbers.frombytes(data)
    # From our own launcher.
    held, limits, are_first, are_last = marshal.loads(message)  # noqa: S302
    *stdio, channel = numbers
    orders = [Order(tuple(stdio[at : at + 4]), _socket.socket(fileno=stdio[at + 4])) for at in range(0, len(stdio), 5)]
    host = _socket.socket(fileno=channel)
    _Copier(orders, host, Limits(**limits), furnisher).copy(Held(*held), are_first=are_first, are_last=are_last)


def _rehearse() -> None:
    """Do for the first time what is done for each copy, so that the memory it touches is this process's own by then."""
    maker = os.getpid()
    pid = kernel.fork()
    if pid == 0:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
        # Whose maker died before that line has another parent, and would wait for ever.
        while os.getppid() == maker:
            tracing.pause()
        os._exit(1)
    try:
        stranger = _seize(pid)
        stranger.call(_number("prctl"), kernel.PR_SET_DUMPABLE, 1)
        stranger.write(b"\0")
        _refuse_shared_memory(pid)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


class _Copier:
    """Forks one lot of copies. `channel` is the host's to the template: by it the descriptors are handed over."""

    def __init__(self, orders: list[Order], channel: socket, limits: Limits, furnisher: Furnisher) -> None:
        self._orders, self._channel, self._limits, self._furnisher = orders, channel, limits, furnisher
        #: Copies that run already.
        self._ran: list[_Birth] = []

    def copy(self, held: Held, *, are_first: bool, are_last: bool) -> None:
        """Fork copies of the template. Ends this process.

        Where it fails to fork the first of them, the template goes on; where it has forked the last, it is emptied, as by `empty`.
        """
        status, parent = 1, None
        try:
            parent = _seize(held.template)
            _require_stillness(held)
            _refuse_shared_memory(held.template)
            self._copy(parent)
            if are_last:
                empty(held)
            status = 0
        except OSError as error:
            # Before the template may go on: no program of the guest's runs above another copy's namespaces.
            for each in self._ran:
                each.end()
            if parent is not None and are_first:
                parent.call(_number("prctl"), kernel.PR_SET_DUMPABLE, 1)
            if parent is not None:
                parent.let_go(-errno.EINTR if are_first else None)
            for order in self._orders:
                with contextlib.suppress(OSError):
                    init.tell(order.control, init.FAILED + _explained(error).encode("utf-8", "replace")[:1000])
        finally:
            # What is still held dies with this process.
            os._exit(status)

    def _copy(self, parent: Tracee) -> None:
        # From here on no process of the guest can look into it, whatever namespace it is an ancestor in.
        parent.call(_number("prctl"), kernel.PR_SET_DUMPABLE, 0)
        births: list[_Birth] = []
        with _on_one_processor(parent.pid) as processors:
            with _family_unlimited(parent.pid) as processes:
                for order in self._orders:
                    births.append(born := _Birth(parent, processes, order, self._channel))
                    self._furnisher.begin(parent.pid, born.first.pid, self._limits, order.control)
            # Where there are cgroups of version 1, the host waits meanwhile to move each.
            for each in births:
                each.make_program()
                self._furnisher.wait()
                each.settle()
                os.sched_setaffinity(each.program.pid, processors)
                # It becomes itself while the next is made.
                self._ran.append(each)
                each.program.let_go(0)
        parent.let_go()


def empty(held: Held) -> None:
    """Have the stopped processes give up their memory, and wait for ever. Ends this process."""
    status = 1
    try:
        for each in {held.template, held.own}:
            process = _seize(each, paused=False)
            try:
                _forget_memory(process)
            finally:
                process.let_go()
        status = 0
    finally:
        os._exit(status)


def _explained(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{error}: namespaces are nested at most 32 deep, so a fork of forks is about 28 deep at most"
    return str(error)


@contextlib.contextmanager
def _on_one_processor(template: int) -> Iterator[set[int]]:
    """Keep this process, the template and what is born of it on one processor; give those that the template had.

    They run in turns, a hundred times: to wake another processor each time takes longer than what is done there.
    """
    own, processors = os.sched_getaffinity(0), os.sched_getaffinity(template)
    one = {kernel.processor()}
    os.sched_setaffinity(0, one)
    os.sched_setaffinity(template, one)
    try:
        yield processors
    finally:
        os.sched_setaffinity(template, processors)
        os.sched_setaffinity(0, own)


@contextlib.contextmanager
def _family_unlimited(template: int) -> Iterator[tuple[int, int]]:
    """Let copies have as many processes as their own limit says, each; give that limit.

    The kernel bounds all that descends from a user namespace by the limit of whoever made it. Where no cgroup bounds
    processes, and this one may not raise that, a session and its copies share one limit.
    """
    own = resource.prlimit(template, resource.RLIMIT_NPROC)
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(template, resource.RLIMIT_NPROC, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        yield own
    finally:
        resource.prlimit(template, resource.RLIMIT_NPROC, own)


class _Birth:
    """One copy, from its process 1 to the moment before its program runs."""

    def __init__(self, parent: Tracee, processes: tuple[int, int], order: Order, channel: socket) -> None:
        self._parent, self._processes, self._control = parent, processes, order.control
        self._received = _hand_over(parent, channel, order.stdio)
        arguments = _clone_arguments(parent, NAMESPACES | _CLONE_VM)
        self.first = parent.birth(_number("clone3"), arguments, _CLONE_ARGUMENTS)
        _close(parent, self._received)
        # Taken from process 1: what it could ever regain, but not yet what it has. An older kernel ends its list sooner; that
        # none is left is read back from the program.
        self.first.call_for_each(_number("prctl"), kernel.PR_CAPBSET_DROP, kernel.LAST_CAPABILITY + 1)
        self.first.call(_number("prctl"), kernel.PR_SET_SECUREBITS, kernel.SECUREBITS_LOCKED)
        self._process = os.pidfd_open(self.first.pid)
        init.tell(order.control, BORN, self._process)

    def end(self) -> None:
        """Kill all of a copy that runs, and wait until it is dead. Nobody holds its processes any more."""
        kernel.send_signal(self._process, 9)
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        poll.poll(_WAITS_SECONDS * 1000)

    def make_program(self) -> None:
        """Fork the program, once the host has moved process 1 into its cgroup; that one lies still from then on."""
        if self._control.recv(1) != init.MAPPED:
            raise OSError("whoever asked is gone")
        pid = _another_pid(_pid_inside(self._parent.pid))
        # The cgroup namespace takes for its root the group in which it is made.
        arguments = _clone_arguments(self.first, kernel.CLONE_NEWCGROUP, pid)
        self.program = self.first.birth(_number("clone3"), arguments, _CLONE_ARGUMENTS)
        _lie_still(self.first)
        with contextlib.suppress(OSError):  # kernels before 5.13 do not tell; it can do without
            if (sequence := self._parent.restartable_sequence()) is not None:
                # It shared its parent's memory for a moment, which unregisters.
                address, size, signature = sequence
                self.program.call(_number("rseq"), address, size, 0, signature)

    def settle(self) -> None:
        """Give the program what is its own, and look at its walls."""
        resource.prlimit(self.program.pid, resource.RLIMIT_NPROC, self._processes)
        lost = _settle(self.program, self._received)
        init.verify_process(self.program.pid)
        init.tell(self._control, RUNS + lost.encode(), os.pidfd_open(self.program.pid))


def _seize(process: int, *, paused: bool = True) -> Tracee:
    # It said that it would wait, and has a few instructions to go; or another helper still holds it.
    until = time.monotonic() + _WAITS_SECONDS
    while True:
        try:
            return Tracee.seize(process, paused=paused)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.0005)


def _require_stillness(held: Held) -> None:
    """Check that nothing of the guest runs in the template's namespaces: it could reach into its memory, and into its copies.

    Nothing can begin to, once nothing does. Copies that were forked before are in namespaces of their own.
    """
    if len(os.listdir(f"/proc/{held.template}/task")) != 1:
        raise OSError("the process has threads")
    namespace = os.readlink(f"/proc/{held.template}/ns/pid")
    for pid in usage.tree(held.first):
        if pid not in (held.first, held.template) and usage.states(pid) - {"Z", "X"}:
            is_stopped = pid == held.own and usage.states(pid) <= {"T", "t"}
            if not is_stopped and os.readlink(f"/proc/{pid}/ns/pid") == namespace:
                raise OSError("a process of its own still runs beside it")


def _refuse_shared_memory(process: int) -> None:
    with open(f"/proc/{process}/maps", "rb", buffering=1 << 20) as file:
        # A name that looks like a shared mapping is looked at once more.
        shared = [line for line in file if b"s " in line]
    for line in shared:
        _range, access, _offset, _device, _inode, *path = line.split(None, 5)
        # The base system is read-only for everyone.
        if access[3:] == b"s" and not (path and path[0].startswith(b"/usr/")):
            name = path[0].strip().decode("utf-8", "replace") if path else "anonymous"
            raise OSError(f"it maps memory that copies would share ({name[:200]}): unmap that first")


def _hand_over(template: Tracee, channel: socket, stdio: tuple[int, ...]) -> list[int]:
    """Give it descriptors by the session's own socket; return their numbers there."""
    channel.sendmsg([b"\0"], [(1, 1, struct.pack(f"{len(stdio)}i", *stdio))])
    at = template.scratch
    # struct msghdr, the one struct iovec, its byte, the control message
    header = struct.pack("=QIIQQQQII", 0, 0, 0, at + 64, 1, at + 128, 64, 0, 0)
    template.write(header + struct.pack("=QQ", at + 96, 1).rjust(64 - len(header) + 16, b"\0"))
    template.write(bytes(64), 128)
    # It is there already; where the guest has put something else in the channel's place, this must not wait.
    template.call(_number("recvmsg"), init.CHANNEL, at, _MSG_DONTWAIT)
    length, level, kind, *numbers = struct.unpack(f"=Qii{len(stdio)}i", template.read(at + 128, 16 + 4 * len(stdio)))
    if (length, level, kind) != (16 + 4 * len(stdio), 1, 1):
        raise OSError("the session's channel gave something else")
    return numbers


_CLONE_ARGUMENTS = 88


def _clone_arguments(process: Tracee, flags: int, pid: int = 0) -> int:
    """Write struct clone_args to its memory; return the address. Its end is told to nobody, so it stays to be looked at."""
    at = process.write(struct.pack("=i", pid), 128)
    return process.write(struct.pack("=11Q", flags, 0, 0, 0, 0, 0, 0, 0, at if pid else 0, 1 if pid else 0, 0))


def _lie_still(first: Tracee) -> None:
    """Make process 1 deaf, poor and idle for good: it keeps the namespaces, and the kernel buries orphans for it."""
    _drop_capabilities(first)
    # struct sigaction of the kernel: handler, flags, restorer, mask
    ignore = first.write(struct.pack("=4Q", _SIG_IGN, 0, 0, 0))
    first.call(_number("rt_sigaction"), _SIGCHLD, ignore, 0, 8)
    first.call(_number("rt_sigprocmask"), _SIG_BLOCK, first.write(struct.pack("=Q", _EVERY_SIGNAL)), 0, 8)
    first.call(_number("close_range"), 0, 0x7FFFFFFF, 0)
    first.let_go()


def _settle(program: Tracee, received: list[int]) -> str:
    """Give the program descriptors, folder and process group of its own, and no capability; say what it lost."""
    program.call(_number("prctl"), kernel.PR_SET_DUMPABLE, 1)
    places = (0, 1, 2, init.CHANNEL)
    if set(received) & set(places):
        # The guest had closed some of those: they were free when ours came.
        moved = [program.call(_number("fcntl"), each, _F_DUPFD_CLOEXEC, max(places) + 1) for each in received]
        _close(program, received)
        received = moved
    for number, descriptor in zip(places, received, strict=True):
        flags = os.O_CLOEXEC if number == init.CHANNEL else 0
        program.call(_number("dup3"), descriptor, number, flags)
    _close(program, received)
    folder = os.readlink(f"/proc/{program.pid}/cwd")
    _change_folder(program, folder)
    lost = _settle_descriptors(program)
    program.call(_number("setsid"))
    _drop_capabilities(program)
    return lost


def _close(process: Tracee, descriptors: list[int]) -> None:
    if max(descriptors) - min(descriptors) == len(descriptors) - 1:
        process.call(_number("close_range"), min(descriptors), max(descriptors), 0)
    else:
        for each in descriptors:
            process.call(_number("close"), each)


def _change_folder(program: Tracee, folder: str) -> None:
    try:
        program.call(_number("chdir"), program.write(os.fsencode(folder) + b"\0"))
    except OSError:
        program.call(_number("chdir"), program.write(b"/work\0"))


def _drop_capabilities(process: Tracee) -> None:
    header = process.write(struct.pack("=II", 0x20080522, 0))  # _LINUX_CAPABILITY_VERSION_3, itself
    process.call(_number("capset"), header, process.write(bytes(24), 64))


def _settle_descriptors(program: Tracee) -> str:
    """Open its files anew, on its own disk; put something inert in the place of all else that it would share."""
    inert = program.call(_number("openat"), kernel.AT_FDCWD, program.write(b"/\0"), os.O_PATH | os.O_CLOEXEC)
    lost: dict[str, int] = {}
    for descriptor in sorted(map(int, os.listdir(f"/proc/{program.pid}/fd"))):
        if descriptor in (0, 1, 2, init.CHANNEL, inert):
            continue
        link = os.readlink(f"/proc/{program.pid}/fd/{descriptor}")
        mode = os.stat(f"/proc/{program.pid}/fd/{descriptor}").st_mode
        if stat.S_ISCHR(mode):
            continue  # /dev/null and its like hold nothing
        flags, position = _file_state(program.pid, descriptor)
        fresh = None
        if (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and not link.startswith("/proc"):
            fresh = _open_anew(program, descriptor, link, flags, position)
        program.call(_number("dup3"), inert if fresh is None else fresh, descriptor, flags & os.O_CLOEXEC)
        if fresh is None:
            kind = "file" if link.startswith("/") else link.partition(":")[0]
            lost[kind] = lost.get(kind, 0) + 1
        else:
            program.call(_number("close"), fresh)
    program.call(_number("close"), inert)
    return ", ".join(f"{count} {kind}" for kind, count in lost.items())[:1000]


def _file_state(pid: int, descriptor: int) -> tuple[int, int]:
    with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii") as file:
        facts = dict(line.split(":", 1) for line in file if ":" in line)
    return int(facts["flags"], 8), int(facts["pos"])


def _open_anew(program: Tracee, descriptor: int, link: str, flags: int, position: int) -> int | None:
    """Open on the copy's disk what is open on the template's; None where that cannot be."""
    source = f"/proc/{program.pid}/fd/{descriptor}"
    if os.stat(source).st_nlink:
        path = program.write(os.fsencode(link) + b"\0")
        try:
            fresh = program.call(_number("openat"), kernel.AT_FDCWD, path, flags & _FILE_FLAGS | os.O_CLOEXEC)
        except OSError:
            return None
    else:
        # It has no name: what it holds goes into another that has none.
        path = program.write(b"/tmp\0")
        flags = _O_TMPFILE | os.O_RDWR | flags & os.O_APPEND | os.O_CLOEXEC
        fresh = program.call(_number("openat"), kernel.AT_FDCWD, path, flags, 0o600)
        from_old, to_new = os.open(source, os.O_RDONLY), os.open(f"/proc/{program.pid}/fd/{fresh}", os.O_WRONLY)
        disk.copy_data(from_old, to_new)
        os.close(from_old)
        os.close(to_new)
    if not flags & os.O_PATH:
        with contextlib.suppress(OSError):  # of a folder that has other entries now
            program.call(_number("lseek"), fresh, position, os.SEEK_SET)
    return fresh


def _forget_memory(process: Tracee) -> None:
    if (sequence := process.restartable_sequence()) is not None:
        # The kernel writes there whenever it runs the process, and kills it where it cannot.
        address, size, signature = sequence
        process.call(_number("rseq"), address, size, _RSEQ_UNREGISTER, signature)
    page = process.entry & ~0xFFF
    process.call(_number("munmap"), 0x10000, page - 0x10000)
    # To the end of what a process may have: 47 bits, as all do that do not ask for more.
    process.call(_number("munmap"), page + 0x1000, (1 << 47) - 0x1000 - (page + 0x1000))


def _another_pid(taken: int) -> int:
    while (pid := _PIDS[int.from_bytes(os.urandom(4), "big") % len(_PIDS)]) == taken:
        pass
    return pid


def _pid_inside(process: int) -> int:
    with open(f"/proc/{process}/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[-1]) for line in file if line.startswith("NSpid:"))


def _number(name: str) -> int:
    number = NUMBERS[name][_COLUMN]
    if number is None:
        raise ValueError(f"{name} has no number on this processor")
    return number
