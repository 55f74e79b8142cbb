"""A session's program brought to a stand for good, and the copies of its sandbox that are forked from it.

Promised: no process of the guest runs in the template's sandbox any more, which is what makes nesting others in it safe: one
could act upon namespaces below its own. The sandbox stays, as an empty shell in the end, for as long as a copy lives. Any
thread may call.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ForkRefused, SandboxFailed
from . import kernel, tracing, usage
from .incarnation import Opened
from .init import MAPPED
from .live import BORN, RUNS, SETUP_SECONDS, Live

if TYPE_CHECKING:
    from ..protocol.limits import Limits
    from .cell import Held
    from .launcher import Launcher

_STOP_SECONDS, _THAW_SECONDS = 2.0, 0.25
_AT_ONCE = 32


class Places:
    """Empty sandboxes for copies, made before the session comes to a stand. What is not taken, `close` takes away."""

    def __init__(self, count: int, limits: Limits, *, cgroups: bool) -> None:
        self._lives: list[Live] = []
        try:
            while len(self._lives) < min(count, _AT_ONCE):
                self._lives.append(Live(limits, cgroup=cgroups, channel=True))
        except BaseException:
            self.close()
            raise
        if self._lives[0].cgroup is not None:
            # After they were made: the kernel makes no group while that wait lasts.
            self._lives[0].cgroup.expect_moves()

    def take(self) -> list[Live]:
        """Return them: they are the caller's."""
        taken, self._lives = self._lives, []
        return taken

    def close(self) -> None:
        """Take away those that are left."""
        for live in self.take():
            live.close()


class Template:
    """Made from a sandbox whose program has come to a stand; owns it from then on. Raises `ForkRefused`, and does not own it."""

    def __init__(self, opened: Opened, held: Held, limits: Limits, launcher: Launcher) -> None:
        self._opened, self._limits, self._launcher = opened, limits, launcher
        self._lock = threading.Lock()
        # Its maker and each living copy.
        self._users = 1
        self._was_copied = False
        #: The process to fork, and the session's own where that is another: it had threads, and forked itself.
        self._processes = tuple(pid for pid in (opened.live.program_pid,) if pid is not None)
        self._lost = held.lost
        try:
            self._processes = self._held_processes(held.pid)
            if killed := self._end_others():
                self._lost += (f"{killed} other process{'es' if killed > 1 else ''}",)
        except BaseException:
            self.thaw()
            raise

    def copies(self, count: int = 1, *, last: bool = False, places: Places | None = None) -> list[Opened]:
        """Fork copies into sandboxes of their own, which run when this returns: all or none. Raises `ForkRefused`.

        `last`: there will be no others, and it is closed. `places` are for the first of them.
        """
        made: list[Opened] = []
        try:
            while len(made) < count:
                places = places or Places(count - len(made), self._limits, cgroups=self._opened.live.cgroup is not None)
                made += self._some(places.take(), count - len(made), last=last)
                places = None
                self._was_copied = True
        except BaseException:
            for each in made:
                each.discard()
            raise
        if last:
            self._drop()
        return made

    def _some(self, lives: list[Live], wanted: int, *, last: bool) -> list[Opened]:
        try:
            lost = self._fork(lives, are_last=last and len(lives) == wanted)
        except BaseException as error:
            for live in lives:
                live.kill()
                live.close()
            if isinstance(error, (OSError, SandboxFailed)):
                raise ForkRefused(f"the session cannot be forked: {error}") from error
            raise
        with self._lock:
            self._users += len(lives)
        return [self._opened_copy(live, lost) for live, lost in zip(lives, lost, strict=True)]

    def _opened_copy(self, live: Live, lost: str) -> Opened:
        def release() -> None:
            live.close()
            self._drop()

        opened = Opened(live, release, plain_cells=self._opened.plain_cells, forkable=True)
        opened.ran_before = True
        opened.lost = (*self._lost, *((lost,) if lost else ()))
        return opened

    def thaw(self) -> None:
        """Have the program go on as if nothing had been asked; the sandbox is the caller's again. No copy may have been made."""
        # Whoever failed to fork the first copy has done it already.
        until, was_there = time.monotonic() + _THAW_SECONDS, False
        with contextlib.suppress(OSError):  # it ended
            for other in self._processes[1:]:
                os.kill(other, signal.SIGCONT)
            # A signal that comes just before it waits is lost, so until it is seen to have left.
            while time.monotonic() < until and (waits := tracing.is_paused(self._processes[0])) >= was_there:
                if waits:
                    was_there = True
                    os.kill(self._processes[0], signal.SIGINT)
                time.sleep(0.0005)

    def close(self) -> None:
        """Fork no more copies: its memory is given up, and its sandbox ends with the last of them."""
        with self._lock:
            is_needed = self._users > 1
        if is_needed and not self._opened.live.is_dead():
            os.close(self._launcher.spawn_emptier(self._held))
        self._drop()

    def _fork(self, lives: list[Live], *, are_last: bool) -> list[str]:
        channel = self._opened.live.channel
        if channel is None or self._opened.live.is_dead():
            raise SandboxFailed("what it would be forked from is dead")
        orders = [(live.stdio, live.far) for live in lives]
        order = {"are_first": not self._was_copied, "are_last": are_last}
        os.close(self._launcher.spawn_copier(self._held, self._limits, orders, channel, **order))
        for live in lives:
            live.born()
        return _wait(lives)

    @property
    def _held(self) -> tuple[int, int, int]:
        return self._opened.live.pid, self._processes[0], self._processes[-1]

    def _drop(self) -> None:
        with self._lock:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self._opened.discard()

    def _held_processes(self, inside: int) -> tuple[int, ...]:
        """Return what `_processes` holds, given the number inside of the process to fork."""
        own = self._opened.live.program_pid
        for pid in usage.tree(self._opened.live.pid)[1:]:
            if _number_inside(pid) == inside:
                return (pid,) if pid == own or own is None else (pid, own)
        raise ForkRefused("the session cannot be forked: the process that it named is not there")

    def _end_others(self) -> int:
        """Kill every process of the guest but those; return how many. First stop the one that may have threads."""
        for pid in self._processes[1:]:
            os.kill(pid, signal.SIGSTOP)
            _wait_until_stopped(pid)
        kept, killed = {self._opened.live.pid, *self._processes}, set[int]()
        until = time.monotonic() + _STOP_SECONDS
        while others := [
            pid for pid in usage.tree(self._opened.live.pid) if pid not in kept and usage.states(pid) - {"Z", "X"}
        ]:
            if time.monotonic() > until:
                raise ForkRefused("the session cannot be forked: its processes multiply")
            for pid in others:
                self._kill(pid)
            killed.update(others)
        return len(killed)

    def _kill(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # The number may stand for another process by now: only one of that namespace is meant.
            if os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{self._processes[0]}/ns/pid"):
                kernel.send_signal(pidfd, signal.SIGKILL)
        except OSError:
            pass  # it ended
        finally:
            os.close(pidfd)


def _wait(lives: list[Live]) -> list[str]:
    """Wait until the copies run; return what each lost."""
    waiting = {live.control.fileno(): live for live in lives}
    lost: dict[Live, str] = {}
    poll = select.poll()
    for number in waiting:
        poll.register(number, select.POLLIN)
    deadline = time.monotonic() + SETUP_SECONDS
    while waiting:
        if not (ready := poll.poll(max(0, deadline - time.monotonic()) * 1000)):
            raise SandboxFailed(f"it did not run after {SETUP_SECONDS:g} seconds")
        for number, _event in ready:
            live = waiting[number]
            kind, body = live.receive() or (b"", b"")
            if kind == BORN:
                with contextlib.suppress(BrokenPipeError):  # then it said why
                    live.enter_cgroup()
                    live.control.send(MAPPED)
            elif kind == RUNS:
                lost[live] = body.decode("utf-8", "replace")
                poll.unregister(number)
                del waiting[number]
            elif not kind:
                raise SandboxFailed("what forks it was killed")
    return [lost[live] for live in lives]


def _number_inside(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    return next(int(line.split()[-1]) for line in text.splitlines() if line.startswith("NSpid:"))


def _wait_until_stopped(pid: int) -> None:
    until = time.monotonic() + _STOP_SECONDS
    while usage.states(pid) - {"T", "t"}:
        if time.monotonic() > until:
            raise ForkRefused("the session cannot be forked: its threads cannot be stopped")
        time.sleep(0.0005)
