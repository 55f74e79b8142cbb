"""What is kept of executions: what was asked and answered, what they used, and whom they reached."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...protocol.record import Record
from ..ids import new_id
from . import tables as t
from .common import newest, note, now, use

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...protocol.network import Connection, Refusal
    from .common import Caller
    from .database import Database

_HEAD = tuple(column for column in t.executions.c if column.name not in ("request", "response"))
#: Of an execution's connections, how many are written down.
_CONNECTIONS = 100


class Execution(Record):
    """One execution. `door` and `kind` say how it was asked for; `request` and `response` are as the door had them.

    In lists those two are empty. `cpu_ms` is what it used of processors, `reason` why it ended.
    """

    id: str
    key_id: str
    door: str
    kind: str
    language: str
    started_at: str
    duration_ms: int
    cpu_ms: int
    exit_code: int
    reason: str
    request: Mapping[str, Any] = {}
    response: Mapping[str, Any] = {}
    tool_id: str | None = None
    session_id: str | None = None
    stored_bytes: int = 0


class Reached(Record):
    """A connection that a program made or tried."""

    id: str
    execution_id: str
    at: str
    host: str
    port: int
    verdict: str
    why: str
    sent_bytes: int
    received_bytes: int


class Bucket(Record):
    """What happened in one span of time, which begins at `at`."""

    at: str
    executions: int
    failed: int
    mean_ms: float
    longest_ms: int


class Executions:
    """The executions of all projects, one project's at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, project: str, execution: Execution, connections: Sequence[Connection], refusals: Sequence[Refusal]
    ) -> None:
        """Keep an execution, what it used, and whom it reached."""
        request, response = json.dumps(execution.request), json.dumps(execution.response)
        stored = len(request) + len(response)
        values = execution.as_dict() | {"request": request, "response": response, "stored_bytes": stored}
        reached = _rows(project, execution, connections, refusals)
        with self._database.write() as connection:
            connection.execute(t.executions.insert(), {"project_id": project, **values})
            if reached:
                connection.execute(t.connections.insert(), reached)
            failed = int(execution.exit_code != 0)
            use(connection, project, executions=1, failed=failed, cpu_ms=execution.cpu_ms, stored_bytes=stored)

    def listed(
        self, project: str, *, limit: int, after: str | None = None, only_failed: bool = False, door: str | None = None
    ) -> list[Execution]:
        """Return executions, the newest first, those before `after` where one is named; of one door or of all."""
        query = sa.select(*_HEAD).where(t.executions.c.project_id == project)
        if door is not None:
            query = query.where(t.executions.c.door == door)
        if only_failed:
            query = query.where(t.executions.c.exit_code != 0)
        with self._database.read() as connection:
            rows = connection.execute(newest(query, t.executions.c.id, limit, after)).mappings().all()
        return [Execution(**{name: row[name] for name in row if name != "project_id"}) for row in rows]

    def get(self, project: str, execution: str) -> Execution | None:
        """Return one, whole; None where there is none."""
        query = sa.select(t.executions).where(t.executions.c.project_id == project, t.executions.c.id == execution)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None
        values = {name: row[name] for name in Execution._fields}
        return Execution(**values | {name: json.loads(values[name]) for name in ("request", "response")})

    def delete(self, by: Caller, execution: str) -> bool:
        """Forget one; False where there is none."""
        mine = (t.executions.c.project_id == by.project_id) & (t.executions.c.id == execution)
        return self._delete(mine, lambda connection: note(connection, by, "execution.delete", execution)) > 0

    def forget_before(self, moment: str) -> int:
        """Forget those of every project that began before a moment; return how many."""
        gone = 0
        while step := self._delete(t.executions.c.started_at < moment):
            gone += step
        return gone

    def connections(
        self, project: str, *, limit: int, after: str | None = None, execution: str | None = None
    ) -> list[Reached]:
        """Return connections, the newest first; of one execution or of all."""
        query = sa.select(t.connections).where(t.connections.c.project_id == project)
        if execution is not None:
            query = query.where(t.connections.c.execution_id == execution)
        with self._database.read() as connection:
            rows = connection.execute(newest(query, t.connections.c.id, limit, after)).mappings().all()
        return [Reached(**{name: row[name] for name in Reached._fields}) for row in rows]

    def buckets(self, project: str, since: str, characters: int) -> list[Bucket]:
        """Return what happened since a moment, by so many characters of the time: 13 for hours, 16 for minutes."""
        e = t.executions.c
        span = sa.func.substr(e.started_at, 1, characters)
        query = (
            sa.select(span, sa.func.count(), sa.func.sum(sa.case((e.exit_code != 0, 1), else_=0)),
                      sa.func.avg(e.duration_ms), sa.func.max(e.duration_ms))
            .where(e.project_id == project, e.started_at >= since).group_by(span).order_by(span)
        )  # fmt: skip
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Bucket(at=r[0], executions=r[1], failed=int(r[2]), mean_ms=float(r[3]), longest_ms=r[4]) for r in rows]

    def _delete(self, which: sa.ColumnElement[bool], noted: Callable[[sa.Connection], None] | None = None) -> int:
        # By the thousand, so that no writer waits long.
        ids = (
            sa.select(t.executions.c.id, t.executions.c.project_id, t.executions.c.stored_bytes)
            .where(which)
            .limit(1000)
            # Several servers may forget at one time: each row is one's alone, and so is what is taken off its project's use.
            .with_for_update(skip_locked=True)
        )
        with self._database.write() as connection:
            rows = connection.execute(ids).all()
            names = [row[0] for row in rows]
            connection.execute(t.connections.delete().where(t.connections.c.execution_id.in_(names)))
            connection.execute(t.executions.delete().where(t.executions.c.id.in_(names)))
            for project in {row[1] for row in rows}:
                use(connection, project, stored_bytes=-sum(row[2] for row in rows if row[1] == project))
            if rows and noted is not None:
                noted(connection)
        return len(rows)


def _rows(
    project: str, execution: Execution, connections: Sequence[Connection], refusals: Sequence[Refusal]
) -> list[dict[str, Any]]:
    made = [
        {"host": each.host, "port": each.port, "verdict": each.verdict, "why": each.reason, "sent_bytes": each.sent_bytes,
         "received_bytes": each.received_bytes}
        for each in connections[:_CONNECTIONS] if each.verdict != "refused"
    ] + [
        {"host": each.host, "port": each.port, "verdict": "refused", "why": each.why, "sent_bytes": 0, "received_bytes": 0}
        for each in refusals[:_CONNECTIONS]
    ]  # fmt: skip
    shared = {"project_id": project, "execution_id": execution.id, "at": now()}
    return [{"id": new_id(), **shared, **each} for each in made]
