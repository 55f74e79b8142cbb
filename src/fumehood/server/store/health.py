"""What is asked of the whole store, by those who look after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from . import tables as t

if TYPE_CHECKING:
    from .database import Database


def answers(database: Database) -> None:
    """Return where the database answers. Raises `StoreUnavailable`."""
    with database.read() as connection:
        connection.execute(sa.select(t.projects.c.id).limit(1)).all()


def builds(database: Database) -> dict[str, int]:
    """Return how many revisions of runtimes there are, by status."""
    status = t.runtime_revisions.c.status
    with database.read() as connection:
        rows = connection.execute(sa.select(status, sa.func.count()).group_by(status)).all()
    return {str(row[0]): int(row[1]) for row in rows}
