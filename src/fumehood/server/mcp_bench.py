"""What the tools of MCP work on: a service, for one caller, or an engine of the process's own."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, Protocol

from ..engine import SESSION_LIMITS
from ..errors import InvalidRequest
from ..protocol import wire
from ..protocol.execution import ExecutionRequest
from ..protocol.limits import Limits
from ..protocol.network import Network
from ..protocol.record import Record
from ..runtimes import languages
from .doors import riza, riza_types
from .faults import Fault
from .ids import new_id
from .service import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..engine import Engine
    from ..protocol.session import CellResult, Event
    from ..sessions import Session
    from .service import Service
    from .store.common import Caller
    from .store.tools import Tool

_DOOR = "mcp"
_PAGE = 100
#: So many saved tools are shown; and so many sessions live in a process of one's own.
SAVED, SESSIONS = 300, 32


class Program(Record):
    """A program that a model wants to be run."""

    code: str
    language: str = "python"
    stdin: str = ""
    files: Mapping[str, str] = {}
    seconds: float = 30.0

    def limits(self) -> Limits:
        """Return what it may use."""
        return Limits(wall_seconds=self.seconds, cpu_seconds=2 * self.seconds)


class Bench(Protocol):
    """All methods but `may` block. They raise errors of `fumehood.errors`, and `Fault`."""

    #: The hosts that programs may reach, described; "" where there is none.
    hosts: str

    def may(self, scope: str) -> bool:
        """Whether whoever calls may do what a scope stands for."""
        ...

    def languages(self) -> list[str]:
        """Return a line for each language that can be asked for."""
        ...

    def run(self, program: Program, cancel: int) -> dict[str, Any]:
        """Run a program; its end is asked for by `cancel`, a descriptor. Return its result as `wire.result_as_json` does."""
        ...

    def start(self, language: str, files: Mapping[str, str]) -> str:
        """Begin a session and return its id."""
        ...

    def session(self, name: str) -> Session:
        """Return a session."""
        ...

    def sessions(self) -> dict[str, Session]:
        """Return all of them by their ids."""
        ...

    def run_cell(self, name: str, code: str, seconds: float | None) -> dict[str, Any]:
        """Run a cell to its end; return what came of it, events included."""
        ...

    def fork(self, name: str, count: int) -> list[str]:
        """Fork a session; return the ids of its copies."""
        ...

    def end(self, name: str) -> None:
        """End a session."""
        ...

    def saved(self) -> Sequence[Tool]:
        """Return the saved tools, in the order in which they were made."""
        ...

    def run_saved(self, tool: Tool, value: Any) -> dict[str, Any]:
        """Run a saved tool; return what `riza.run_tool` does."""
        ...


class ServiceBench:
    """A service's bench for one caller: what is of its project, and nothing else."""

    hosts = ""

    def __init__(self, service: Service, caller: Caller) -> None:
        self._service, self._caller = service, caller

    def may(self, scope: str) -> bool:
        """See `Bench`."""
        return self._caller.may(scope)

    def languages(self) -> list[str]:
        """See `Bench`."""
        kept = self._service.store.runtimes.listed(self._caller.project_id, limit=_PAGE, after=None)
        return [*languages(), *(
            f"{each.revision.id} ({each.language} with packages of its own: {each.name})"
            for each in kept if each.revision.status == "succeeded"
        )]  # fmt: skip

    def run(self, program: Program, cancel: int) -> dict[str, Any]:
        """See `Bench`."""
        request = ExecutionRequest(
            code=program.code, language=self._service.language(self._caller, program.language), stdin=program.stdin,
            files=program.files, limits=program.limits(),
        )  # fmt: skip
        asked = Asked(door=_DOOR, kind="execution", request=program.as_dict(), language=program.language)
        return self._service.run(
            self._caller, asked, request, lambda name, result: wire.result_as_json(result, name), cancel=cancel
        )

    def start(self, language: str, files: Mapping[str, str]) -> str:
        """See `Bench`."""
        return self._service.sessions.create(
            self._caller, language, limits=SESSION_LIMITS, env={}, files=files, network=None, idle_seconds=1800.0,
            lifetime_seconds=86_400.0,
        ).id  # fmt: skip

    def session(self, name: str) -> Session:
        """See `Bench`."""
        return self._service.sessions.get(self._caller, name).session

    def sessions(self) -> dict[str, Session]:
        """See `Bench`."""
        return {each.id: each.session for each in self._service.sessions.listed(self._caller)}

    def run_cell(self, name: str, code: str, seconds: float | None) -> dict[str, Any]:
        """See `Bench`."""
        sessions = self._service.sessions
        return sessions.run(self._caller, sessions.get(self._caller, name), code, seconds, _DOOR).wait()

    def fork(self, name: str, count: int) -> list[str]:
        """See `Bench`."""
        sessions = self._service.sessions
        return [each.id for each in sessions.fork(self._caller, sessions.get(self._caller, name), count)]

    def end(self, name: str) -> None:
        """See `Bench`."""
        self._service.sessions.delete(self._caller, name)

    def saved(self) -> Sequence[Tool]:
        """See `Bench`."""
        found: list[Tool] = []
        while len(found) < SAVED:
            after = found[-1].id if found else None
            page = self._service.store.tools.listed(self._caller.project_id, limit=_PAGE, after=after)
            found += page
            if len(page) < _PAGE:
                break
        return found

    def run_saved(self, tool: Tool, value: Any) -> dict[str, Any]:
        """See `Bench`."""
        return riza.run_tool(self._service, self._caller, tool, riza_types.ToolExec(input=value), _DOOR)


class LocalBench:
    """A bench of the process's own. Its sessions end with it: use it in a `with`, or call `close`."""

    def __init__(self, engine: Engine, network: Network) -> None:
        self._engine, self._network, self.hosts = engine, network, network.describe()
        self._sessions: dict[str, Session] = {}
        self._names, self._lock = itertools.count(1), threading.Lock()

    def may(self, scope: str) -> bool:  # noqa: ARG002 - whoever started this process may do what it does
        """See `Bench`."""
        return True

    def languages(self) -> list[str]:
        """See `Bench`."""
        return list(languages())

    def run(self, program: Program, cancel: int) -> dict[str, Any]:
        """See `Bench`."""
        request = ExecutionRequest(
            code=program.code, language=program.language, stdin=program.stdin, files=program.files,
            limits=program.limits(), network=self._network,
        )  # fmt: skip
        return wire.result_as_json(self._engine.execute(request, cancel=cancel), new_id())

    def start(self, language: str, files: Mapping[str, str]) -> str:
        """See `Bench`."""
        self._check_room(1)
        network = self._network if self._network.rules else None
        return self._keep(self._engine.session(language, files=files, network=network))

    def session(self, name: str) -> Session:
        """See `Bench`."""
        with self._lock:
            if name not in self._sessions:
                there = ", ".join(self._sessions) or "none: start one"
                raise Fault(404, f"there is no session {name!r}; there are {there}")
            return self._sessions[name]

    def sessions(self) -> dict[str, Session]:
        """See `Bench`."""
        with self._lock:
            return dict(self._sessions)

    def run_cell(self, name: str, code: str, seconds: float | None) -> dict[str, Any]:
        """See `Bench`."""
        events: list[Event] = []
        result: CellResult = self.session(name).run(code, timeout=seconds, on_event=events.append)
        return {**wire.cell_as_json(result), "events": [wire.event_as_json(each) for each in events]}

    def fork(self, name: str, count: int) -> list[str]:
        """See `Bench`."""
        self._check_room(count)
        # Kept at once: whatever goes wrong from here on, they end with this process at the latest.
        names = [self._keep(each) for each in self.session(name).fork(count)]
        if self._network.rules:
            for each in names:
                self.session(each).set_network(self._network)
        return names

    def end(self, name: str) -> None:
        """See `Bench`."""
        self.session(name).close()
        with self._lock:
            self._sessions.pop(name, None)

    def saved(self) -> Sequence[Tool]:
        """See `Bench`."""
        return ()

    def run_saved(self, tool: Tool, value: Any) -> dict[str, Any]:  # noqa: ARG002 - there are none
        """See `Bench`."""
        raise Fault(404, f"there is no tool {tool.name!r}")

    def close(self) -> None:
        """End all sessions."""
        for each in self.sessions().values():
            each.close()

    def _keep(self, session: Session) -> str:
        with self._lock:
            name = f"s{next(self._names)}"
            self._sessions[name] = session
        return name

    def _check_room(self, count: int) -> None:
        if len(self.sessions()) + count > SESSIONS:
            raise InvalidRequest(f"there are {SESSIONS} sessions at most: end one")
