"""Stored secrets: encrypted, named, given to programs' connections, and never read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from ...protocol.record import Record
from ..ids import new_id
from . import tables as t
from .common import note, now, page, use

if TYPE_CHECKING:
    from ..vault import Vault
    from .common import Caller
    from .database import Database


class Secret(Record):
    """What a caller may know of a secret."""

    id: str
    name: str
    created_at: str


class Secrets:
    """The secrets of all projects, one project's at a time."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    def add(self, by: Caller, name: str, value: str) -> Secret:
        """Keep a secret."""
        made = Secret(id=new_id(), name=name, created_at=now())
        data = self._vault.lock(value)
        with self._database.write() as connection:
            connection.execute(t.secrets.insert().values(**made.as_dict(), project_id=by.project_id, value=data))
            use(connection, by.project_id, stored_bytes=len(data))
            note(connection, by, "secret.create", made.id, name)
        return made

    def listed(self, project: str, *, limit: int, after: str | None = None) -> list[Secret]:
        """Return secrets in the order in which they were made. No call gives a value to a caller."""
        query = sa.select(t.secrets.c.id, t.secrets.c.name, t.secrets.c.created_at).where(
            t.secrets.c.project_id == project
        )
        with self._database.read() as connection:
            rows = connection.execute(page(query, t.secrets.c.id, limit, after)).all()
        return [Secret(id=row[0], name=row[1], created_at=row[2]) for row in rows]

    def text(self, project: str, secret: str) -> str | None:
        """Return a secret's text, to be used; None where there is none."""
        query = sa.select(t.secrets.c.value).where(t.secrets.c.project_id == project, t.secrets.c.id == secret)
        with self._database.read() as connection:
            value = connection.execute(query).scalar()
        return None if value is None else self._vault.unlock(value)

    def delete(self, by: Caller, secret: str) -> bool:
        """Forget one; False where there is none."""
        mine = (t.secrets.c.project_id == by.project_id) & (t.secrets.c.id == secret)
        with self._database.write() as connection:
            data = connection.execute(sa.select(t.secrets.c.value).where(mine)).scalar()
            if data is None:
                return False
            connection.execute(t.secrets.delete().where(mine))
            use(connection, by.project_id, stored_bytes=-len(data))
            note(connection, by, "secret.delete", secret)
        return True

    def encrypt_anew(self) -> int:
        """Encrypt all of them with the newest key; return how many there are."""
        with self._database.write() as connection:
            rows = connection.execute(sa.select(t.secrets.c.id, t.secrets.c.value).with_for_update()).all()
            for name, data in rows:
                fresh = self._vault.lock(self._vault.unlock(data))
                connection.execute(t.secrets.update().where(t.secrets.c.id == name).values(value=fresh))
        return len(rows)
