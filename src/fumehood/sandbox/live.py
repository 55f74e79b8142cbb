"""The host's hold on one sandbox: its streams, its control socket, its process 1, its cgroup and its user.

Promised: `close` leaves none of them behind. A sandbox is made cold, by `start`, or forked from a zygote (`warm`), which
adds an `order` for a program that waits.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
import struct
import time

from ..errors import InvalidRequest, SandboxFailed
from . import kernel
from .cgroup import Cgroup
from .init import ASKS, FAILED, LISTENS, MICROSECONDS, PASS_INTERRUPT, READY
from .read_once import ReadOnce
from .usage import network_refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..protocol.limits import Limits
    from .spec import Spec

    Spawn = Callable[[Spec, tuple[int, ...], _socket.socket, tuple[str, ...], int | None], tuple[int, int]]

SETUP_SECONDS = 15.0
#: From a warm sandbox's program: it waits for its order. With it comes its own parent, by pidfd. `birth` sends it.
WAITING = b"W"
#: How many processes of ours a warm sandbox counts as its own: process 1, and its maker, which holds the program's memory.
WARM_KEEPERS = 2
#: From `birth` or `copying`: a new process 1, by pidfd. From `copying`: a program likewise, with what it lost, in words; it is
#: about to run.
BORN, RUNS = b"B", b"P"
#: Bytes of the longest message. A longer order goes as a file in memory: its descriptor comes with a message after this one.
MESSAGE = 1 << 16
BY_MEMORY = b"m"


# Which of them come with which message. What more comes with the first tells what was `refused`; all of `LISTENS` are `listeners`.
_DESCRIPTORS = {
    READY: ("work", "network"), ASKS: ("listener",), BORN: ("process",), RUNS: ("program",), WAITING: ("between",),
}  # fmt: skip
_CMSG_CLOEXEC = 0x40000000
_E2BIG = 7
_SIGINT, _SIGSTOP, _SIGKILL, _SIGCHLD = 2, 19, 9, 17


class Live:
    """One sandbox, from before its birth to after its death."""

    def __init__(self, limits: Limits, *, cgroup: bool, channel: bool = False, keepers: int = 1) -> None:
        self.cgroup = Cgroup.open(limits, keepers=keepers) if cgroup else None
        theirs_in, self.stdin = os.pipe()
        self.stdout, theirs_out = os.pipe()
        self.stderr, theirs_err = os.pipe()
        for mine in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(mine, False)
        #: The guest's ends, until it is born.
        self.stdio: tuple[int, ...] = (theirs_in, theirs_out, theirs_err)
        #: The host's end of a session's channel.
        self.channel: _socket.socket | None = None
        if channel:
            self.channel, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            self.stdio = (*self.stdio, other.detach())
        self.control, self.far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        #: Process 1, by pidfd.
        self.process = -1
        #: A warm sandbox's maker, by pidfd: it put up the walls, and holds the program's memory. Stopped before the order.
        self.maker = -1
        #: The child by which it made the program, until it is killed before the order.
        self.between = -1
        #: `/work`, open, from when its walls are up.
        self.work = -1
        #: Its network namespace, open likewise, and how often the kernel refused it a way.
        self.network = -1
        self.refused = ReadOnce(network_refused)
        #: The listening sockets of one that has a way out, until somebody takes them.
        self.listeners: list[int] = []
        #: Where refused calls wait for an answer, of one that is to be explained.
        self.listener = -1
        #: CPU that a warm program had used before its order; None while it does not wait for one.
        self.used_seconds: float | None = None
        #: What its cgroup had counted of the processor before its program began.
        self.group_used_seconds = 0.0
        #: Its number among the user ids of its zygote, which gives it out anew once this is dead.
        self.user = -1
        #: When the order was sent; a warm program's clock starts there.
        self.ordered_at = 0.0
        self._pid = -1
        # Whether its program is of another kernel's, which process 1 has to ask.
        self._passes_interrupts = False
        #: A copy's program, by pidfd: process 1 is then an empty process that reports nothing, nor ends with it.
        self.program = -1

    @property
    def entrances(self) -> tuple[str, ...]:
        """What `Cgroup.entrances` says; nothing where there is none."""
        return self.cgroup.entrances if self.cgroup else ()

    def start(self, spec: Spec, spawn: Spawn, user: int | None) -> None:
        """Have it made cold."""
        try:
            self._passes_interrupts = spec.isolation == "gvisor"
            self._pid, self.process = spawn(spec, self.stdio, self.far, self.entrances, user)
        except OSError as error:
            raise SandboxFailed(f"no sandbox could be started: {error}. `fumehood doctor` tells why") from error
        finally:
            self.born()

    def born(self) -> None:
        """Close the guest's ends: it has them."""
        for descriptor in self.stdio:
            os.close(descriptor)
        self.stdio = ()
        self.far.close()
        self.control.setblocking(False)

    @property
    def pid(self) -> int:
        """Process 1 as the host numbers it."""
        if self._pid < 0:
            self._pid = _pid_of(self.process)
        return self._pid

    @property
    def program_pid(self) -> int | None:
        """Its program as the host numbers it; None where it has ended."""
        if self.program >= 0:
            return _pid_of(self.program)
        with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as file:
            # The first child of process 1, which is ours and alive, is its program.
            return next((int(word) for word in file.read().split()), None)

    @property
    def program_end(self) -> tuple[int | None, float]:
        """The wait status of a copy's program, which has ended, None where it cannot be told; and its CPU seconds."""
        try:
            # Process 1 does not wait for it, so it stays to be looked at.
            with open(f"/proc/{_pid_of(self.program)}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None, 0.0
        return int(fields[-1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def begin_group_time(self) -> None:
        """Take what its cgroup has counted of the processor for the time before its program."""
        self.group_used_seconds = (self.cgroup.cpu_seconds or 0.0) if self.cgroup is not None else 0.0

    @property
    def group_seconds(self) -> float:
        """What its cgroup has counted of the processor since then; 0 where none counts."""
        counted = self.cgroup.cpu_seconds if self.cgroup is not None else None
        return 0.0 if counted is None else counted - self.group_used_seconds

    def interrupt(self) -> None:
        """Have its program interrupted, with its children, as by the terminal's Ctrl-C; nothing happens where it has ended."""
        if self._passes_interrupts:
            kernel.send_signal(self.process, PASS_INTERRUPT)
        elif (program := self.program_pid) is not None:
            try:
                os.killpg(program, _SIGINT)  # it leads a process group
            except ProcessLookupError:
                pass

    def enter_cgroup(self) -> None:
        """Move its first process into its cgroup, if it has one."""
        for path in self.entrances:
            first = str(_pid_of(self.maker if self.maker >= 0 else self.process))
            kernel.write_file(path if path.endswith("cgroup.procs") else f"{path}/cgroup.procs", first)

    def receive(self) -> tuple[bytes, bytes] | None:
        """Take one message as (kind, body), both empty at the end; None where there is none yet."""
        try:
            message, ancillary, _flags, _address = self.control.recvmsg(2048, 256, _CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b"", b""
        kind, body = message[:1], message[1:]
        for _level, _kind, data in ancillary:
            numbers = struct.unpack(f"{len(data) // 4}i", data)
            if kind == LISTENS:
                self.listeners += numbers
                continue
            names = _DESCRIPTORS[kind]
            for name, number in zip(names, numbers, strict=False):
                setattr(self, name, number)
            self.refused.add(numbers[len(names) :])
        if kind == FAILED:
            said = body.decode("utf-8", "replace")
            if said.endswith(os.strerror(_E2BIG)):
                raise InvalidRequest(
                    "args and env: the kernel gives a program 2 MiB for both, and 128 KiB for each; use files or stdin"
                )
            raise SandboxFailed(f"the sandbox could not be set up: {said}")
        if kind == READY and self.work < 0:
            raise SandboxFailed("the sandbox is ready without a working directory")
        return kind, body

    def wait_ready(self) -> bool:
        """Wait until its program waits for an order; return False where it is dead instead."""
        return (self.used_seconds is not None or self._comes_to_wait()) and not self.is_dead()

    def _comes_to_wait(self) -> bool:
        deadline = time.monotonic() + SETUP_SECONDS
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(self.maker, select.POLLIN)
        while self.work < 0 or self.used_seconds is None:
            message = self.receive()
            if message is None:
                ready = poll.poll(max(0, deadline - time.monotonic()) * 1000)
                if not ready:
                    raise SandboxFailed(f"a warm sandbox was not ready after {SETUP_SECONDS:g} seconds")
                if any(descriptor == self.maker for descriptor, _event in ready):
                    return False
            elif message[0] == WAITING:
                self.used_seconds = MICROSECONDS.unpack(message[1])[0] / 1e6
                self._settle(deadline)
                self.begin_group_time()
            elif message[0] not in (BORN, READY):
                return False
        return True

    def _settle(self, deadline: float) -> None:
        """Let nobody but the program and process 1 ever run again."""
        # In this order: the end of the second lets the first go on, on a stack that is the program's.
        kernel.send_signal(self.maker, _SIGSTOP)
        kernel.send_signal(self.between, _SIGKILL)
        # From here on it does not end with the maker, whom the kernel kills with a program that has too much memory.
        kernel.send_signal(self.process, _SIGCHLD)
        if not _ends(self.between, deadline - time.monotonic()):
            raise SandboxFailed("a process of a warm sandbox could not be killed")
        os.close(self.between)
        self.between = -1

    def order(self, program: str, files: dict[str, bytes], environment: dict[str, str], args: tuple[str, ...]) -> None:
        """Tell the waiting program what it is. Raises `SandboxFailed` where it is dead."""
        message = marshal.dumps((program, files, environment, args))
        self.ordered_at = time.monotonic()
        try:
            if len(message) <= MESSAGE:
                self.control.send(message)
            else:
                self._send_by_memory(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise SandboxFailed("a warm sandbox died before its order came") from error

    def _send_by_memory(self, message: bytes) -> None:
        memory = os.memfd_create("fumehood-order", os.MFD_CLOEXEC)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(message)
            self.control.send(BY_MEMORY)
            self.control.sendmsg([BY_MEMORY], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", memory))])
        finally:
            os.close(memory)

    def is_dead(self, seconds: float = 0.0) -> bool:
        """Whether process 1, and with it every process inside, is dead, or is so within the time."""
        first = self.process if self.process >= 0 else self.maker
        return first < 0 or _ends(first, seconds)

    def kill(self) -> None:
        """Send the signal that ends process 1 and with it every process inside."""
        if self.maker >= 0:
            self._learn_process_1()
        for descriptor in (self.process, self.maker):
            if descriptor >= 0:
                kernel.send_signal(descriptor, _SIGKILL)

    def _learn_process_1(self) -> None:
        # The maker may have said which it is. From then on it does not always die with the maker.
        try:
            while self.process < 0 and (message := self.receive()) is not None and message[0]:
                pass
        except (SandboxFailed, OSError):
            pass  # it said in the end that it failed

    def give_up_old_memory(self) -> None:
        """End the maker where the program has other memory by now, having executed a file: it would hold the old."""
        if self.maker < 0:
            return
        try:
            program = self.program_pid
            is_needed = program is None or kernel.share_memory(_pid_of(self.maker), program)
        except OSError:
            return  # one of them has ended
        if not is_needed:
            kernel.send_signal(self.maker, _SIGKILL)

    def close(self) -> None:
        """Close what is open, and remove the cgroup once it is empty. Process 1 must be dead, killed or about to end."""
        if self.maker >= 0:
            kernel.send_signal(self.maker, _SIGKILL)
            _ends(self.maker, SETUP_SECONDS)
            # Now nobody is there to make a process 1.
            self.kill()
        self._close_streams()
        # A result may have been given out that asks for it later.
        self.refused()
        if self.cgroup is not None:
            self.is_dead(SETUP_SECONDS)
            self.cgroup.close()
        self._close_processes()

    def abandon(self) -> None:
        """Close what is open and leave the sandbox to the process that this one was forked from."""
        self._close_streams()
        self.refused.close()
        self._close_processes()
        if self.cgroup is not None:
            self.cgroup.abandon()

    def _close_streams(self) -> None:
        streams = (self.stdin, self.stdout, self.stderr, *self.stdio)
        for descriptor in (*streams, self.work, self.network, self.listener, *self.listeners):
            if descriptor >= 0:
                os.close(descriptor)
        self.listeners = []
        self.stdin = self.stdout = self.stderr = self.work = self.network = self.listener = -1
        self.control.close()
        self.far.close()
        if self.channel is not None:
            self.channel.close()

    def _close_processes(self) -> None:
        for descriptor in (self.process, self.program, self.maker, self.between):
            if descriptor >= 0:
                os.close(descriptor)
        self.process = self.program = self.maker = self.between = -1


def _ends(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="utf-8") as file:
        return next(int(line[4:]) for line in file if line.startswith("Pid:"))
