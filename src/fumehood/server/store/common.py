"""What the store's parts share: who asks, the time, pages, and what a project has used."""

from __future__ import annotations

import datetime as dt
import functools
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ...protocol.record import Record
from ..ids import new_id
from . import tables as t

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a key may be allowed: to run programs, to read what is kept, to change tools, secrets and runtimes, to make and revoke
#: keys of its project and read the audit log, and to do all of it for every project.
SCOPES = ("execute", "read", "manage", "keys", "admin")


class Caller(Record):
    """Who asks: a key, the project that it belongs to, and what it may do."""

    key_id: str
    project_id: str
    scopes: tuple[str, ...] = SCOPES

    def may(self, scope: str) -> bool:
        """Whether it may do what the scope stands for."""
        return scope in self.scopes


def now() -> str:
    """Return the time: UTC, as RFC 3339 has it, to the millisecond."""
    return written(dt.datetime.now(dt.UTC))


def written(moment: dt.datetime) -> str:
    """Return a moment in that form."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page(query: sa.Select[Any], by: sa.Column[Any], limit: int, after: str | None) -> sa.Select[Any]:
    """Return a query for what comes after an id, in order."""
    if after is not None:
        query = query.where(by > after)
    return query.order_by(by).limit(limit)


def newest(query: sa.Select[Any], by: sa.Column[Any], limit: int, after: str | None) -> sa.Select[Any]:
    """Return a query for what came before an id, the newest first."""
    if after is not None:
        query = query.where(by < after)
    return query.order_by(by.desc()).limit(limit)


def note(connection: sa.Connection, caller: Caller, action: str, thing: str, detail: str = "") -> None:
    """Write into the audit log, within the transaction that does what is noted."""
    values = {"id": new_id(), "project_id": caller.project_id, "key_id": caller.key_id, "at": now()}
    connection.execute(t.audit.insert().values(values | {"action": action, "object": thing, "detail": detail}))


def use(connection: sa.Connection, project: str, **amounts: int) -> None:
    """Add to what a project has used today: executions, failed, cpu_ms, stored_bytes."""
    values = dict.fromkeys(("executions", "failed", "cpu_ms", "stored_bytes"), 0) | amounts
    connection.execute(
        _used(connection.dialect.name, tuple(amounts)), {"project_id": project, "day": now()[:10], **values}
    )


@functools.cache
def _used(dialect: str, names: tuple[str, ...]) -> sa.Insert:
    # Made once: making it takes as long as carrying it out.
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(t.usage)
    sums = {name: t.usage.c[name] + insert.excluded[name] for name in names}
    made: sa.Insert = insert.on_conflict_do_update(index_elements=["project_id", "day"], set_=sums)
    return made


def size(texts: Iterable[str | bytes | None]) -> int:
    """Return how many bytes are stored for these, about."""
    return sum(len(each) for each in texts if each)
