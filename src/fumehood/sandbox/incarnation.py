"""One life of a session: one sandbox whose program runs cells, and the thread that listens to it.

Promised: a cell ends, or the sandbox does, within its time; what comes from inside is bounded; how it died is told from what the
kernel and its owner did. Not promised: that what a cell claims to have shown is what its code did: all of it is the guest's
own word.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from ..errors import ForkRefused, SandboxFailed, SessionBusy, SessionDead
from ..protocol.session import CellResult, Death, Event, Output
from .cell import Cell, Held, Shown
from .channel import BrokenProtocol, Channel, event_of
from .init import ENDED, REPORT
from .usage import tree_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from ..protocol.limits import Limits
    from ..protocol.session import DeathReason, Listener
    from .live import Live

_START_SECONDS = 60.0
# A cell that has run for so long lets those go first that have just begun: docs/decisions/0014.
_STAND_BACK_SECONDS = 0.5
# What an interrupted cell has to come to its end. It is interrupted twice, since an interpreter that is about to block
# sleeps through a signal that came just before; then its session is killed.
_INTERRUPTS = 2
_GRACE_SECONDS = 1.0
# Memory is looked at that often where no cgroup bounds it: while a cell runs, and between cells.
_SAMPLE_SECONDS, _SAMPLE_IDLE_SECONDS = 0.02, 0.25
_PIECE = 1 << 16
_PIECES_AT_THE_END = 32
# What a program has to come to a stand, and what one that was forked, or was not, has to go on.
_HOLD_SECONDS = 5.0
_RESUME_SECONDS = 5.0
# Messages that end a cell.
_LAST = ("done", "ready", "still")


class Opened:
    """A sandbox that runs a session's program, and how to give it back."""

    def __init__(self, live: Live, release: Callable[[], None], *, plain_cells: bool, forkable: bool) -> None:
        self.live, self.release, self.plain_cells, self.forkable = live, release, plain_cells, forkable
        #: Whether its program has been ready once.
        self.ran_before = False
        #: What a fork did not take along, in words.
        self.lost: tuple[str, ...] = ()

    def discard(self) -> None:
        """End the sandbox, which nobody listens to, and give it back."""
        self.live.kill()
        self.live.is_dead(_START_SECONDS)
        self.release()


class Incarnation:
    """One life of a session: one sandbox, and the thread that listens to it.

    The listener takes what comes from inside. The clock of a cell is its caller's to look at: to wake the listener for each
    cell would take longer than many a cell.
    """

    def __init__(self, opened: Opened, limits: Limits, idle_seconds: float, lifetime_seconds: float) -> None:
        self._live, self._release, self._limits = opened.live, opened.release, limits
        self._plain_cells, self._forkable = opened.plain_cells, opened.forkable
        self._idle_seconds = idle_seconds
        self._used_at = time.monotonic()
        self._dies_at = self._used_at + lifetime_seconds
        # Not at every message: a look at much memory takes longer than many a cell.
        self._looks_at = self._used_at + _SAMPLE_SECONDS
        # For what callers and the listener both touch: the cell, the channel's sending half, the death.
        self._lock = threading.Lock()
        self._early: list[Event] = []
        self._early_bytes = 0
        self._wish: Death | None = None
        self._status: int | None = None
        self._used_seconds = 0.0
        self._leaving = self._holds = False
        self.death: Death | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        if self._live.channel is None:
            raise SandboxFailed("a session's sandbox has no channel")
        self._live.channel.setblocking(False)
        self._channel = Channel(self._live.channel, limits.output_bytes + _PIECE)
        # That its program says that it is ready is its first cell.
        self._first = Cell(_RESUME_SECONDS if opened.ran_before else _START_SECONDS)
        self._cell: Cell | None = self._first
        self._listener = threading.Thread(target=self._listen, name="fumehood-session", daemon=True)

    def start(self) -> None:
        """Return when its program is ready. Raises `SandboxFailed` where it is dead instead; then so is this."""
        self._listener.start()
        self._await(self._first, None)
        if not self._first.is_well():
            self.end("timeout", "its program was not ready in time")
            raise SandboxFailed(f"the session did not start: {self.death}")

    @property
    def status(self) -> str:
        """Say what `Session.status` says."""
        return "dead" if self.death is not None else "idle" if self._cell is None else "busy"

    def run(self, code: str, seconds: float, on_event: Listener | None) -> CellResult:
        """Do what `Session.run` does, for one caller at a time."""
        cell = self._begin(code if self._plain_cells else json.dumps({"run": code}), seconds)
        try:
            events = self._await(cell, on_event)
        except BaseException:
            # The caller's own Ctrl-C, or its listener failed: the cell must not run on without anyone.
            self._stop(cell, "timeout")
            self._await(cell, None)
            raise
        return CellResult(
            ok=cell.ok and cell.is_well(), events=tuple(events), ended=cell.ended,
            duration_seconds=time.monotonic() - cell.started,
        )  # fmt: skip

    def hold(self) -> Held:
        """Bring its program to a stand between two cells, and leave its sandbox to the caller: this life ends here.

        Raises `ForkRefused` where it cannot; then it goes on.
        """
        if not self._forkable:
            raise ForkRefused(
                "only sessions of python can be forked: those of other languages have threads or wait for others"
            )
        cell = self._begin(json.dumps({"hold": True}), _HOLD_SECONDS, holds=True)
        self._await(cell, None)
        if cell.held is not None:
            self._leave()
        self._holds = False
        if cell.held is None or self.death is not None:
            why = self.death.detail if self.death is not None else "its program did not come to a stand"
            raise ForkRefused(f"the session cannot be forked: {why}")
        return cell.held

    def _leave(self) -> None:
        """Have the listener leave the sandbox as it is, unless it has to bury it."""
        with self._lock:
            self._leaving = True
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        self._listener.join()

    def _begin(self, text: str, seconds: float, *, holds: bool = False) -> Cell:
        with self._lock:
            self._check_alive()
            if self._cell is not None:
                raise SessionBusy("a cell runs that could not be ended yet: wait, or restart the session")
            cell = self._cell = Cell(seconds, self._early)
            self._early, self._early_bytes, self._holds = [], 0, holds
            self._channel.send(text.encode("utf-8", "surrogatepass"))
            if self._channel.is_waiting:
                os.eventfd_write(self._wake, 1)
        return cell

    def _check_alive(self) -> None:
        if self.death is not None:
            raise SessionDead(f"the session is dead ({self.death.reason}: {self.death.detail}): restart it")

    def _await(self, cell: Cell, on_event: Listener | None) -> list[Event]:
        """Collect the cell's events until it has ended, and look at its clock."""
        shown, sampled = Shown(), self._live.cgroup is None
        while True:
            try:
                event = cell.events.get(timeout=self._until_next_look(cell, sampled=sampled))
            except queue.Empty:
                if sampled:
                    self._look_at_memory()
                self._let_others_first(cell)
                self._look_at_processor_time(self._live.group_seconds)
            else:
                if event is None:
                    break
                shown.add(event)
                if on_event is not None:
                    on_event(event)
            # Not only where nothing comes: small pieces may come without end.
            if time.monotonic() >= cell.deadline:
                self._stop(cell, "timeout")
        if cell.stands_back and self._live.cgroup is not None:
            self._live.cgroup.stand_back(really=False)
        return shown.all()

    @property
    def cpu_seconds(self) -> float:
        """What its processes have used of the processor; those that have ended count where a cgroup counts."""
        with self._lock:
            if self.death is not None:
                return self._used_seconds
            return max(self._live.group_seconds, tree_usage(self._live.pid)[0])

    def _until_next_look(self, cell: Cell, *, sampled: bool) -> float:
        left = max(0.0, cell.deadline - time.monotonic())
        return min(left, _SAMPLE_SECONDS if sampled else _STAND_BACK_SECONDS)

    def _look_at_processor_time(self, used_seconds: float) -> None:
        if used_seconds >= self._limits.cpu_seconds and self.death is None:
            self._kill("timeout", f"{self._limits.cpu_seconds:g} seconds of CPU time are used up")

    def _let_others_first(self, cell: Cell) -> None:
        """Have a long cell stand back; where no cgroup can be told so it could not be undone, and is not done."""
        if not cell.stands_back and time.monotonic() >= cell.started + _STAND_BACK_SECONDS:
            cell.stands_back = True
            if self._live.cgroup is not None:
                self._live.cgroup.stand_back()

    def _stop(self, cell: Cell, why: Literal["timeout", "output_limit"]) -> None:
        """Interrupt a cell that must not go on; kill the session where it does all the same."""
        if cell.interrupts < _INTERRUPTS:
            if cell.is_well():
                cell.ended = why
            cell.interrupts += 1
            self.interrupt()
            cell.deadline = time.monotonic() + _GRACE_SECONDS
        else:
            self._kill(why, "its cell could not be interrupted")
            cell.deadline = time.monotonic() + _START_SECONDS

    def interrupt(self) -> None:
        """Do what `Session.interrupt` does."""
        with self._lock:
            if self._cell is None or self.death is not None:
                return
            if not self._live.is_dead():
                self._live.interrupt()

    def end(self, reason: DeathReason, detail: str) -> None:
        """End it, whatever it does, and wait until it is dead."""
        self._kill(reason, detail)
        self._listener.join()

    @contextlib.contextmanager
    def work(self) -> Iterator[int]:
        """Give its working folder, open."""
        with self._lock:
            self._check_alive()
            work = os.dup(self._live.work)
            self._used_at = time.monotonic()
        try:
            yield work
        finally:
            os.close(work)

    def _kill(self, reason: DeathReason, detail: str) -> None:
        with self._lock:
            if self._wish is None:
                self._wish = Death(reason=reason, detail=detail)
            if self.death is None:
                self._live.kill()

    def _look_at_memory(self) -> None:
        if self._live.cgroup is not None or self._live.work < 0:
            return
        with self._lock:
            # The listener may have buried it meanwhile, and its descriptors' numbers be another's.
            if self.death is not None:
                return
            self._live.give_up_old_memory()
            pid, disk = self._live.pid, os.fstatvfs(self._live.work)
        cpu_seconds, resident = tree_usage(pid)
        self._look_at_processor_time(cpu_seconds)
        held = resident + (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        if held > self._limits.memory_bytes:
            self._kill("out_of_memory", f"its processes and files held {held} bytes of {self._limits.memory_bytes}")

    # What follows is the listener's.

    def _listen(self) -> None:
        live = self._live
        poll = select.poll()
        ends = {live.process, live.program} - {-1}
        others = {live.control.fileno(), self._channel.fileno(), live.stdout, live.stderr, self._wake}
        for descriptor in ends | others:
            poll.register(descriptor, select.POLLIN)
        streams = {live.stdout: "stdout", live.stderr: "stderr"}
        try:
            while not self._leaving and not ends & (ready := {number for number, _event in poll.poll(self._pause())}):
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                self._flush(poll)
                # Messages first: whoever sends one inside has waited until the streams were empty.
                self._read_messages(poll)
                for descriptor in ready & streams.keys():
                    self._read_stream(descriptor, streams[descriptor], poll)
                if live.control.fileno() in ready:
                    self._read_control(poll)
                self._look_at_clocks()
            if self._leaving:
                return
            if live.program in ready:
                self._status, self._used_seconds = live.program_end
            self._read_messages(poll)
            for descriptor, name in streams.items():
                while self._read_stream(descriptor, name, poll):
                    pass
            while self._read_control(poll):
                pass
        finally:
            if not self._leaving:
                self._bury()
            with self._lock:
                os.close(self._wake)
                self._wake = -1

    def _pause(self) -> float:
        """Return milliseconds until a clock is to be looked at."""
        idle_at = self._used_at + self._idle_seconds if self._cell is None else self._dies_at
        # An hour at most: poll takes no more than 2**31 milliseconds.
        pause = max(0.0, min(idle_at, self._dies_at, time.monotonic() + 3600) - time.monotonic())
        return 1000 * (pause if self._live.cgroup is not None else min(pause, _SAMPLE_IDLE_SECONDS))

    def _look_at_clocks(self) -> None:
        if self._leaving or (self._holds and self._cell is None):
            return  # whoever asked it to stand still has it now, and waits for us to leave
        now = time.monotonic()
        if now >= self._dies_at:
            self._kill("lifetime", "its lifetime is used up")
        elif self._cell is None and now >= self._used_at + self._idle_seconds:
            self._kill("idle", f"nothing was asked of it for {self._idle_seconds:g} seconds")
        if now >= self._looks_at:
            self._look_at_memory()
            self._looks_at = now + _SAMPLE_SECONDS

    def _flush(self, poll: select.poll) -> None:
        with self._lock:
            self._channel.flush()
            events = select.POLLIN | (select.POLLOUT if self._channel.is_waiting else 0)
        poll.modify(self._channel.fileno(), events)

    def _read_messages(self, poll: select.poll) -> None:
        try:
            while (message := self._channel.receive()) is not None:
                if not message:
                    poll.unregister(self._channel.fileno())
                    self._channel = _Closed(self._wake)  # type: ignore[assignment]  # has what is called from here on
                    return
                self._take(message)
        except (BrokenProtocol, RecursionError) as error:
            self._kill("protocol", str(error))

    def _take(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind in (*_LAST, "error"):
            self._drain_streams()
        held = Held.of(message) if kind == "still" else None
        if kind in _LAST:
            with self._lock:
                cell, self._cell = self._cell, None
                self._used_at = time.monotonic()
            if cell is not None:
                cell.ok = message.get("ok") is True
                cell.held = held
                cell.events.put(None)
            return
        event = event_of(message)
        if event is None:
            raise BrokenProtocol("a message of an unknown kind")
        self._show(event, self._channel.received_bytes)

    def _drain_streams(self) -> None:
        # What a cell printed is there by now; a program that floods them must not keep us here.
        for descriptor, name in ((self._live.stdout, "stdout"), (self._live.stderr, "stderr")):
            for _piece in range(_PIECES_AT_THE_END):
                if not self._read_stream(descriptor, name, None):
                    break

    def _read_stream(self, descriptor: int, name: str, poll: select.poll | None) -> bool:
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            if poll is not None:
                with contextlib.suppress(KeyError):
                    poll.unregister(descriptor)
            return False
        self._show(Output(stream=name, text=piece.decode("utf-8", "replace")), len(piece))
        return True

    def _show(self, event: Event, size: int) -> None:
        with self._lock:
            cell = self._cell
            if cell is None:
                # From a thread or process that a cell left behind: shown with the next one, as far as there is room.
                self._early_bytes += size
                if self._early_bytes <= self._limits.output_bytes:
                    self._early.append(event)
                return
            cell.shown_bytes += size
        if cell.shown_bytes <= self._limits.output_bytes:
            cell.events.put(event)
        elif cell.is_well():
            self._stop(cell, "output_limit")

    def _read_control(self, poll: select.poll) -> bool:
        message = self._live.receive()
        if message is None:
            return False
        if message[0] == ENDED and len(message[1]) == REPORT.size:
            self._status, *times, _largest = REPORT.unpack(message[1])
            self._used_seconds = times[0] + times[2] + (times[1] + times[3]) / 1e6
        elif not message[0]:
            with contextlib.suppress(KeyError):
                poll.unregister(self._live.control.fileno())
        return bool(message[0])

    def _bury(self) -> None:
        """Say how it died, give its sandbox back, and wake whoever waits."""
        # It is dead by now, but where this thread failed.
        self._live.kill()
        self._live.is_dead(_START_SECONDS)
        death = self._how_it_died()
        with self._lock:
            self.death = death
            cell, self._cell = self._cell, None
            self._release()
        if cell is not None:
            cell.ended = "died"
            cell.events.put(None)

    def _how_it_died(self) -> Death:
        cgroup, status = self._live.cgroup, self._status
        if cgroup is not None and cgroup.oom_kills:
            held = f"its processes and files needed more than {self._limits.memory_bytes} bytes of memory"
            return Death(reason="out_of_memory", detail=held)
        if self._wish is not None:
            return self._wish
        if status is None:
            return Death(reason="killed", detail="its process 1, or what it was forked from, was killed")
        if not os.WIFSIGNALED(status):
            return Death(reason="exited", detail=f"its program ended with exit code {os.WEXITSTATUS(status)}")
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        if number in (signal.SIGXCPU, signal.SIGKILL) and self._used_seconds >= int(self._limits.cpu_seconds):
            return Death(reason="timeout", detail=f"{self._limits.cpu_seconds:g} seconds of CPU time are used up")
        return Death(reason="killed" if number == signal.SIGKILL else "crashed", detail=f"signal {name} ended it")


class _Closed:
    """What stands for a channel whose other end is gone: the process is about to end, or waits to be killed."""

    is_waiting, received_bytes = False, 0

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def flush(self) -> None:
        pass

    def send(self, data: bytes) -> None:
        pass

    def receive(self) -> dict[str, Any] | None:
        return None
