"""A small process of one thread that forks sandboxes for a program that has many, or much memory.

A fork copies the page tables of the whole process and is only safe with one thread, so a library must not fork
its caller. The launcher is started once for an engine, holds nothing of its caller's memory or environment, and ends
when the engine's end of its socket closes, which takes every sandbox with it (they ask the kernel for that).
"""

from __future__ import annotations

import _socket
import array
import marshal
import os
import select
import socket
import subprocess
import sys
import threading
import time

from ..errors import SandboxFailed
from ..protocol.limits import Limits
from . import init, kernel
from .cgroup import groups, sweep
from .isolation import namespaces
from .spec import Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What the launcher inherits of the environment: nothing. Its program is this module.
_PROGRAM = "import sys; sys.path[:0] = [{path!r}]; from fumehood.sandbox.launcher import serve; serve({descriptor})"
_SWEEP_SECONDS = 3.0
# The kernel passes 253 at a time. A copy takes five.
_DESCRIPTORS = 253
# With an answer: a pidfd, or the listeners of a sandbox.
_ANSWERED = 64
# What a caller waits for comes first.
_IDLE_SECONDS = 0.02
_DIED = (BrokenPipeError, ConnectionResetError, EOFError)


class Launcher:
    """The caller's handle on its launcher; `spawn` may be called from any thread. A forked child makes its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def spawn(
        self, spec: Spec, stdio: tuple[int, ...], control: _socket.socket, cgroups: tuple[str, ...],
        user: int | None,
    ) -> tuple[int, int]:  # fmt: skip
        """Do what `namespaces.spawn` does, from the launcher's process. A dead launcher is replaced once."""
        return self._request("sandbox", (spec.as_plain(), cgroups, user), [*stdio, control.fileno()])

    def spawn_zygote(
        self, spec: Spec, control: _socket.socket, first_user: int | None, preload: tuple[str, ...], sample: str
    ) -> int:
        """Do what `zygote.spawn` does, likewise."""
        return self._request("zygote", (spec.as_plain(), first_user, preload, sample), [control.fileno()])[1]

    def spawn_copier(
        self, held: tuple[int, int, int], limits: Limits, orders: list[tuple[tuple[int, ...], _socket.socket]],
        channel: _socket.socket, *, are_first: bool, are_last: bool,
    ) -> int:  # fmt: skip
        """Do what `copying.copy` does, in a process of its own; return its pidfd. `held` and `orders` as its classes."""
        descriptors = [number for stdio, control in orders for number in (*stdio, control.fileno())]
        return self._request("copy", (held, limits.as_dict(), are_first, are_last), [*descriptors, channel.fileno()])[1]

    def spawn_emptier(self, held: tuple[int, int, int]) -> int:
        """Do what `copying.empty` does, likewise."""
        return self._request("empty", held, [])[1]

    def open_listeners(self, network: int, ports: tuple[int, ...], *, is_first: bool) -> list[int]:
        """Do what `listeners.open_from_outside` does, from the launcher's process."""
        return self._request_many("listeners", (ports, is_first), [network])[1]

    def _request(self, kind: str, arguments: tuple[Any, ...], descriptors: list[int]) -> tuple[int, int]:
        number, received = self._request_many(kind, arguments, descriptors)
        return number, received[0]

    def _request_many(self, kind: str, arguments: tuple[Any, ...], descriptors: list[int]) -> tuple[int, list[int]]:
        # In memory and not in the message: files may be large.
        memory = os.memfd_create("fumehood-spec", os.MFD_CLOEXEC)
        try:
            with open(memory, "wb", closefd=False) as file:
                marshal.dump((kind, arguments), file)
            with self._lock:
                try:
                    return self._ask([memory, *descriptors])
                except _DIED:
                    self._stop()
                try:
                    return self._ask([memory, *descriptors])
                except _DIED as error:
                    raise SandboxFailed(
                        "the process that forks sandboxes died twice: is the machine out of memory?"
                    ) from error
        finally:
            os.close(memory)

    def close(self) -> None:
        """End the launcher and with it all of its sandboxes."""
        with self._lock:
            self._stop()

    def _ask(self, descriptors: list[int]) -> tuple[int, list[int]]:
        channel = self._socket or self._start()
        socket.send_fds(channel, [b"s"], descriptors)
        answer, received, _flags, _address = socket.recv_fds(channel, 4096, _ANSWERED)
        if not answer:
            raise EOFError("the launcher ended")
        if not received:
            raise SandboxFailed(answer.decode("utf-8", "replace"))
        for each in received:
            os.set_inheritable(each, False)
        return int(answer), received

    def _start(self) -> socket.socket:
        sweep()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        program = _PROGRAM.format(path=path, descriptor=far.fileno())
        with far:
            # Without site packages and without the caller's environment: a quick start, and no secrets to leak.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", program],
                pass_fds=[far.fileno()], env={}, cwd="/", stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._socket = near
        return near

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.wait()
        self._socket = self._process = None


def serve(descriptor: int) -> None:
    """Run the launcher's loop over an inherited socket until its other end closes."""
    import _signal  # noqa: PLC0415 - as in init: cheap

    # Sandboxes that end leave no zombie; their exit statuses come by their own sockets.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    os.set_inheritable(descriptor, False)
    engine = socket.socket(fileno=descriptor)
    maker = os.getppid()
    while True:
        if _spare.is_wanted and not _is_asked(engine, _IDLE_SECONDS):
            _spare.make_if_possible()
        message, descriptors, _flags, _address = socket.recv_fds(engine, 64, _DESCRIPTORS)
        if not message:
            _leave(maker)
        try:
            number, opened = _do(descriptors)
            engine.sendmsg([str(number).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", opened))])
            for each in opened:
                os.close(each)
        except BrokenPipeError:
            _leave(maker)  # the engine is gone; the sandbox that was just made goes with this process
        except (OSError, SandboxFailed) as error:
            engine.send(str(error).encode("utf-8", "replace")[:4000])
        finally:
            for number in descriptors:
                os.close(number)


def _is_asked(engine: socket.socket, seconds: float) -> bool:
    return bool(select.select([engine], [], [], seconds)[0])


def _leave(maker: int) -> None:
    """End, and with this process every sandbox. Where the engine was killed its cgroups are removed once they are empty."""
    if not _has_groups(maker) or os.fork() != 0:
        os._exit(0)
    until = time.monotonic() + _SWEEP_SECONDS
    while _has_groups(maker) and time.monotonic() < until:
        time.sleep(0.02)
        sweep()
    os._exit(0)


def _has_groups(maker: int) -> bool:
    return any(each == maker for each, _path in groups())


def _do(descriptors: list[int]) -> tuple[int, list[int]]:
    request, *others = descriptors
    with open(os.dup(request), "rb") as file:
        file.seek(0)
        # The writer is our own engine, over a socket that only it holds.
        kind, arguments = marshal.load(file)  # noqa: S302
    if kind == "listeners":
        from . import listeners  # noqa: PLC0415 - few sandboxes have a way out

        return 0, listeners.open_from_outside(others[0], arguments[0], is_first=arguments[1])
    pid, pidfd = _OPERATIONS[kind](arguments, others)
    return pid, [pidfd]


def _spawn_sandbox(arguments: tuple[Any, ...], descriptors: list[int]) -> tuple[int, int]:
    plain, cgroups, user = arguments
    *stdio, number = descriptors
    with socket.socket(fileno=os.dup(number)) as control:
        return namespaces.spawn(Spec.from_plain(plain), tuple(stdio), control, tuple(cgroups), user)


def _spawn_zygote(arguments: tuple[Any, ...], descriptors: list[int]) -> tuple[int, int]:
    from . import zygote  # noqa: PLC0415 - not every engine has one

    plain, *rest = arguments
    with socket.socket(fileno=os.dup(descriptors[0])) as control:
        return 0, zygote.spawn(Spec.from_plain(plain), control, *rest)


def _spawn_copier(arguments: tuple[Any, ...], descriptors: list[int]) -> tuple[int, int]:
    return _spare.order(arguments, descriptors)


class _Spare:
    """A copier forked ahead of its order: once sessions are forked here, there is one that waits."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._pid = -1
        #: Whether there should be one, and is not.
        self.is_wanted = False

    def order(self, arguments: tuple[Any, ...], descriptors: list[int]) -> tuple[int, int]:
        """Have one copy; return (pid, pidfd)."""
        if self._socket is None or self._is_dead():
            self.make()
        channel, pid = self._socket, self._pid
        self._socket, self.is_wanted = None, True
        if channel is None:
            raise OSError("the process that copies sandboxes could not be made")
        try:
            with channel:
                socket.send_fds(channel, [marshal.dumps(arguments)], descriptors)
        except OSError as error:
            # Not as it is: a broken pipe means to our caller that the engine is gone.
            raise OSError(f"the process that copies sandboxes died: {error}") from error
        return pid, os.pidfd_open(pid)

    def make(self) -> None:
        """Fork one."""
        from . import copying  # noqa: PLC0415 - few sessions are forked

        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = _fork_helper([far.fileno()])
        if pid == 0:
            try:
                near.detach()
                copying.serve(far)
            finally:
                os._exit(1)  # whatever went wrong, this is no second launcher
        far.close()
        if self._socket is not None:
            self._socket.close()
        self._socket, self._pid, self.is_wanted = near, pid, False

    def make_if_possible(self) -> None:
        """Fork one ahead; where that cannot be had now, the next order tries."""
        self.is_wanted = False
        try:
            self.make()
        except OSError:
            pass

    def _is_dead(self) -> bool:
        try:
            return self._socket is None or self._socket.recv(1, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False


_spare = _Spare()


def _spawn_emptier(arguments: tuple[Any, ...], _descriptors: list[int]) -> tuple[int, int]:
    from . import copying  # noqa: PLC0415 - likewise

    pid = _fork_helper([])
    if pid == 0:
        copying.empty(copying.Held(*arguments))
    return pid, os.pidfd_open(pid)


def _fork_helper(descriptors: list[int]) -> int:
    """Fork a process that joins a session's namespaces, which is for good, and waits for children."""
    import _signal  # noqa: PLC0415 - as in `serve`

    pid = os.fork()
    if pid == 0:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        init.close_all_but(set(descriptors))
    return pid


_OPERATIONS = {"sandbox": _spawn_sandbox, "zygote": _spawn_zygote, "copy": _spawn_copier, "empty": _spawn_emptier}
