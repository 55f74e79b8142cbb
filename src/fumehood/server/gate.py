"""What projects may use: requests a minute, executions at one time, processor seconds a day, bytes in store.

Promised: what is over a quota is refused before it runs, by a 429 that says when to come again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from .faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .store.common import Caller
    from .store.keeping import Store
    from .store.keys import Quotas

_WAIT_SECONDS = 30.0
_AGAIN_SECONDS = 3600


class Gate:
    """One for each server: requests and executions are counted by it alone, the other two by the database for all of them.

    `at_once` executions run at one time for all projects together; others wait, as many of a project, and the project that has the
    fewest running is next.
    """

    def __init__(self, store: Store, at_once: int) -> None:
        self._store, self._lock = store, threading.Lock()
        #: Writes down what a project's sessions have used, whether or not a cell runs.
        self.settle: Callable[[str], None] = lambda _project: None
        self._at_once, self._turn = at_once, threading.Condition()
        # Projects to their executions: those that have a place, and those that wait for one.
        self._placed: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._quotas: dict[str, Quotas] = {}
        self._running: dict[str, int] = {}
        # Project to what is left of its minute, and when that was so.
        self._left: dict[str, tuple[float, float]] = {}

    def count(self, caller: Caller, quotas: Quotas) -> None:
        """Let a request in. Raises a 429."""
        self._quotas[caller.project_id] = quotas
        most = quotas.requests_per_minute
        if most is None:
            return
        with self._lock:
            moment = time.monotonic()
            left, since = self._left.get(caller.project_id, (float(most), moment))
            left = min(float(most), left + (moment - since) * most / 60)
            self._left[caller.project_id] = (left - 1 if left >= 1 else left, moment)
        if left < 1:
            raise _over(f"{most} requests a minute", math.ceil((1 - left) * 60 / most) if most else 60)

    @contextlib.contextmanager
    def running(self, caller: Caller) -> Iterator[None]:
        """Let an execution run meanwhile. Raises a 429."""
        quotas = self._quotas.get(caller.project_id)
        if quotas is not None:
            self._check_store(caller, quotas)
        with self._among_others(caller.project_id, None if quotas is None else quotas.concurrency):
            self._take_place(caller.project_id)
            try:
                yield
            finally:
                with self._turn:
                    self._leave(self._placed, caller.project_id)
                    self._turn.notify_all()

    def _take_place(self, project: str) -> None:
        with self._turn:
            if self._is_next(project):
                self._placed[project] += 1
                return
            if self._waiting[project] >= self._at_once:
                raise _busy(f"{self._at_once} executions of the project wait already")
            self._waiting[project] += 1
            try:
                if not self._turn.wait_for(lambda: self._is_next(project), _WAIT_SECONDS):
                    raise _busy(f"none of its {self._at_once} places came free in {_WAIT_SECONDS:g} seconds")
                self._placed[project] += 1
            finally:
                self._leave(self._waiting, project)
                # Another project may be next now.
                self._turn.notify_all()

    def _is_next(self, project: str) -> bool:
        mine = self._placed[project]
        others = (self._placed[each] for each in self._waiting if each != project)
        return self._placed.total() < self._at_once and all(mine <= other for other in others)

    @staticmethod
    def _leave(place: Counter[str], project: str) -> None:
        place[project] -= 1
        if not place[project]:
            del place[project]

    def beginning(self, caller: Caller, living: int, more: int) -> None:
        """Let so many sessions begin beside those that live: what is in one may run at any time. Raises a 429."""
        quotas = self._quotas.get(caller.project_id)
        if quotas is None:
            return
        self._check_store(caller, quotas)
        if more and quotas.concurrency is not None and living + more > quotas.concurrency:
            raise _over(f"{quotas.concurrency} executions at one time, and as many sessions (delete one)", 10)

    def running_now(self, project: str) -> int:
        """Return how many executions of a project run."""
        return self._running.get(project, 0)

    def storing(self, caller: Caller) -> None:
        """Let something be stored. Raises a 429."""
        quotas = self._quotas.get(caller.project_id)
        if quotas is not None and quotas.stored_bytes is not None:
            self._check_store(caller, quotas.replace(cpu_seconds_per_day=None))

    @contextlib.contextmanager
    def _among_others(self, project: str, most: int | None) -> Iterator[None]:
        with self._lock:
            running = self._running.get(project, 0)
            if most is not None and running >= most:
                raise _over(f"{most} executions at one time", 1)
            self._running[project] = running + 1
        try:
            yield
        finally:
            with self._lock:
                self._running[project] -= 1

    def _check_store(self, caller: Caller, quotas: Quotas) -> None:
        seconds, stored = quotas.cpu_seconds_per_day, quotas.stored_bytes
        if seconds is None and stored is None:
            return
        if seconds is not None:
            self.settle(caller.project_id)
        used = self._store.keys.used(caller.project_id)
        if seconds is not None and used.cpu_seconds >= seconds:
            now = dt.datetime.now(dt.UTC)
            midnight = (now + dt.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
            raise _over(f"{seconds} processor seconds a day", math.ceil((midnight - now).total_seconds()))
        if stored is not None and used.stored_bytes >= stored:
            raise _over(f"{stored} bytes in store (delete executions, tools or runtimes)", _AGAIN_SECONDS)


def _busy(what: str) -> Fault:
    return Fault(429, f"the server runs as many executions as it does at one time: {what}", retry_after=1)


def _over(what: str, seconds: int) -> Fault:
    return Fault(429, f"the project's quota is used up: {what}", retry_after=max(1, seconds))
