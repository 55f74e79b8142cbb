"""The zygote: a warm interpreter behind walls of its own, from which sandboxes are forked ahead of time.

It runs inside, as the interpreter's main program; the host's tree, network and processes it has not. Where the host is root
it may give out user ids of its range, by two capabilities of its own user namespace; else it has none. No guest code runs in it.
Each sandbox that it forks (`birth`) has the same walls as a cold one. Its program's process runs a sample of our own to have its
memory ready, waits for one order, and then runs the program as the interpreter's own start would.

Not promised: `sys.modules` and the hash seed of a fresh interpreter; both are the zygote's (docs/explanation/warm.md).
"""

from __future__ import annotations

import ctypes
import gc
import marshal
import os
import sys
from collections import deque
from itertools import starmap

from ..protocol.limits import Limits
from . import birth, filters, init, kernel, preloaded, reaper, rlimits, touching, tree
from .isolation.namespaces import NAMESPACES, USERS_OF_ONE, map_users
from .live import BY_MEMORY, MESSAGE, WARM_KEEPERS
from .spec import USER_ID, Spec
from .succession import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Iterator
    from typing import Any

#: From the zygote to the host: a sandbox was forked; its maker's pidfd comes with it.
FORKED = b"P"

# The zygote is started by the command line that a cold program has, so this lies where a program would.
_PROGRAM, _PATH, _NAME = "/work/main.py", b"/work/main.py", "main.py"
# And this where a zygote finds out what programs write to.
_REHEARSED = "/tmp/main.py"  # noqa: S108 - its own
_LOADER = """import sys
sys.path.insert(0, '/proc/self/fd/{code}')
import fumehood.sandbox.zygote as z
z.serve({control}, {code}, {preload!r}, {sample!r})
"""
_STACK_BYTES = 8 << 20
_CMSG_CLOEXEC = 0x40000000


def spawn(spec: Spec, control: socket, first_user: int | None, preload: tuple[str, ...], sample: str) -> int:
    """Fork a zygote of `spec`'s runtime from this process, which must have one thread; return its pidfd.

    It and its sandboxes have `USERS_OF_ONE` global user ids from `first_user` on, or the caller's own where that is None.
    """
    mapped_read, mapped_write = os.pipe()
    try:
        pid, pidfd = kernel.clone3(NAMESPACES)
        if pid == 0:
            os.close(mapped_write)
            _enter(spec, control, mapped_read, preload, sample, own_users=first_user is not None)
        if first_user is None:
            # Not as root, even inside: it keeps no capability then, and needs none to give a sandbox its own user.
            map_users(pid, USER_ID, os.geteuid(), os.getegid(), deny_groups=True)
        else:
            map_users(pid, 0, first_user, count=USERS_OF_ONE)
        os.write(mapped_write, init.MAPPED)
        return pidfd
    finally:
        os.close(mapped_read)
        os.close(mapped_write)


def _enter(spec: Spec, control: socket, mapped: int, preload: tuple[str, ...], sample: str, *, own_users: bool) -> None:
    """Put up the zygote's walls and start its interpreter. This is the new namespaces' first process."""
    try:
        if os.read(mapped, 1) != init.MAPPED:
            os._exit(1)
        here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = os.open(here, os.O_PATH | os.O_DIRECTORY)
        # The interpreter looks at its streams when it starts, and a sandbox's are pipes.
        read, write = os.pipe()
        for number, descriptor in enumerate((read, write, write)):
            os.dup2(descriptor, number)
        os.setsid()
        sources = tree.open_sources(spec)
        if own_users:
            kernel.become(0)
        kernel.set_hostname("fumehood")
        kernel.raise_loopback()
        loader = _LOADER.format(code=code, control=control.fileno(), preload=preload, sample=sample)
        tree.build_for_zygote(sources, loader, reaper.program(kernel.MACHINE))
        kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        _bound_stack()
        init.close_all_but({control.fileno(), code})
        for descriptor in (control.fileno(), code):
            os.set_inheritable(descriptor, True)
        os.execve(spec.argv[0], [*spec.argv, _PROGRAM], spec.environment)  # noqa: S606 - no shell is the point
    except Exception as error:  # noqa: BLE001 - the outermost frame of this process; there is no one else to tell
        init.tell(control, init.FAILED + repr(error).encode("utf-8", "replace")[:1000])
    os._exit(1)


def _bound_stack() -> None:
    import resource  # noqa: PLC0415 - a module of C, needed here alone

    # The C library gives threads stacks of this size, and programs run in one.
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES if hard < 0 else min(_STACK_BYTES, hard), hard))


def serve(control: int, code: int, preload: tuple[str, ...], sample: str) -> None:
    """Load what programs use and fork sandboxes until the engine's end of the socket closes. Never returns."""
    import _signal  # noqa: PLC0415 - the cheap halves of `signal` and `socket`, as everywhere in here
    import _socket  # noqa: PLC0415

    os.set_inheritable(control, False)
    channel = _socket.socket(fileno=control)
    try:
        warm = preloaded.load(preload, forget=f"/proc/self/fd/{code}")
        system_calls = {sampled: filters.load(kernel.MACHINE, "plain", sampled=sampled) for sampled in (False, True)}
        os.close(code)
        if os.getuid() == 0:
            kernel.keep_capabilities(kernel.CAP_SETGID, kernel.CAP_SETUID)
        # The dead are not waited for here: process 1 of each sandbox reports to the host itself.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
        if len(os.listdir("/proc/self/task")) != 1:
            raise OSError("a module that was preloaded started threads, which no fork takes along")
        gc.collect()
        gc.freeze()
        init.tell(channel, init.READY + marshal.dumps(sorted(warm.modules)))
        _run_below_nothing(_Programs(channel, warm, system_calls, sample.encode()))
    except Exception as error:  # noqa: BLE001 - the outermost frame of this process
        init.tell(channel, init.FAILED + repr(error).encode("utf-8", "replace")[:1000])
    os._exit(1)


def _run_below_nothing(programs: Callable[[deque[int]], Iterator[tuple[object, ...]]]) -> None:
    """Run what `programs` yields by the interpreter's own function for main programs, with no Python frame below it.

    A thread that C starts has no frame, and one that forks is the main thread of its child. The iterator is consumed by C,
    so its own frame is set aside while a program runs.
    """
    from functools import partial  # noqa: PLC0415 - loaded by now

    results: deque[int] = deque(maxlen=1)
    run = ctypes.pythonapi.PyRun_SimpleFileExFlags
    run.argtypes, run.restype = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p), ctypes.c_int
    body = ctypes.CFUNCTYPE(None)(partial(results.extend, starmap(run, programs(results))))
    libc = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    if libc.pthread_create(ctypes.byref(thread), None, body, None) == 0:
        libc.pthread_join(thread, None)


class _Programs:
    """Forks sandboxes as the engine asks. In a program's process it yields the sample, if any, and what was ordered."""

    def __init__(self, channel: socket, warm: preloaded.Warm, system_calls: dict[bool, bytes], sample: bytes) -> None:
        self._channel, self._warm, self._system_calls = channel, warm, system_calls
        self._sample_text, self._sample = sample, marshal.dumps((_PROGRAM, {_NAME: sample}, {}, ()))
        #: Addresses of pages that every program writes to after the sample, and of those of files that it then looks at.
        self._touched: tuple[list[int], list[int]] = ([], [])
        self._has_time = True
        #: The last sandbox's policy, by what it was made from: most are alike.
        self._latest: tuple[tuple[dict[str, Any], bool], Spec] | None = None
        self._parent = os.pidfd_open(os.getpid())
        self._libc = ctypes.CDLL(None)
        self._libc.fopen.restype = ctypes.c_void_p
        self._libc.fclose.argtypes = (ctypes.c_void_p,)

    def __call__(self, results: deque[int]) -> Iterator[tuple[object, ...]]:
        self._warm.adopt_thread()
        place, control = Place(), None
        gc.freeze()
        tells, told = os.pipe()
        if kernel.fork() == 0:
            yield from self._find_out(results, told)
        os.close(told)
        with open(tells, "rb") as file:
            # Nothing where it could not find out, which costs time alone.
            found = file.read()
        self._touched = marshal.loads(found) if found else ([], [])  # noqa: S302 - a fork of this process
        while control is None:
            request, descriptors = receive(self._channel, 5)
            if not request:
                os._exit(0)
            # The engine is the one who writes here, and into a sandbox before its program runs.
            control = self._fork(marshal.loads(request), descriptors, place)  # noqa: S302
            if control is None:
                for descriptor in descriptors:
                    os.close(descriptor)
        self._warm.settle()
        blank = None
        if self._has_time:
            yield self._lay_out(self._sample)
            blank = _Blank(_PROGRAM, self._libc)
            self._warm.rehearse_end()
            touching.touch(self._touched[0])
            touching.look(self._touched[1])
        yield self._lay_out(_await_order(control, shares_user=self._shares_user), blank)
        self._warm.end(results[-1])

    def _find_out(self, results: deque[int], told: int) -> Iterator[tuple[object, ...]]:
        """In a fork that becomes no sandbox: tell what memory a program writes to and looks at after the sample. Never returns."""
        try:
            pages = touching.Pages()
            os.chdir("/tmp")  # noqa: S108 - the zygote's own, where it can write
            self._warm.settle()
            order = marshal.dumps((_REHEARSED, {_NAME: self._sample_text}, {}, ()))
            yield self._lay_out(order)
            blank = _Blank(_REHEARSED, self._libc)
            self._warm.rehearse_end()
            pages.begin()
            yield self._lay_out(order, blank)
            self._warm.run_to_end(results[-1])
            found = pages.end()
            with open(told, "wb") as out:
                out.write(marshal.dumps(found))
            os._exit(0)
        finally:
            os._exit(1)  # whatever went wrong, this is no sandbox and no zygote

    def _fork(
        self, request: tuple[int | None, dict[str, Any], bool, bool, bool], descriptors: list[int], place: Place
    ) -> socket | None:
        """Fork one sandbox; in its program's process return the socket on which its order comes."""
        import _socket  # noqa: PLC0415 - loaded by now

        user, limits, sampled, self._has_time, forkable = request
        self._shares_user = user is None
        # All that needs no fork is made before it: what a fork touches first is copied.
        spec = self._spec(limits, forkable=forkable)
        *stdio, control_number = descriptors
        control = _socket.socket(fileno=control_number)
        wiring = init.Wiring(tuple(stdio), control, self._parent, self._parent, sampled=sampled)
        wiring.keepers = WARM_KEEPERS
        pidfd, new = -1, birth.Birth(user, place)
        try:
            pid = kernel.fork()
            if pid == 0:
                self._channel.detach()
                self._come_out(new, wiring, spec)
                return control
            pidfd = os.pidfd_open(pid)
            new.map_its_users(pid)
            init.tell(self._channel, FORKED, pidfd)
        except OSError as error:
            if pidfd >= 0:
                kernel.send_signal(pidfd, 9)
            init.tell(self._channel, init.FAILED + str(error).encode())
        control.detach()
        new.close()
        if pidfd >= 0:
            os.close(pidfd)
        return None

    def _lay_out(self, order: bytes, blank: _Blank | None = None) -> tuple[object, ...]:
        """Lay the files and set what a program finds at its start; return how the interpreter is to run it."""
        program, files, environment, args = marshal.loads(order)  # noqa: S302 - from the engine
        file = 0
        if blank is not None and len(files) == 1 and _NAME in files:
            file = blank.fill(files[_NAME])
        else:
            if blank is not None:
                blank.discard()
            init.lay(files)
        if environment:
            os.environ.update(environment)
            if "TZ" in environment:
                import time  # noqa: PLC0415 - loaded by now

                time.tzset()
        sys.argv += args
        sys.orig_argv += args
        if program == _PROGRAM:
            path = _PATH
        else:
            sys.argv[0] = program
            sys.orig_argv[-len(args) - 1] = program
            path = os.fsencode(program)
        return file or self._libc.fopen(path, b"rb"), path, 1, None

    def _spec(self, limits: dict[str, Any], *, forkable: bool) -> Spec:
        if self._latest is None or self._latest[0] != (limits, forkable):
            made = Spec(argv=(), environment={}, mounts=(), files={}, limits=Limits(**limits), forkable=forkable)
            self._latest = ((limits, forkable), made)
        return self._latest[1]

    def _come_out(self, new: birth.Birth, wiring: init.Wiring, spec: Spec) -> None:
        try:
            new.come_out(wiring, spec, self._system_calls[wiring.sampled])
        except Exception as error:  # noqa: BLE001 - the outermost frame of this process
            init.tell(wiring.control, init.FAILED + repr(error).encode("utf-8", "replace")[:1000])
            os._exit(1)


def _await_order(control: socket, *, shares_user: bool) -> bytes:
    """Say that this process waits, and take its one order."""
    birth.tell_that_it_waits(control)
    rlimits.narrow(shares_user=shares_user)
    order = control.recv(MESSAGE)
    if order == BY_MEMORY:
        order = b""
        for descriptor in receive(control, 1)[1]:
            with open(descriptor, "rb") as file:
                file.seek(0)
                order = file.read()
    if not order:
        os._exit(1)
    control.close()
    return order


class _Blank:
    """The empty file of a program that most orders name, open ahead: to write to, and as the interpreter reads it."""

    def __init__(self, path: str, libc: ctypes.CDLL) -> None:
        self._path, self._libc = path, libc
        # What the sample left.
        self._writes = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        self._file: int = libc.fopen(os.fsencode(path), b"rb")

    def fill(self, data: bytes) -> int:
        """Write the program's text; return what the interpreter is to read."""
        init.fill(self._writes, data)
        return self._file

    def discard(self) -> None:
        """Take it away: in a folder names stand in the order in which they came."""
        os.close(self._writes)
        self._libc.fclose(self._file)
        os.unlink(self._path)


def receive(channel: socket, descriptors: int) -> tuple[bytes, list[int]]:
    """Take one message and the descriptors that come with it; an empty one means that the other end closed."""
    message, ancillary, _flags, _address = channel.recvmsg(MESSAGE, 4 * descriptors + 32, _CMSG_CLOEXEC)
    numbers: list[int] = []
    for _level, _kind, data in ancillary:
        # No module for that: a program would find it loaded, and its end would look through what it is made of.
        numbers += memoryview(data[: len(data) - len(data) % 4]).cast("i")
    return message, numbers
