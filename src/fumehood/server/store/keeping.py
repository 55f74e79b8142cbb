"""What the service keeps and finds again, for one project at a time: nothing of another's can be named.

Times are UTC, as RFC 3339 has them. Lists are newest last where nothing else is said, and go on after an id.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...protocol.record import Record
from ..ids import new_id
from . import tables as t

if TYPE_CHECKING:
    from ..vault import Vault
    from .database import Database

#: The project of the first key.
FIRST_PROJECT = "default"


class Caller(Record):
    """Who asks: a key, and the project that it belongs to."""

    key_id: str
    project_id: str


class Tool(Record):
    """One revision of a saved function; `id` is the tool's, the same for all of them."""

    id: str
    revision_id: str
    name: str
    language: str
    code: str
    description: str
    input_schema: dict[str, Any]
    runtime_revision_id: str | None


class Execution(Record):
    """What is kept of an execution. `kind` is "script", "function" or "tool"; `request` and `response` as its door had them."""

    id: str
    kind: str
    language: str
    started_at: str
    duration_ms: int
    exit_code: int
    request: dict[str, Any]
    response: dict[str, Any]
    tool_id: str | None = None


class Store:
    """All of it. Any thread may call."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    # Keys

    def add_key(self, key: str, name: str) -> str:
        """Keep a key of the first project; return its id. One that is there already stays."""
        fingerprint = self._vault.fingerprint(key)
        with self._database.write() as connection:
            known = connection.execute(sa.select(t.keys.c.id).where(t.keys.c.hash == fingerprint)).scalar()
            if known is not None:
                return str(known)
            project = connection.execute(sa.select(t.projects.c.id).where(t.projects.c.name == FIRST_PROJECT)).scalar()
            if project is None:
                project = new_id()
                connection.execute(t.projects.insert().values(id=project, name=FIRST_PROJECT, created_at=now()))
            key_id = new_id()
            values = {"id": key_id, "project_id": project, "name": name, "hash": fingerprint, "created_at": now()}
            connection.execute(t.keys.insert().values(values))
        return key_id

    def has_keys(self) -> bool:
        """Whether there is a key that was not revoked."""
        with self._database.read() as connection:
            query = sa.select(t.keys.c.id).where(t.keys.c.revoked_at.is_(None)).limit(1)
            return connection.execute(query).first() is not None

    def caller(self, key: str) -> Caller | None:
        """Return whose key it is; None where it is nobody's."""
        query = sa.select(t.keys.c.id, t.keys.c.project_id).where(
            t.keys.c.hash == self._vault.fingerprint(key), t.keys.c.revoked_at.is_(None)
        )
        with self._database.read() as connection:
            found = connection.execute(query).first()
        return None if found is None else Caller(key_id=found[0], project_id=found[1])

    # Executions

    def add_execution(self, project: str, execution: Execution) -> None:
        """Keep an execution."""
        values = execution.as_dict()
        values |= {name: json.dumps(values[name]) for name in ("request", "response")}
        with self._database.write() as connection:
            connection.execute(t.executions.insert().values(project_id=project, **values))

    def executions(self, project: str, *, limit: int, after: str | None, only_failed: bool) -> list[Execution]:
        """Return executions, the newest first, those before `after` where one is named."""
        query = sa.select(t.executions).where(t.executions.c.project_id == project)
        if after is not None:
            query = query.where(t.executions.c.id < after)
        if only_failed:
            query = query.where(t.executions.c.exit_code != 0)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(t.executions.c.id.desc()).limit(limit)).mappings().all()
        return [_execution(row) for row in found]

    def execution(self, project: str, execution: str) -> Execution | None:
        """Return one; None where there is none."""
        query = sa.select(t.executions).where(t.executions.c.project_id == project, t.executions.c.id == execution)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _execution(row)

    # Tools

    def add_tool(self, project: str, values: dict[str, Any]) -> Tool:
        """Keep a new tool; `values` are the fields of `Tool` without ids."""
        tool = Tool(id=new_id(), revision_id=new_id(), **values)
        with self._database.write() as connection:
            connection.execute(t.tools.insert().values(id=tool.id, project_id=project, revision_id=tool.revision_id))
            connection.execute(t.tool_revisions.insert().values(_revision(tool)))
        return tool

    def change_tool(self, project: str, tool: str, changes: dict[str, Any]) -> Tool | None:
        """Make a new revision of a tool, with some fields changed; None where there is no such tool."""
        old = self.tool(project, tool)
        if old is None:
            return None
        new = old.replace(**changes, revision_id=new_id())
        with self._database.write() as connection:
            connection.execute(t.tool_revisions.insert().values(_revision(new)))
            connection.execute(t.tools.update().where(t.tools.c.id == tool).values(revision_id=new.revision_id))
        return new

    def tool(self, project: str, tool: str, revision: str | None = None) -> Tool | None:
        """Return a tool as it is, or a revision of it; None where there is none."""
        wanted = t.tools.c.revision_id if revision is None else revision
        query = _TOOL.where(t.tools.c.project_id == project, t.tools.c.id == tool, t.tool_revisions.c.id == wanted)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _tool(row)

    def tools(self, project: str, *, limit: int, after: str | None) -> list[Tool]:
        """Return tools in the order in which they were made."""
        query = _TOOL.where(t.tools.c.project_id == project, t.tool_revisions.c.id == t.tools.c.revision_id)
        with self._database.read() as connection:
            rows = connection.execute(_page(query, t.tools.c.id, limit, after)).mappings().all()
        return [_tool(row) for row in rows]

    # Secrets

    def add_secret(self, project: str, name: str, value: str) -> str:
        """Keep a secret, encrypted; return its id."""
        secret = new_id()
        values = {
            "id": secret,
            "project_id": project,
            "name": name,
            "value": self._vault.lock(value),
            "created_at": now(),
        }
        with self._database.write() as connection:
            connection.execute(t.secrets.insert().values(values))
        return secret

    def secrets(self, project: str, *, limit: int, after: str | None) -> list[tuple[str, str]]:
        """Return (id, name) of secrets in the order in which they were made. No call gives a value to a caller."""
        query = sa.select(t.secrets.c.id, t.secrets.c.name).where(t.secrets.c.project_id == project)
        with self._database.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(_page(query, t.secrets.c.id, limit, after))]

    def secret(self, project: str, secret: str) -> str | None:
        """Return a secret's text, to be used; None where there is none."""
        query = sa.select(t.secrets.c.value).where(t.secrets.c.project_id == project, t.secrets.c.id == secret)
        with self._database.read() as connection:
            value = connection.execute(query).scalar()
        return None if value is None else self._vault.unlock(value)


def now() -> str:
    """Return the time."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_TOOL = sa.select(
    t.tools.c.id.label("tool_id"), *(column for column in t.tool_revisions.c if column.name != "tool_id")
).join(t.tool_revisions, t.tool_revisions.c.tool_id == t.tools.c.id)


def _page(query: sa.Select[Any], by: sa.Column[Any], limit: int, after: str | None) -> sa.Select[Any]:
    if after is not None:
        query = query.where(by > after)
    return query.order_by(by).limit(limit)


def _execution(row: Any) -> Execution:
    values = {name: row[name] for name in Execution._fields}
    return Execution(**values | {name: json.loads(values[name]) for name in ("request", "response")})


def _tool(row: Any) -> Tool:
    return Tool(
        id=row["tool_id"], revision_id=row["id"], name=row["name"], language=row["language"], code=row["code"],
        description=row["description"], input_schema=json.loads(row["input_schema"]),
        runtime_revision_id=row["runtime_revision_id"],
    )  # fmt: skip


def _revision(tool: Tool) -> dict[str, Any]:
    values = tool.as_dict()
    tool_id, revision = values.pop("id"), values.pop("revision_id")
    return {
        **values,
        "id": revision,
        "tool_id": tool_id,
        "created_at": now(),
        "input_schema": json.dumps(tool.input_schema),
    }
