"""The host's side of one sandbox: starts it, feeds it, bounds it, ends it, and says why it ended.

Promised: `supervise` returns only when every process of the guest is dead, on every path; output is read through
bounded buffers; the reason comes from wait status, cgroup counters, clocks and file-system counters, never from
what the guest wrote. Not promised: that a deadline is met to the millisecond on a machine without a free core.
"""

from __future__ import annotations

import os
import select
import time

from ..errors import SandboxFailed
from ..protocol.record import Record
from .init import ASKS, ENDED, LISTENS, READY, REPORT
from .isolation import gvisor
from .isolation.namespaces import UserLease
from .live import SETUP_SECONDS, Live
from .usage import MOST_LOCKS, holds_too_many_locks, shares_by_session, stand_back, tree_usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from ..protocol.execution import DeniedCall
    from ..protocol.limits import Limits
    from .denials import Denials
    from .live import Spawn
    from .spec import Spec

    Listener = Callable[[Literal["stdout", "stderr"], bytes], None]
    #: What the supervisor itself ended a sandbox for.
    Verdict = Literal["timeout", "out_of_memory", "output_limit", "cancelled"]

_PIECE = 1 << 16
_QUIET_MILLISECONDS = 2
# Sampling costs about 0.1 ms a time; memory must be looked at often, since a core can fill 20 MB in between.
_SAMPLE_MEMORY_SECONDS = 0.02
_SAMPLE_CPU_SECONDS = 0.1
# A program that has computed for so long lets those go first that have just begun: docs/decisions/0014.
_STAND_BACK_CPU_SECONDS = 0.5


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
    peak_memory_bytes: Callable[[], int | None]
    network_refused: Callable[[], int]
    tier: str
    denied_calls: tuple[DeniedCall, ...] | None = None


class Stdin:
    """What the guest reads: bytes at hand, or a descriptor of ours that is read as it goes."""

    def __init__(self, data: bytes = b"", source: int | None = None) -> None:
        self.data = memoryview(data)
        self.source = source


def supervise(
    spec: Spec, spawn: Spawn, *, stdin: Stdin, on_output: Listener | None = None, cancel: int | None = None,
    on_listeners: Callable[[list[int]], None] | None = None,
) -> Outcome:  # fmt: skip
    """Run a cold sandbox to its end. The caller owns `Outcome.work`, an open folder, and must close it.

    `cancel`, a descriptor, ends it early once readable. `on_listeners` as in `watch`. Raises `SandboxFailed`.
    """
    limits = gvisor.outer_limits(spec.limits) if spec.isolation == "gvisor" else spec.limits
    with UserLease() as lease:
        # Ordinary users may have a delegated tree; root always has what the host has.
        live = Live(limits, cgroup="cgroup" not in spec.without)
        try:
            live.start(spec, spawn, lease.user)
            denials = _denials(spec.profile, live) if spec.explain else None
            return watch(
                live, limits, stdin=stdin, on_output=on_output, cancel=cancel, on_listeners=on_listeners,
                denials=denials,
            )  # fmt: skip
        finally:
            live.close()


def _denials(profile: str, live: Live) -> Denials:
    from .denials import Denials  # noqa: PLC0415 - 3 ms that explanations alone pay

    return Denials(profile, sampled=live.cgroup is None)


def watch(
    live: Live, limits: Limits, *, stdin: Stdin, on_output: Listener | None = None, cancel: int | None = None,
    on_listeners: Callable[[list[int]], None] | None = None, denials: Denials | None = None,
) -> Outcome:  # fmt: skip
    """Do the same for a sandbox that was made, and for a warm one that has its order. The caller closes it.

    `on_listeners` is given the listening sockets of a sandbox that has a way out, descriptors which it owns. `denials` answers
    for a sandbox that is to be explained.
    """
    run = _Run(live, limits, stdin, on_output, cancel, on_listeners, denials)
    try:
        run.watch()
        return run.outcome()
    except BaseException:
        live.kill()
        live.is_dead(SETUP_SECONDS)
        raise


class _Run:
    def __init__(
        self, live: Live, limits: Limits, stdin: Stdin, on_output: Listener | None, cancel: int | None,
        on_listeners: Callable[[list[int]], None] | None, denials: Denials | None,
    ) -> None:  # fmt: skip
        self._live, self._limits, self._cgroup = live, limits, live.cgroup
        self._stdin, self._on_output, self._cancel, self._on_listeners = stdin, on_output, cancel, on_listeners
        self._denials = denials
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._poll = select.poll()
        now = time.monotonic()
        self._deadline = self._next_sample = now + SETUP_SECONDS
        self._verdict: Verdict | None = None
        self._detail = ""
        self._report: tuple[int, ...] | None = None
        self._cpu_seconds, self._peak_bytes = 0.0, 0
        self._disk_was_full = self._stands_back = False
        self._started = self._ended = now
        if live.ordered_at:
            self._start_clock(live.ordered_at)

    def _start_clock(self, now: float) -> None:
        self._started = now
        self._deadline = now + self._limits.wall_seconds
        self._next_sample = now + _SAMPLE_MEMORY_SECONDS

    def watch(self) -> None:
        """Serve its descriptors until its process 1 is dead and its pipes are drained."""
        for descriptor in (self._live.control.fileno(), self._live.process):
            self._poll.register(descriptor, select.POLLIN)
        self._feed()
        if not self._ends_quietly():
            self._serve()
        while not self._report and self._read_control():
            pass
        # Every writer is dead, so this ends; a pipe holds a mebibyte at most.
        while self._read_output("stdout", self._live.stdout) or self._read_output("stderr", self._live.stderr):
            pass
        self._ended = min(self._ended, time.monotonic()) if self._report else time.monotonic()

    def _ends_quietly(self) -> bool:
        """Give a short program that nobody listens to a moment to end: each line of it would wake this process otherwise."""
        if (
            self._on_output is not None
            or self._cancel is not None
            or self._live.stdin >= 0
            or self._denials is not None
        ):
            return False
        for descriptor, _event in self._poll.poll(_QUIET_MILLISECONDS):
            if descriptor == self._live.process:
                return True
            self._read_control()
        return self._report is not None

    def _serve(self) -> None:
        live, poll = self._live, self._poll
        handlers: dict[int, Callable[[], object]] = {live.control.fileno(): self._read_control}
        handlers[live.stdout] = lambda: self._read_output("stdout", live.stdout)
        handlers[live.stderr] = lambda: self._read_output("stderr", live.stderr)
        for descriptor in (live.stdout, live.stderr):
            poll.register(descriptor, select.POLLIN)
        handlers[live.stdin] = self._feed
        if self._stdin.source is not None:
            handlers[self._stdin.source] = self._take_stdin
        if self._cancel is not None:
            poll.register(self._cancel, select.POLLIN)
            handlers[self._cancel] = lambda: self._end("cancelled", "the caller cancelled it")
        while True:
            pause = min(self._deadline, self._next_sample) - time.monotonic()
            events = poll.poll(max(0, pause * 1000))
            ready = [descriptor for descriptor, _event in events]
            for descriptor, event in events:
                if descriptor in handlers:
                    handlers[descriptor]()
                elif descriptor == live.listener:
                    self._answer(event)
            # Process 1 reports after it has reaped all others. It is ours, and ends by itself soon.
            if self._report or live.process in ready:
                break
            self._look_at_clock(time.monotonic())

    def _look_at_clock(self, now: float) -> None:
        if now >= self._deadline:
            if self._live.work < 0:
                raise SandboxFailed(f"the sandbox was not ready after {SETUP_SECONDS:g} seconds")
            self._end("timeout", f"{self._limits.wall_seconds:g} seconds of wall time are used up")
        elif now >= self._next_sample:
            resident = self._measure()
            if self._cgroup is None and resident > self._limits.memory_bytes:
                held = f"its processes and files held {resident} bytes of {self._limits.memory_bytes}"
                self._end("out_of_memory", held)
            elif self._cpu_seconds >= self._limits.cpu_seconds:
                self._end("timeout", f"{self._limits.cpu_seconds:g} seconds of CPU time are used up")
            elif holds_too_many_locks(self._live.pid):
                self._end("out_of_memory", f"it held more than {MOST_LOCKS} locks on parts of files")
            elif self._cpu_seconds >= _STAND_BACK_CPU_SECONDS:
                self._stand_back()
            self._next_sample = now + (_SAMPLE_MEMORY_SECONDS if self._cgroup is None else _SAMPLE_CPU_SECONDS)

    def _stand_back(self) -> None:
        if self._stands_back:
            return
        if self._cgroup is not None and self._cgroup.stand_back():
            self._stands_back = True
        elif shares_by_session():
            self._stands_back = True  # nothing can be done
        else:
            # Again at each look: what a process starts follows it, but some may have been started meanwhile.
            stand_back(self._live.pid)

    def _end(self, verdict: Verdict, detail: str) -> None:
        if self._verdict is None:
            self._measure()
            self._verdict, self._detail = verdict, detail
        self._live.kill()
        # Only its death is awaited from here on.
        self._deadline = time.monotonic() + SETUP_SECONDS

    def _measure(self) -> int:
        """Take note of what it uses; return the bytes that its processes and files hold now."""
        if self._live.work < 0:
            return 0
        self._live.give_up_old_memory()
        cpu_seconds, resident = tree_usage(self._live.pid)
        disk = os.fstatvfs(self._live.work)
        held = resident + (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        self._disk_was_full |= _is_full(disk)
        # The group counts those too that nobody waits for, whose time no process is told.
        used = max(cpu_seconds - (self._live.used_seconds or 0.0), self._live.group_seconds)
        self._cpu_seconds = max(self._cpu_seconds, used)
        self._peak_bytes = max(self._peak_bytes, held)
        return held

    def _read_control(self) -> bool:
        """Take one message; return whether there may be more."""
        message = self._live.receive()
        if message is None:
            return False
        kind, body = message
        if kind == READY:
            self._live.begin_group_time()
            self._start_clock(time.monotonic())
        elif kind == LISTENS and self._on_listeners is not None:
            listeners, self._live.listeners = self._live.listeners, []
            self._on_listeners(listeners)
        elif kind == ASKS:
            self._poll.register(self._live.listener, select.POLLIN)
        elif kind == ENDED and len(body) == REPORT.size:
            self._report = REPORT.unpack(body)
            self._ended = time.monotonic()
        elif not kind:
            self._stop_polling(self._live.control.fileno())
        return bool(kind)

    def _answer(self, event: int) -> None:
        if self._denials is not None and event & select.POLLIN:
            self._denials.answer(self._live.listener)
        else:
            self._stop_polling(self._live.listener)  # nobody is left who could ask

    def _read_output(self, stream: Literal["stdout", "stderr"], descriptor: int) -> bool:
        """Take one piece; return whether there may be more."""
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            self._stop_polling(descriptor)
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
        stdin = self._live.stdin
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
            self._live.stdin = -1

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
        ended_well = self._report is not None and self._report[0] == 0
        oom_kills = self._cgroup.oom_kills if self._cgroup and not ended_well else 0
        killed = self._verdict is not None or oom_kills > 0
        live = self._live
        if live.work < 0 or (self._report is None and not killed):
            raise SandboxFailed("the sandbox's process 1 died without a word: is the machine out of memory?")
        status, *times, largest_kib = self._report or (None, 0, 0, 0, 0, 0)
        cpu_seconds = times[0] + times[2] + (times[1] + times[3]) / 1e6
        peak = self._cgroup.peak_bytes.later() if self._cgroup else None
        sampled = max(self._peak_bytes, largest_kib * 1024)
        work, live.work = live.work, -1
        # Many short programs have used nothing worth a look at the group.
        grouped = live.group_seconds if self._ended - self._started > _SAMPLE_CPU_SECONDS else 0.0
        return Outcome(
            verdict=self._verdict,
            detail=self._detail,
            status=status,
            stdout=bytes(self._output["stdout"]),
            stderr=bytes(self._output["stderr"]),
            work=work,
            # What a program did that ended well, it did with the disk that it had.
            disk_was_full=status != 0 and (self._disk_was_full or _is_full(os.fstatvfs(work))),
            oom_kills=oom_kills,
            duration_seconds=self._ended - self._started,
            cpu_seconds=max(self._cpu_seconds, grouped, cpu_seconds - (live.used_seconds or 0.0)),
            peak_memory_bytes=lambda: (peak() if peak else 0) or sampled or None,
            network_refused=live.refused.later(),
            tier="cgroup" if self._cgroup else "sampled",
            denied_calls=None if self._denials is None else self._denials.calls(),
        )


def _is_full(disk: os.statvfs_result) -> bool:
    return disk.f_bavail == 0 or disk.f_favail == 0
