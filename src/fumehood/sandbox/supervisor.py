"""The host's side of one sandbox: starts it, feeds it, bounds it, ends it, and says why it ended.

Promised: `supervise` returns only when every process of the guest is dead, on every path; output is read through
bounded buffers; the reason comes from wait status, cgroup counters, clocks and file-system counters, never from
what the guest wrote. Not promised: that a deadline is met to the millisecond on a machine without a free core.
"""

from __future__ import annotations

import os
import select
import struct
import time

from ..errors import SandboxFailed
from ..protocol.record import Record
from . import kernel
from .cgroup import Cgroup
from .init import ENDED, FAILED, READY, REPORT
from .isolation.namespaces import UserLease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Literal

    from .spec import Spec

    Spawn = Callable[[Spec, tuple[int, int, int], socket, tuple[str, ...], int | None], tuple[int, int]]
    Listener = Callable[[Literal["stdout", "stderr"], bytes], None]
    #: What the supervisor itself ended a sandbox for.
    Verdict = Literal["timeout", "out_of_memory", "output_limit", "cancelled"]

_SETUP_SECONDS = 15.0
_PIECE = 1 << 16
# Sampling costs about 0.1 ms a time; memory must be looked at often, since a core can fill 20 MB in between.
_SAMPLE_MEMORY_SECONDS = 0.02
_SAMPLE_CPU_SECONDS = 0.1


class Outcome(Record):
    """Facts about a sandbox that has ended. `status` is the program's wait status, None where it was killed with all."""

    verdict: Verdict | None
    detail: str
    status: int | None
    stdout: bytes
    stderr: bytes
    work: int
    disk_was_full: bool
    oom_kills: int
    duration_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None
    network_refused: int
    tier: str


class Stdin:
    """What the guest reads: bytes at hand, or a descriptor of ours that is read as it goes."""

    def __init__(self, data: bytes = b"", source: int | None = None) -> None:
        self.data = memoryview(data)
        self.source = source


def supervise(
    spec: Spec, spawn: Spawn, *, stdin: Stdin, on_output: Listener | None = None, cancel: int | None = None
) -> Outcome:
    """Run the sandbox to its end. The caller owns `Outcome.work`, an open folder, and must close it.

    `cancel`, a descriptor, ends it early once readable. Raises `SandboxFailed` where it could not be set up.
    """
    with UserLease() as lease:
        # Ordinary users may have a delegated tree; root always has what the host has.
        cgroup = None if "cgroup" in spec.without else Cgroup.open(spec.limits)
        run = _Run(spec, cgroup, stdin, on_output, cancel)
        try:
            run.start(spawn, lease.user)
            run.watch()
            return run.outcome()
        except BaseException:
            run.abandon()
            raise
        finally:
            run.close()
            if cgroup is not None:
                cgroup.close()


class _Run:
    def __init__(
        self, spec: Spec, cgroup: Cgroup | None, stdin: Stdin, on_output: Listener | None, cancel: int | None
    ) -> None:
        self._spec, self._limits, self._cgroup = spec, spec.limits, cgroup
        self._stdin, self._on_output, self._cancel = stdin, on_output, cancel
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._descriptors: dict[str, int] = {}
        import _socket  # noqa: PLC0415 - `socket` takes 4 ms to import, this nothing

        self._control, self._far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._poll = select.poll()
        self._deadline = self._next_sample = time.monotonic() + _SETUP_SECONDS
        self._pid, self._work = -1, -1
        self._verdict: Verdict | None = None
        self._detail = ""
        self._report: tuple[int, int, int, int, int] | None = None
        self._cpu_seconds, self._peak_bytes = 0.0, 0
        self._disk_was_full = False
        self._started = self._ended = time.monotonic()

    def start(self, spawn: Spawn, user: int | None) -> None:
        theirs: list[int] = []
        for name in ("stdin", "stdout", "stderr"):
            read, write = os.pipe()
            mine, other = (write, read) if name == "stdin" else (read, write)
            os.set_blocking(mine, False)
            self._descriptors[name] = mine
            theirs.append(other)
        try:
            entrances = self._cgroup.entrances if self._cgroup else ()
            stdio = (theirs[0], theirs[1], theirs[2])
            self._pid, self._descriptors["process"] = spawn(self._spec, stdio, self._far, entrances, user)
        except OSError as error:
            raise SandboxFailed(f"no sandbox could be started: {error}. `fumehood doctor` tells why") from error
        finally:
            for descriptor in theirs:
                os.close(descriptor)
            self._far.close()
        self._control.setblocking(False)

    def watch(self) -> None:
        """Serve its descriptors until its process 1 is dead and its pipes are drained."""
        poll = self._poll
        handlers: dict[int, Callable[[], object]] = {self._control.fileno(): self._read_control}
        handlers[self._descriptors["stdout"]] = lambda: self._read_output("stdout")
        handlers[self._descriptors["stderr"]] = lambda: self._read_output("stderr")
        for descriptor in (*handlers, self._descriptors["process"]):
            poll.register(descriptor, select.POLLIN)
        handlers[self._descriptors["stdin"]] = self._feed
        if self._stdin.source is not None:
            handlers[self._stdin.source] = self._take_stdin
        if self._cancel is not None:
            poll.register(self._cancel, select.POLLIN)
            handlers[self._cancel] = lambda: self._end("cancelled", "the caller cancelled it")
        self._feed()
        while True:
            pause = min(self._deadline, self._next_sample) - time.monotonic()
            events = poll.poll(max(0, pause * 1000))
            ready = [descriptor for descriptor, _event in events]
            for descriptor in ready:
                if descriptor in handlers:
                    handlers[descriptor]()
            if self._descriptors["process"] in ready or self._guest_is_gone():
                break
            self._look_at_clock(time.monotonic())
        while self._read_control():
            pass
        # Every writer is dead, so this ends; a pipe holds a mebibyte at most.
        while self._read_output("stdout") or self._read_output("stderr"):
            pass
        self._ended = min(self._ended, time.monotonic()) if self._report else time.monotonic()

    def _guest_is_gone(self) -> bool:
        # Process 1 reports after it has killed and reaped all others. It is ours, and ends by itself within a
        # millisecond; only a cgroup must be empty of it before it can be removed.
        return self._report is not None and self._cgroup is None

    def _look_at_clock(self, now: float) -> None:
        if now >= self._deadline:
            if self._work < 0:
                raise SandboxFailed(f"the sandbox was not ready after {_SETUP_SECONDS:g} seconds")
            self._end("timeout", f"{self._limits.wall_seconds:g} seconds of wall time are used up")
        elif now >= self._next_sample:
            resident = self._measure()
            if self._cgroup is None and resident > self._limits.memory_bytes:
                held = f"its processes and files held {resident} bytes of {self._limits.memory_bytes}"
                self._end("out_of_memory", held)
            elif self._cpu_seconds >= self._limits.cpu_seconds:
                self._end("timeout", f"{self._limits.cpu_seconds:g} seconds of CPU time are used up")
            self._next_sample = now + (_SAMPLE_MEMORY_SECONDS if self._cgroup is None else _SAMPLE_CPU_SECONDS)

    def _end(self, verdict: Verdict, detail: str) -> None:
        if self._verdict is None:
            self._measure()
            self._verdict, self._detail = verdict, detail
        kernel.send_signal(self._descriptors["process"], 9)
        # Only its death is awaited from here on.
        self._deadline = time.monotonic() + _SETUP_SECONDS

    def _measure(self) -> int:
        """Take note of what it uses; return the bytes that its processes and files hold now."""
        if self._work < 0:
            return 0
        from .usage import tree_usage  # noqa: PLC0415 - most programs end before the first look

        cpu_seconds, resident = tree_usage(self._pid)
        disk = os.fstatvfs(self._work)
        held = resident + (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        self._disk_was_full |= disk.f_bavail == 0 or disk.f_favail == 0
        self._cpu_seconds = max(self._cpu_seconds, cpu_seconds)
        self._peak_bytes = max(self._peak_bytes, held)
        return held

    def _read_control(self) -> bool:
        """Take one message; return whether there may be more."""
        try:
            message, ancillary, _flags, _address = self._control.recvmsg(2048, 64)
        except BlockingIOError:
            return False
        for _level, _kind, data in ancillary:
            self._work = struct.unpack("i", data[:4])[0]
            os.set_inheritable(self._work, False)
        kind, body = message[:1], message[1:]
        if kind == READY and self._work >= 0:
            self._started = time.monotonic()
            self._deadline = self._started + self._limits.wall_seconds
            self._next_sample = self._started + _SAMPLE_MEMORY_SECONDS
        elif kind == FAILED:
            raise SandboxFailed(f"the sandbox could not be set up: {body.decode('utf-8', 'replace')}")
        elif kind == ENDED and len(body) == REPORT.size:
            self._report = REPORT.unpack(body)
            self._ended = time.monotonic()
        elif not message:
            self._stop_polling(self._control.fileno())
        return bool(message)

    def _read_output(self, stream: Literal["stdout", "stderr"]) -> bool:
        """Take one piece; return whether there may be more."""
        try:
            piece = os.read(self._descriptors[stream], _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            self._stop_polling(self._descriptors[stream])
            return False
        kept = self._output[stream]
        room = self._limits.output_bytes - len(kept)
        if room > 0:
            kept += piece[:room]
            if self._on_output:
                self._on_output(stream, piece[:room])
        if len(piece) > room and self._verdict is None:
            self._end("output_limit", f"{stream} is longer than {self._limits.output_bytes} bytes")
        return True

    def _feed(self) -> None:
        """Write what there is to the guest's standard input; wait for room, for more, or close it."""
        stdin = self._descriptors["stdin"]
        if stdin < 0:
            return
        try:
            while self._stdin.data:
                self._stdin.data = self._stdin.data[os.write(stdin, self._stdin.data[:_PIECE]) :]
        except BlockingIOError:
            self._poll.register(stdin, select.POLLOUT)
            return
        except BrokenPipeError:
            self._stdin.source = None
        self._stop_polling(stdin)
        if self._stdin.source is not None:
            self._poll.register(self._stdin.source, select.POLLIN)
        else:
            os.close(stdin)
            self._descriptors["stdin"] = -1

    def _take_stdin(self) -> None:
        source = self._stdin.source
        if source is None:
            return
        piece = os.read(source, _PIECE)
        # Not polled again before the guest has taken this piece.
        self._stop_polling(source)
        if not piece:
            self._stdin.source = None
        self._stdin.data = memoryview(piece)
        self._feed()

    def _stop_polling(self, descriptor: int) -> None:
        try:
            self._poll.unregister(descriptor)
        except KeyError:
            pass  # it was not polled

    def outcome(self) -> Outcome:
        killed = self._verdict is not None or self._oom_kills() > 0
        if self._work < 0 or (self._report is None and not killed):
            raise SandboxFailed("the sandbox's process 1 died without a word: is the machine out of memory?")
        disk = os.fstatvfs(self._work)
        status, user_us, system_us, largest_kib, refused = self._report or (None, 0, 0, 0, 0)
        peak = self._cgroup.peak_bytes if self._cgroup else None
        work, self._work = self._work, -1
        return Outcome(
            verdict=self._verdict,
            detail=self._detail,
            status=status,
            stdout=bytes(self._output["stdout"]),
            stderr=bytes(self._output["stderr"]),
            work=work,
            disk_was_full=self._disk_was_full or disk.f_bavail == 0 or disk.f_favail == 0,
            oom_kills=self._oom_kills(),
            duration_seconds=self._ended - self._started,
            cpu_seconds=max(self._cpu_seconds, (user_us + system_us) / 1e6),
            peak_memory_bytes=peak or max(self._peak_bytes, largest_kib * 1024) or None,
            network_refused=max(0, refused),
            tier="cgroup" if self._cgroup else "sampled",
        )

    def _oom_kills(self) -> int:
        return self._cgroup.oom_kills if self._cgroup else 0

    def abandon(self) -> None:
        """Kill it and wait until it is dead: the way out when an error or Ctrl-C cuts the watch short."""
        process = self._descriptors.get("process", -1)
        if process >= 0:
            kernel.send_signal(process, 9)
            poll = select.poll()
            poll.register(process, select.POLLIN)
            poll.poll(_SETUP_SECONDS * 1000)
        if self._work >= 0:
            os.close(self._work)

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._control.close()
