"""What saved functions were before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from ...protocol.record import Record
from . import tables as t

if TYPE_CHECKING:
    from .database import Database


class ToolRevision(Record):
    """One revision of a saved function."""

    id: str
    name: str
    language: str
    code: str
    created_at: str


def revisions_of(database: Database, project: str, tool: str) -> list[ToolRevision]:
    """Return a tool's revisions, the newest first; none where the project has no such tool."""
    r = t.tool_revisions.c
    query = (
        sa.select(*(r[name] for name in ToolRevision._fields))
        .join(t.tools, t.tools.c.id == r.tool_id)
        .where(t.tools.c.project_id == project, t.tools.c.id == tool)
        .order_by(r.id.desc())
    )
    with database.read() as connection:
        rows = connection.execute(query).mappings().all()
    return [ToolRevision(**row) for row in rows]
