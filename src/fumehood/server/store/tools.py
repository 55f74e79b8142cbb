"""Saved functions, with all their revisions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ...protocol.record import Record
from ..ids import new_id
from . import tables as t
from .common import note, now, page, size, use

if TYPE_CHECKING:
    from .common import Caller
    from .database import Database


# What of a revision is on its project's account.
_COUNTED = ("code", "input_schema", "name", "description")


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


class Tools:
    """The tools of all projects, one project's at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, by: Caller, values: dict[str, Any]) -> Tool:
        """Keep a new tool; `values` are the fields of `Tool` without ids."""
        tool = Tool(id=new_id(), revision_id=new_id(), **values)
        with self._database.write() as connection:
            connection.execute(
                t.tools.insert().values(id=tool.id, project_id=by.project_id, revision_id=tool.revision_id)
            )
            self._revise(connection, by, tool, "tool.create")
        return tool

    def change(self, by: Caller, tool: str, changes: dict[str, Any]) -> Tool | None:
        """Make a new revision of a tool, with some fields changed; None where there is no such tool."""
        with self._database.write() as connection:
            # Of two that change it at once, neither undoes the other.
            connection.execute(sa.select(t.tools.c.id).where(t.tools.c.id == tool).with_for_update())
            old = self._get(connection, by.project_id, tool, None)
            if old is None:
                return None
            new = old.replace(**changes, revision_id=new_id())
            self._revise(connection, by, new, "tool.update")
            connection.execute(t.tools.update().where(t.tools.c.id == tool).values(revision_id=new.revision_id))
        return new

    def delete(self, by: Caller, tool: str) -> bool:
        """Remove a tool and its revisions; False where there is none."""
        with self._database.write() as connection:
            if self._get(connection, by.project_id, tool, None) is None:
                return False
            revisions = t.tool_revisions.c.tool_id == tool
            texts = connection.execute(
                sa.select(*(t.tool_revisions.c[name] for name in _COUNTED)).where(revisions)
            ).all()
            connection.execute(t.tool_revisions.delete().where(revisions))
            connection.execute(t.tools.delete().where(t.tools.c.id == tool))
            use(connection, by.project_id, stored_bytes=-sum(size(row) for row in texts))
            note(connection, by, "tool.delete", tool)
        return True

    def get(self, project: str, tool: str, revision: str | None = None) -> Tool | None:
        """Return a tool as it is, or a revision of it; None where there is none."""
        with self._database.read() as connection:
            return self._get(connection, project, tool, revision)

    def listed(self, project: str, *, limit: int, after: str | None = None) -> list[Tool]:
        """Return tools in the order in which they were made."""
        query = _TOOL.where(t.tools.c.project_id == project, t.tool_revisions.c.id == t.tools.c.revision_id)
        with self._database.read() as connection:
            rows = connection.execute(page(query, t.tools.c.id, limit, after)).mappings().all()
        return [_tool(row) for row in rows]

    def _get(self, connection: sa.Connection, project: str, tool: str, revision: str | None) -> Tool | None:
        wanted = t.tools.c.revision_id if revision is None else revision
        query = _TOOL.where(t.tools.c.project_id == project, t.tools.c.id == tool, t.tool_revisions.c.id == wanted)
        row = connection.execute(query).mappings().first()
        return None if row is None else _tool(row)

    def _revise(self, connection: sa.Connection, by: Caller, tool: Tool, action: str) -> None:
        values = tool.as_dict() | {"input_schema": json.dumps(tool.input_schema), "created_at": now()}
        values |= {"tool_id": tool.id, "id": values.pop("revision_id")}
        connection.execute(t.tool_revisions.insert().values(values))
        use(connection, by.project_id, stored_bytes=size(values[name] for name in _COUNTED))
        note(connection, by, action, tool.id, tool.name)


_TOOL = sa.select(
    t.tools.c.id.label("tool_id"), *(column for column in t.tool_revisions.c if column.name != "tool_id")
).join(t.tool_revisions, t.tool_revisions.c.tool_id == t.tools.c.id)


def _tool(row: sa.RowMapping) -> Tool:
    return Tool(
        id=row["tool_id"], revision_id=row["id"], name=row["name"], language=row["language"], code=row["code"],
        description=row["description"], input_schema=json.loads(row["input_schema"]),
        runtime_revision_id=row["runtime_revision_id"],
    )  # fmt: skip
