"""Sandboxes forked ahead of time: taken when a program comes, made anew behind its back.

Promised: a sandbox serves one program; what waits holds no more than a set amount of memory; whoever finds nothing ready
gets one forked on demand, or None where only a cold start will do; after `close` nothing is left. A thread of its own does
the work that no caller waits for: it starts zygotes, refills, and takes away what has ended.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from operator import attrgetter

from ..errors import SandboxFailed
from .usage import private_bytes
from .walls import missing
from .warm import Kit, Zygote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from ..protocol.limits import Limits
    from .launcher import Launcher
    from .live import Live

#: Bytes that waiting sandboxes may hold in all, where nobody says otherwise.
MEMORY_BYTES = 256 << 20
#: What one that waits is taken to hold before the first was measured.
_FIRST_GUESS_BYTES = 8 << 20
_MOST_WAITING = 32
_MOST_ENDED = 32
# Load is remembered this long; what it needed is then given back.
_MEMORY_OF_LOAD_SECONDS = 10.0
_IDLE_SECONDS = 300.0
# A program that comes while others still run must not find the shelf bare because they have not ended.
_PATIENCE_SECONDS = 0.01
_RETRY_SECONDS = 30.0
_FIRST_RETRY_SECONDS, _FAILURES_THAT_STAY = 0.05, 3
_SHORT_LIFE_SECONDS = 1.0
_SEEN_DEAD_SECONDS = 0.5

# On its way a warm sandbox has two processes more than those that are not counted (`birth`).
_LEAST_PIDS = 2
#: What a sandbox is born with and cannot be given later.
_BIRTH = attrgetter("memory_bytes", "pids", "disk_bytes", "disk_files", "cpu_seconds")


class Pool:
    """All that one engine keeps warm. Any thread may call."""

    def __init__(self, launcher: Launcher, *, memory_bytes: int = MEMORY_BYTES, cgroups: bool = True) -> None:
        self._launcher, self._memory_bytes, self._cgroups = launcher, memory_bytes, cgroups
        self._changed = threading.Condition()
        self._stocks: dict[Kit, _Stock] = {}
        self._ended: deque[tuple[Zygote, Live]] = deque()
        self._refill_now = False
        self._closed = False
        self._keeper: threading.Thread | None = None

    def take(self, kit: Kit, limits: Limits, names: Iterable[str]) -> Taken | None:
        """Return a sandbox that waits for its order; None where the zygote is not up (it will be).

        `names` are those of the program's own files: where one hides a module that the zygote has loaded, None as well.
        """
        if limits.pids < _LEAST_PIDS:
            return None
        with self._changed:
            stock = self._stock(kit)
            stock.used_at = time.monotonic()
            zygote = stock.zygote
            if zygote is None or not zygote.names.isdisjoint(map(_module, names)):
                self._changed.notify()
                return None
            shelf = stock.shelf(limits)
            shelf.busy += 1
            shelf.peak = max(shelf.peak, shelf.busy)
            # The youngest: more of it is in the processors' caches.
            live = shelf.ready.pop() if shelf.ready else None
            if live is None:
                # They are taken faster than they are made: more must wait.
                shelf.peak = min(shelf.peak + 1, _MOST_WAITING)
            if not shelf.ready:
                self._changed.notify()
        try:
            while live is None or not live.wait_ready():
                if live is not None:
                    dead, live = live, None
                    zygote.release(dead)
                live = zygote.fork(limits)
        except BaseException as error:
            if live is not None:
                live.kill()
            self._finish(shelf, None if live is None else (zygote, live))
            # A cold start may do what this could not; whether the zygote lives is the keeper's to find out.
            if isinstance(error, SandboxFailed):
                return None
            raise
        return Taken(self, shelf, zygote, live)

    def fork(self, kit: Kit, limits: Limits) -> Taken | None:
        """Return a sandbox with a channel, forked on demand; None where the zygote is not up (it will be)."""
        if limits.pids < _LEAST_PIDS:
            return None
        with self._changed:
            stock = self._stock(kit)
            stock.used_at = time.monotonic()
            zygote = stock.zygote
            self._changed.notify()
        if zygote is None:
            return None
        live = None
        try:
            live = zygote.fork(limits, channel=True)
            if live.wait_ready():
                return Taken(self, None, zygote, live)
        except SandboxFailed:
            pass  # as in `take`
        if live is not None:
            zygote.release(live)
        return None

    def prepare(self, kit: Kit, limits: Limits, seconds: float = 60.0) -> None:
        """Wait until a sandbox of that kind is ready. Raises `SandboxFailed` where it cannot be had."""
        if limits.pids < _LEAST_PIDS:
            raise SandboxFailed(
                f"with {limits.pids} process nothing can be forked ahead: give pids of {_LEAST_PIDS} or more"
            )
        deadline = time.monotonic() + seconds
        with self._changed:
            stock = self._stock(kit)
            shelf = stock.shelf(limits)
            while not shelf.ready:
                if stock.failure is not None and stock.failures >= _FAILURES_THAT_STAY:
                    raise stock.failure
                self._changed.notify_all()
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise SandboxFailed(f"no warm sandbox was ready after {seconds:g} seconds")

    @property
    def waiting(self) -> int:
        """How many sandboxes wait to be taken."""
        stocks = list(self._stocks.values())  # copied at once: the keeper changes it meanwhile
        return sum(len(shelf.ready) for stock in stocks for shelf in list(stock.shelves.values()))

    def close(self) -> None:
        """End every zygote and all that was forked from it, and wait until they are dead."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join()
        for stock in self._stocks.values():
            stock.discard()
        self._remove_ended()

    def abandon(self) -> None:
        """Close this process's descriptors of what another keeps: a fork copied the pool, without its thread."""
        for stock in self._stocks.values():
            for shelf in stock.shelves.values():
                for live in shelf.ready:
                    live.abandon()
            if stock.zygote is not None:
                stock.zygote.abandon()
        self._stocks.clear()

    def _stock(self, kit: Kit) -> _Stock:
        # By identity: to compare what kits hold takes longer than a fork.
        if kit not in self._stocks:
            self._stocks[kit] = _Stock(kit)
        if self._keeper is None and not self._closed:
            self._keeper = threading.Thread(target=self._keep, name="fumehood-pool", daemon=True)
            self._keeper.start()
        return self._stocks[kit]

    def _finish(self, shelf: _Shelf | None, ended: tuple[Zygote, Live] | None = None) -> None:
        with self._changed:
            if shelf is not None:
                shelf.busy -= 1
            if ended is not None:
                self._ended.append(ended)
            self._refill_now = True
            self._changed.notify()
            closed = self._closed
        # Under load the keeper may not keep up, and each holds a user id.
        if closed or len(self._ended) > _MOST_ENDED:
            self._remove_ended()

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._wait_for_work()
                if self._closed:
                    return
                self._refill_now = False
                stocks = list(self._stocks.values())
            self._remove_ended()
            for stock in stocks:
                self._attend(stock)

    def _wait_for_work(self) -> None:
        # A caller that takes one wakes us, but the processor is its program's own for a while.
        for seconds in (self._pause(), _PATIENCE_SECONDS):
            if not (self._refill_now or self._closed):
                self._changed.wait(seconds)

    def _pause(self) -> float | None:
        """Return for how long there is nothing to do, None for ever."""
        now = time.monotonic()
        waiting = [stock for stock in self._stocks.values() if stock.zygote is None and stock.is_wanted(now)]
        if waiting:
            return max(0.0, min(stock.retry_at for stock in waiting) - now)
        if any(self._missing(stock, shelf) for stock in self._stocks.values() for shelf in stock.shelves.values()):
            return _PATIENCE_SECONDS
        if held_up := [stock.refill_at - now for stock in self._stocks.values() if stock.refill_at > now]:
            return min(held_up)
        return _MEMORY_OF_LOAD_SECONDS if any(stock.is_loaded(now) for stock in self._stocks.values()) else None

    def _attend(self, stock: _Stock) -> None:
        """Do what one stock needs: a zygote, another sandbox, or fewer."""
        now = time.monotonic()
        if stock.zygote is not None and stock.zygote.is_dead():
            stock.discard()
        if stock.zygote is None:
            if now >= stock.retry_at and stock.is_wanted(now):
                self._boot(stock)
            return
        stock.forget_load(now)
        for shelf in list(stock.shelves.values()):
            try:
                self._fill(stock, shelf, stock.zygote)
            except (SandboxFailed, OSError):
                # Dead, which the next look finds; or short of something, which callers that fork on demand will tell.
                stock.refill_at = now + _SHORT_LIFE_SECONDS
                return

    def _fill(self, stock: _Stock, shelf: _Shelf, zygote: Zygote) -> None:
        """Put on a shelf what it misses; while one gets ready the next is forked."""
        coming: deque[Live] = deque()
        try:
            while self._missing(stock, shelf, len(coming)) and not self._closed:
                coming.append(zygote.fork(shelf.limits, ahead=True))
                if len(coming) > 1:
                    self._shelve(stock, shelf, coming)
                # Of user ids there are so many, and what has ended holds its own until it is taken away.
                self._remove_ended()
            while coming:
                self._shelve(stock, shelf, coming)
        finally:
            for live in coming:
                zygote.release(live)

    def _shelve(self, stock: _Stock, shelf: _Shelf, coming: deque[Live]) -> None:
        live = coming[0]
        if not live.wait_ready():
            raise SandboxFailed("a warm sandbox died before it was ready")
        coming.popleft()
        if stock.bytes_each is None:
            stock.bytes_each = max(1 << 20, private_bytes(live.pid))
        with self._changed:
            shelf.ready.append(live)
            self._changed.notify_all()

    def _boot(self, stock: _Stock) -> None:
        try:
            zygote = _checked_zygote(stock.kit, self._launcher, cgroups=self._cgroups)
            failure = None
        except (SandboxFailed, OSError) as error:
            zygote, failure = None, SandboxFailed(str(error))
        with self._changed:
            stock.zygote, stock.failure = zygote, failure
            # One that fails or dies at once is not made again and again, but one may be killed while it starts.
            stock.failures = stock.failures + 1 if failure else 0
            pause = min(_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 4**stock.failures) if failure else _SHORT_LIFE_SECONDS
            stock.retry_at = time.monotonic() + pause
            self._refill_now = True
            self._changed.notify_all()

    def _missing(self, stock: _Stock, shelf: _Shelf, coming: int = 0) -> bool:
        if (
            stock.zygote is None
            or time.monotonic() < stock.refill_at
            or len(shelf.ready) + coming >= min(shelf.peak + 1, _MOST_WAITING)
        ):
            return False
        held = sum(each.held_bytes() for each in self._stocks.values())
        return held + (coming + 1) * (stock.bytes_each or _FIRST_GUESS_BYTES) <= self._memory_bytes

    def _remove_ended(self) -> None:
        ended: list[tuple[Zygote, Live]] = []
        with contextlib.suppress(IndexError):  # another thread took the last
            while self._ended:
                ended.append(self._ended.popleft())
        for _zygote, live in ended:
            # So that what they hold is taken apart on other processors meanwhile.
            live.kill()
        for zygote, live in ended:
            zygote.release(live)


def _module(path: str) -> str:
    """Return the name of the module that a program's file makes; nothing where it makes none."""
    first, slash, _rest = path.partition("/")
    return first if slash else first.partition(".")[0] if first.endswith((".py", ".pyc", ".so")) else ""


def _checked_zygote(kit: Kit, launcher: Launcher, *, cgroups: bool) -> Zygote:
    """Make a zygote and see every wall hold in a sandbox forked from it, or raise."""
    from . import canary  # noqa: PLC0415 - once a zygote

    zygote = Zygote(kit, launcher, cgroups=cgroups)
    try:
        if down := missing(canary.probe_warm(zygote), frozenset()):
            raise SandboxFailed(f"in a warm sandbox the wall {down[0].wall!r} does not hold ({down[0].seen})")
    except BaseException:
        zygote.close()
        raise
    return zygote


class Taken:
    """A sandbox in a caller's hands; `done` gives it back to be taken away."""

    def __init__(self, pool: Pool, shelf: _Shelf | None, zygote: Zygote, live: Live) -> None:
        self._pool, self._shelf, self._zygote = pool, shelf, zygote
        self.live = live

    def lost(self) -> bool:
        """Whether its zygote is dead, and it for that reason. Ask only of one that is dead."""
        # The kernel kills what a process forked before it lets that process's own end be seen.
        until = time.monotonic() + _SEEN_DEAD_SECONDS
        while not self._zygote.is_dead():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def done(self) -> None:
        """Say that nobody needs it any more. Its process 1 is dead or about to end."""
        self._pool._finish(self._shelf, (self._zygote, self.live))


class _Shelf:
    """Those of a stock that were born with the same limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ready: deque[Live] = deque()
        self.busy = 0
        #: The most that were busy at one time, lately, and one more for each time that none was ready.
        self.peak = 0


class _Stock:
    """What is kept of one kind: its zygote and what was forked from it."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.zygote: Zygote | None = None
        self.failure: SandboxFailed | None = None
        #: How often in a row no zygote could be made.
        self.failures = 0
        self.retry_at = self.refill_at = 0.0
        self.used_at = self._looked_at = time.monotonic()
        self.bytes_each: int | None = None
        self.shelves: dict[Hashable, _Shelf] = {}

    def shelf(self, limits: Limits) -> _Shelf:
        born_with = _BIRTH(limits)
        if born_with not in self.shelves:
            self.shelves[born_with] = _Shelf(limits)
        return self.shelves[born_with]

    def is_wanted(self, now: float) -> bool:
        return now - self.used_at < _IDLE_SECONDS

    def held_bytes(self) -> int:
        return (self.bytes_each or _FIRST_GUESS_BYTES) * sum(len(shelf.ready) for shelf in self.shelves.values())

    def is_loaded(self, now: float) -> bool:
        """Whether there is something to give back in time."""
        return any(shelf.ready for shelf in self.shelves.values()) and (
            self.is_wanted(now) or any(shelf.peak > shelf.busy for shelf in self.shelves.values())
        )

    def forget_load(self, now: float) -> None:
        """Let go of what the load of the last seconds did not need; of all, where there was none for long."""
        if now - self._looked_at < _MEMORY_OF_LOAD_SECONDS or self.zygote is None:
            return
        self._looked_at = now
        idle = not self.is_wanted(now)
        for born_with, shelf in list(self.shelves.items()):
            while shelf.ready and (idle or len(shelf.ready) > shelf.peak + 1):
                self.zygote.release(shelf.ready.popleft())
            shelf.peak = shelf.busy
            if not shelf.ready and not shelf.busy:
                del self.shelves[born_with]
        if idle and not self.shelves:
            self.discard()

    def discard(self) -> None:
        """End the zygote and all that waits."""
        zygote, self.zygote = self.zygote, None
        if zygote is None:
            return
        zygote.close()
        for shelf in self.shelves.values():
            while shelf.ready:
                zygote.release(shelf.ready.popleft())
