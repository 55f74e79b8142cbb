"""Keys and the projects that they belong to, what those may use and have used, and the audit log."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ...errors import ConfigurationError, InvalidRequest
from ...protocol.record import Record
from ..ids import new_id
from . import tables as t
from .common import SCOPES, Caller, newest, note, now, use

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..vault import Vault
    from .database import Database

#: The project of the first key.
FIRST_PROJECT = "default"
_KEY_BYTES = 4096


class Quotas(Record):
    """What a project may use; None is no bound."""

    requests_per_minute: int | None = None
    concurrency: int | None = None
    cpu_seconds_per_day: int | None = None
    stored_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.as_dict().items():
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62
            ):
                raise InvalidRequest(f"quota {name} is {value!r}: give a whole number from 0, or null for no bound")


class Project(Record):
    """A tenant: nothing of one is seen by another."""

    id: str
    name: str
    created_at: str
    quotas: Quotas


class Key(Record):
    """What is known of a key, which is never kept itself."""

    id: str
    project_id: str
    name: str
    scopes: tuple[str, ...]
    created_at: str
    revoked_at: str | None = None


class Entry(Record):
    """One line of the audit log."""

    id: str
    at: str
    key_id: str
    action: str
    object: str
    detail: str


class Used(Record):
    """What a project has used: today, and in store."""

    executions: int = 0
    failed: int = 0
    cpu_seconds: float = 0.0
    stored_bytes: int = 0


def new_key() -> str:
    """Return a key that nobody has."""
    return f"fh_{secrets.token_urlsafe(32)}"


class Keys:
    """Keys, projects, usage and the audit log."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    def first(self, key: str, name: str) -> str:
        """Keep a key that may do all, of the first project; return its id. One that is there already stays as it is.

        Raises `ConfigurationError` for one that was revoked.
        """
        with self._database.write() as connection:
            known = connection.execute(
                sa.select(t.keys.c.id, t.keys.c.revoked_at).where(self._is(key, revoked=True))
            ).first()
            if known is not None and known.revoked_at is not None:
                raise ConfigurationError(
                    "the key that was given at the start was revoked: give another by FUMEHOOD_API_KEY, or leave it out"
                )
            if known is not None:
                return str(known.id)
            project = connection.execute(sa.select(t.projects.c.id).where(t.projects.c.name == FIRST_PROJECT)).scalar()
            if project is None:
                project = new_id()
                connection.execute(t.projects.insert().values(id=project, name=FIRST_PROJECT, created_at=now()))
            key_id = new_id()
            self._insert(connection, Caller(key_id=key_id, project_id=project), key, Key(
                id=key_id, project_id=project, name=name, scopes=SCOPES, created_at=now()))  # fmt: skip
        return key_id

    def exist(self) -> bool:
        """Whether there is a key that was not revoked."""
        with self._database.read() as connection:
            query = sa.select(t.keys.c.id).where(t.keys.c.revoked_at.is_(None)).limit(1)
            return connection.execute(query).first() is not None

    def caller(self, key: str) -> Caller | None:
        """Return whose key it is; None where it is nobody's."""
        return self._caller(self._is(key))

    def caller_by_id(self, key_id: str) -> Caller | None:
        """Return whose key has this id; None where it was revoked."""
        return self._caller(t.keys.c.id == key_id)

    def add(self, by: Caller, key: str, name: str, scopes: Sequence[str], project: str) -> Key:
        """Keep a key. Raises `InvalidRequest` for scopes that are none or that `by` lacks, and a key that is there."""
        if unknown := [each for each in scopes if each not in SCOPES]:
            raise InvalidRequest(f"scope {unknown[0]!r} is none of {', '.join(SCOPES)}")
        if more := [each for each in scopes if not by.may(each) and not by.may("admin")]:
            raise InvalidRequest(f"scope {more[0]!r}: a key gives no more than it has")
        if not scopes:
            raise InvalidRequest("scopes: name one at least")
        if not 8 <= len(key.encode("utf-8", "replace")) <= _KEY_BYTES or key != key.strip() or not key.isprintable():
            raise InvalidRequest(f"the key: take 8 to {_KEY_BYTES} printable characters, without blanks at its ends")
        made = Key(id=new_id(), project_id=project, name=name, scopes=tuple(scopes), created_at=now())
        with self._database.write() as connection:
            if connection.execute(sa.select(t.keys.c.id).where(self._is(key, revoked=True))).first() is not None:
                raise InvalidRequest("the key cannot be taken: choose another, or leave it out to have one made")
            self._insert(connection, by, key, made)
        return made

    def listed(self, project: str) -> list[Key]:
        """Return a project's keys, those that were revoked among them."""
        query = sa.select(t.keys).where(t.keys.c.project_id == project).order_by(t.keys.c.id)
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [_key(row) for row in rows]

    def revoke(self, by: Caller, key_id: str) -> bool:
        """Have a key of the caller's project open nothing from now on; False where there is none.

        Raises `InvalidRequest` where it may do more than the caller's.
        """
        mine = (t.keys.c.id == key_id) & (t.keys.c.project_id == by.project_id) & t.keys.c.revoked_at.is_(None)
        with self._database.write() as connection:
            scopes = str(connection.execute(sa.select(t.keys.c.scopes).where(mine)).scalar() or "").split()
            if not by.may("admin") and (more := [each for each in scopes if not by.may(each)]):
                raise InvalidRequest(
                    f"the key has the scope {more[0]!r}, which yours has not: a key revokes none that may do more"
                )
            done = connection.execute(t.keys.update().where(mine).values(revoked_at=now())).rowcount > 0
            if done:
                note(connection, by, "key.revoke", key_id)
        return done

    # Projects

    def add_project(self, by: Caller, name: str, quotas: Quotas) -> Project:
        """Make a project. Raises `InvalidRequest` where one has the name."""
        if not name.strip() or len(name) > 200 or not name.isprintable():
            raise InvalidRequest("the project's name: take 1 to 200 printable characters")
        project = Project(id=new_id(), name=name, created_at=now(), quotas=quotas)
        values = {"id": project.id, "name": name, "created_at": project.created_at, **quotas.as_dict()}
        with self._database.write() as connection:
            if connection.execute(sa.select(t.projects.c.id).where(t.projects.c.name == name)).first() is not None:
                raise InvalidRequest(f"a project is called {name!r} already")
            connection.execute(t.projects.insert().values(values))
            note(connection, by, "project.create", project.id, name)
        return project

    def set_quotas(self, by: Caller, project: str, quotas: Quotas) -> Project | None:
        """Change what a project may use; None where there is none."""
        with self._database.write() as connection:
            change = t.projects.update().where(t.projects.c.id == project).values(quotas.as_dict())
            if connection.execute(change).rowcount > 0:
                note(connection, by, "project.quotas", project, str(quotas.as_dict()))
        return self.project(project)

    def project(self, project: str) -> Project | None:
        """Return one; None where there is none."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(t.projects).where(t.projects.c.id == project)).mappings().first()
        return None if row is None else _project(row)

    def projects(self) -> list[Project]:
        """Return all."""
        with self._database.read() as connection:
            rows = connection.execute(sa.select(t.projects).order_by(t.projects.c.id)).mappings().all()
        return [_project(row) for row in rows]

    def used(self, project: str) -> Used:
        """Return what a project has used today, and what it has in store."""
        of_today = [sa.func.sum(sa.case((t.usage.c.day == now()[:10], column), else_=0))
                    for column in (t.usage.c.executions, t.usage.c.failed, t.usage.c.cpu_ms)]  # fmt: skip
        query = sa.select(*of_today, sa.func.sum(t.usage.c.stored_bytes)).where(t.usage.c.project_id == project)
        with self._database.read() as connection:
            row = [int(each or 0) for each in connection.execute(query).one()]
        return Used(executions=row[0], failed=row[1], cpu_seconds=row[2] / 1000, stored_bytes=row[3])

    def spend(self, project: str, cpu_ms: int) -> None:
        """Put processor time on a project's account that no execution has on its own."""
        with self._database.write() as connection:
            use(connection, project, cpu_ms=cpu_ms)

    # The audit log

    def note(self, by: Caller, action: str, thing: str, detail: str = "") -> None:
        """Write a line of it."""
        with self._database.write() as connection:
            note(connection, by, action, thing, detail)

    def audit(self, project: str, *, limit: int, after: str | None) -> list[Entry]:
        """Return a project's lines, the newest first."""
        query = newest(sa.select(t.audit).where(t.audit.c.project_id == project), t.audit.c.id, limit, after)
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [Entry(**{name: row[name] for name in Entry._fields}) for row in rows]

    def _is(self, key: str, *, revoked: bool = False) -> sa.ColumnElement[bool]:
        same = t.keys.c.hash == self._vault.fingerprint(key)
        return same if revoked else same & t.keys.c.revoked_at.is_(None)

    def _caller(self, which: sa.ColumnElement[bool]) -> Caller | None:
        query = sa.select(t.keys.c.id, t.keys.c.project_id, t.keys.c.scopes).where(which, t.keys.c.revoked_at.is_(None))
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else Caller(key_id=row[0], project_id=row[1], scopes=tuple(row[2].split()))

    def _insert(self, connection: sa.Connection, by: Caller, key: str, made: Key) -> None:
        values = made.as_dict() | {"hash": self._vault.fingerprint(key), "scopes": " ".join(made.scopes)}
        connection.execute(t.keys.insert().values(values))
        note(connection, by, "key.create", made.id, f"{made.name}: {' '.join(made.scopes)}")


def _key(row: sa.RowMapping) -> Key:
    values = {name: row[name] for name in Key._fields}
    return Key(**values | {"scopes": tuple(row["scopes"].split())})


def _project(row: sa.RowMapping) -> Project:
    quotas = Quotas(**{name: row[name] for name in Quotas._fields})
    return Project(id=row["id"], name=row["name"], created_at=row["created_at"], quotas=quotas)
