"""The sessions that live in this server, with their cells, each of which goes on whether or not somebody listens.

Promised: a session is its project's alone; what a cell showed can be read again, from any point, while the session lives. Sessions
live in this process and end with it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, SessionBusy, SessionDead, StoreUnavailable
from ..protocol import wire
from ..protocol.network import Network
from .bounds import bounded, weight
from .faults import Fault, fault_of
from .happenings import Happenings
from .ids import new_id
from .store.common import now
from .store.executions import Execution
from .watching import carried

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..protocol.limits import Limits
    from ..protocol.session import CellResult, Event
    from ..sessions import Checkpoint, Session
    from .service import Service
    from .store.common import Caller

#: Of one session: how many cells and checkpoints are remembered.
_CELLS, _CHECKPOINTS = 100, 20
#: Characters that its cells may hold together, but for the latest.
_CELLS_WEIGHT = 16 << 20


class Cell:
    """A cell that runs or has run. `happenings` are its events as JSON, by type."""

    def __init__(self, session: str, code: str) -> None:
        self.id, self.session_id, self.code = new_id(), session, code
        self.started_at, self.happenings = now(), Happenings()
        self.events: list[dict[str, Any]] = []
        self.weight = weight(code)
        self.result: dict[str, Any] | None = None
        self.fault: Fault | None = None
        self._ended = threading.Event()

    def wait(self) -> dict[str, Any]:
        """Wait for its end and return what came of it, events included. Raises what went wrong."""
        self._ended.wait()
        return self.whole()

    def whole(self) -> dict[str, Any]:
        """Return what came of it so far."""
        if self.fault is not None:
            raise self.fault
        if self.result is None:
            return {"id": self.id, "session_id": self.session_id, "status": "running"}
        texts = {
            stream: "".join(e["text"] for e in self.events if e["type"] == "output" and e["stream"] == stream)
            for stream in ("stdout", "stderr")
        }
        return {**self.result, "events": self.events, **texts}

    def hear(self, event: Event) -> None:
        """Take one of its events."""
        value = wire.event_as_json(event)
        self.weight += weight(value)
        self.events.append(value)
        self.happenings.add(value["type"], value)

    def end(self, result: CellResult | None, fault: Fault | None) -> None:
        """Take its end."""
        if result is not None:
            self.result = {"id": self.id, "session_id": self.session_id, **wire.cell_as_json(result)}
            self.happenings.add("result", self.result)
        else:
            self.fault = fault or Fault(500, "the cell did not run")
            self.happenings.add("error", {**self.fault.body, "status": self.fault.status})
        self.happenings.end()
        self._ended.set()


class LiveSession:
    """A session, whose it is, and what it has been asked."""

    def __init__(self, owner: Caller, session: Session) -> None:
        self.id, self.project_id, self.key_id = new_id(), owner.project_id, owner.key_id
        self.session, self.created_at = session, now()
        self._lock, self._closed = threading.Lock(), False
        self._cells: OrderedDict[str, Cell] = OrderedDict()
        self._checkpoints: dict[str, tuple[str, Checkpoint]] = {}
        self._coming = 0
        #: What of its processor time is on its project's account.
        self.counted_seconds = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return what is told of it."""
        death = self.session.death
        return {
            "id": self.id, "language": self.session.language, "status": self.session.status,
            "death": None if death is None else death.as_dict(), "created_at": self.created_at,
            "network": wire.network_as_json(self.session.network, secrets=False), "lost": list(self.session.lost),
        }  # fmt: skip

    def remember(self, cell: Cell) -> None:
        """Take a new cell, and forget the oldest where there are too many, or they hold too much."""
        with self._lock:
            while len(self._cells) >= _CELLS or sum(each.weight for each in self._cells.values()) > _CELLS_WEIGHT:
                self._cells.popitem(last=False)
            self._cells[cell.id] = cell

    def cell(self, name: str) -> Cell:
        """Return one of its cells. Raises a 404."""
        found = self._cells.get(name)
        if found is None:
            raise Fault(404, f"session {self.id} has no cell {name!r}; it remembers the last {_CELLS}")
        return found

    @property
    def weight(self) -> int:
        """How many sessions it is worth: itself while it lives, and one for each checkpoint, which holds as much."""
        return (self.session.death is None) + len(self._checkpoints)

    def checkpoint(self) -> dict[str, Any]:
        """Remember what it holds; return what is told of that. Raises a 429, and a 404 where it was deleted meanwhile."""
        with self._lock:
            # Before anything is done: a checkpoint ends the session's threads.
            if len(self._checkpoints) + self._coming >= _CHECKPOINTS:
                raise Fault(
                    429, f"session {self.id} has {_CHECKPOINTS} checkpoints: delete one of them", retry_after=10
                )
            self._coming += 1
        try:
            made = self.session.checkpoint()
        finally:
            with self._lock:
                self._coming -= 1
        name, at = new_id(), now()
        with self._lock:
            if not self._closed:
                self._checkpoints[name] = (at, made)
        if self._closed:
            made.close()
            raise Fault(404, f"session {self.id} was deleted meanwhile")
        return {"id": name, "session_id": self.id, "language": self.session.language, "created_at": at}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Return what is told of its checkpoints."""
        with self._lock:
            return [{"id": name, "created_at": at} for name, (at, _kept) in self._checkpoints.items()]

    def held(self, checkpoint: str) -> Checkpoint | None:
        """Return one; None where it has none of this id."""
        return self._checkpoints.get(checkpoint, ("", None))[1]

    def give_up(self, checkpoint: str) -> None:
        """Forget one. Raises a 404."""
        with self._lock:
            gone = self._checkpoints.pop(checkpoint, None)
        if gone is None:
            raise Fault(404, f"session {self.id} has no checkpoint {checkpoint!r}: it was deleted, or is another's")
        gone[1].close()

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._closed = True
            kept = list(self._checkpoints.values())
            self._checkpoints.clear()
        for _at, checkpoint in kept:
            checkpoint.close()
        self.session.close()


class LiveSessions:
    """All of them."""

    def __init__(self, service: Service) -> None:
        self._service, self._lock = service, threading.Lock()
        self._all: dict[str, LiveSession] = {}
        self._coming = 0
        service.gate.settle = self._settle_all

    def create(
        self, caller: Caller, language: str, *, limits: Limits, env: Mapping[str, str], files: Mapping[str, str | bytes],
        network: Network | None, idle_seconds: float, lifetime_seconds: float,
    ) -> LiveSession:  # fmt: skip
        """Begin a session. Raises `InvalidRequest`, a 429 where too many live."""
        service = self._service
        service.check(limits, network or Network())
        name = service.language(caller, language)
        if network is not None:
            network = service.with_secrets(caller, network)
        with self._room(1, caller):
            session = service.engine.session(
                name, limits=limits, env=env, files=files, network=network, idle_seconds=idle_seconds,
                lifetime_seconds=lifetime_seconds,
            )  # fmt: skip
            return self._keep(LiveSession(caller, session))

    def listed(self, caller: Caller) -> list[LiveSession]:
        """Return a project's sessions, the oldest first; those that died are there until they are deleted, or long dead."""
        self._forget_dead()
        return [each for each in list(self._all.values()) if each.project_id == caller.project_id]

    def get(self, caller: Caller, name: str) -> LiveSession:
        """Return one. Raises a 404, for another project's too."""
        found = self._all.get(name)
        if found is None or found.project_id != caller.project_id:
            raise Fault(404, f"there is no session {name!r}: it was deleted, or the server began anew since")
        return found

    def delete(self, caller: Caller, name: str) -> None:
        """End one and forget it."""
        live = self.get(caller, name)
        with self._lock:
            self._all.pop(name, None)
        live.close()
        self._settle(live)

    def run(self, caller: Caller, live: LiveSession, code: str, timeout: float | None, door: str) -> Cell:
        """Begin a cell. Raises `SessionBusy`, `SessionDead`, a 429."""
        session = live.session
        if session.status == "busy":
            raise SessionBusy(f"session {live.id} runs a cell already: wait for it, or interrupt it")
        if (death := session.death) is not None:
            raise SessionDead(
                f"session {live.id} has ended ({death.reason}: {death.detail}): restart it, or begin another"
            )
        most = self._service.settings.most_seconds
        if timeout is not None and timeout > most:
            raise InvalidRequest(f"timeout is {timeout:g}: this server gives {most:g} seconds at most")
        cell = Cell(live.id, code)
        # A thread of its own: it lasts as long as the guest wants it to.
        leave = contextlib.ExitStack()
        thread = threading.Thread(
            target=carried(self._run),
            args=(caller, live, cell, timeout, door, leave),
            name=f"cell-{cell.id}",
            daemon=True,
        )
        leave.enter_context(self._service.gate.running(caller))
        try:
            thread.start()
        except BaseException:
            leave.close()  # nobody else gives the place back
            raise
        live.remember(cell)
        return cell

    def fork(self, caller: Caller, live: LiveSession, count: int) -> list[LiveSession]:
        """Fork one."""
        with self._room(count, caller), self._anew(live):
            return [self._keep(LiveSession(caller, each)) for each in live.session.fork(count)]

    def begin_anew(self, caller: Caller, live: LiveSession, begin: Callable[[], None]) -> None:
        """Restart or restore one, as `begin` does. Of those that live it is one more where it is dead. Raises a 429."""
        with self._room(0 if live.session.death is None else 1, caller), self._anew(live):
            begin()

    def checkpoint(self, caller: Caller, live: LiveSession) -> dict[str, Any]:
        """Remember what one holds; return what is told of that."""
        with self._room(1, caller), self._anew(live):
            return live.checkpoint()

    def living(self) -> int:
        """Return how many there are that have not ended."""
        return sum(each.session.death is None for each in list(self._all.values()))

    def close(self) -> None:
        """End all."""
        with self._lock:
            gone = list(self._all.values())
            self._all.clear()
        for each in gone:
            each.close()

    def _run(
        self,
        caller: Caller,
        live: LiveSession,
        cell: Cell,
        timeout: float | None,
        door: str,
        leave: contextlib.ExitStack,
    ) -> None:
        session, began = live.session, time.monotonic()
        result, fault = None, None
        try:
            with leave, self._service.watch.execution(door, session.language) as seen:
                result = session.run(cell.code, timeout=timeout, on_event=cell.hear)
                seen.ended(result.ended, refusals=len(result.refusals))
            self._write_down(caller, live, cell, result, began, door)
        except Exception as error:  # noqa: BLE001 - told to whoever reads the cell
            result, fault = None, fault_of(error)
        cell.end(result, fault)

    def _write_down(
        self, caller: Caller, live: LiveSession, cell: Cell, result: CellResult, began: float, door: str
    ) -> None:
        kept = Execution(
            id=cell.id, key_id=caller.key_id, door=door, kind="cell", language=live.session.language,
            started_at=cell.started_at, duration_ms=round((time.monotonic() - began) * 1000),
            cpu_ms=self._fresh_ms(live), exit_code=0 if result.ok else 1,
            reason=result.ended, session_id=live.id, request=bounded({"code": cell.code}),
            response=bounded({**wire.cell_as_json(result), "events": cell.events[:100]}),
        )  # fmt: skip
        try:
            self._service.store.executions.add(caller.project_id, kept, result.connections, result.refusals)
        except StoreUnavailable as error:
            raise Fault(
                503, "the cell ran, but that could not be kept: the service's database does not answer", retry_after=0
            ) from error

    def _keep(self, live: LiveSession) -> LiveSession:
        with self._lock:
            self._all[live.id] = live
        return live

    def _fresh_ms(self, live: LiveSession) -> int:
        """Return what a session has used since this was asked last: what goes on in it between its cells counts too."""
        with self._lock:
            used = live.session.cpu_seconds
            fresh, live.counted_seconds = max(0.0, used - live.counted_seconds), used
        return round(fresh * 1000)

    def _settle(self, live: LiveSession) -> None:
        fresh = self._fresh_ms(live)
        if fresh:
            self._service.store.keys.spend(live.project_id, fresh)

    def _settle_all(self, project: str) -> None:
        for each in list(self._all.values()):
            # Of one that runs a cell the cell's own line has it.
            if each.project_id == project and each.session.status != "busy":
                self._settle(each)

    @contextlib.contextmanager
    def _anew(self, live: LiveSession) -> Any:
        """Have a session begin anew meanwhile: its processor time is counted from nought then."""
        self._settle(live)
        yield
        live.counted_seconds = 0.0

    @contextlib.contextmanager
    def _room(self, count: int, caller: Caller) -> Any:
        self._forget_dead()
        mine = sum(each.weight for each in self.listed(caller))
        self._service.gate.beginning(caller, mine, count)
        most = self._service.settings.sessions
        with self._lock:
            held = sum(each.weight for each in self._all.values()) + self._coming
            if count and held + count > most:
                raise Fault(
                    429,
                    f"{most} sessions and checkpoints are on this server: delete one, or come again",
                    retry_after=10,
                )
            self._coming += count
        try:
            yield
        finally:
            with self._lock:
                self._coming -= count

    def _forget_dead(self) -> None:
        """Forget the oldest of those that died, where there are many."""
        with self._lock:
            dead = [name for name, each in self._all.items() if each.session.death is not None]
            gone = [self._all.pop(name) for name in dead[: max(0, len(dead) - self._service.settings.sessions)]]
        for each in gone:
            each.close()
            self._settle(each)
