"""Runtimes with packages of a project's own: what they are made of, and how far their builds have come."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ...protocol.record import Record
from ..ids import new_id
from . import tables as t
from .common import note, now, page, size, use, written

if TYPE_CHECKING:
    from .common import Caller
    from .database import Database

#: A build whose server was not heard of for so long is another's to take over.
STALE_SECONDS = 20
_LOG_CHARACTERS = 256 << 10


class Revision(Record):
    """One revision; it never changes but for its build's `status` and `log`. `language` and `project_id` are its runtime's."""

    id: str
    runtime_id: str
    language: str
    project_id: str
    manifest_name: str
    manifest: str
    python_imports: str
    status: str
    created_at: str
    log: str = ""


class Runtime(Record):
    """A runtime, with its newest revision."""

    id: str
    name: str
    language: str
    engine: str
    created_at: str
    revision: Revision


class Runtimes:
    """The runtimes of all projects, one project's at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, by: Caller, name: str, language: str, engine: str, manifest: tuple[str, str], imports: str
    ) -> Runtime:
        """Keep a new runtime whose first revision is to be built; `manifest` is the file's name and content."""
        runtime, revision = new_id(), new_id()
        values = {"id": runtime, "name": name, "language": language, "engine": engine, "created_at": now()}
        with self._database.write() as connection:
            connection.execute(
                t.runtimes.insert().values(values | {"project_id": by.project_id, "revision_id": revision})
            )
            made = self._revise(connection, by, (revision, runtime, language), manifest, imports)
            note(connection, by, "runtime.create", runtime, name)
        return Runtime(**values, revision=made)

    def revise(self, by: Caller, runtime: str, manifest: tuple[str, str], imports: str) -> Revision | None:
        """Keep a new revision, which is to be built; None where there is no such runtime."""
        mine = (t.runtimes.c.project_id == by.project_id) & (t.runtimes.c.id == runtime)
        revision = new_id()
        with self._database.write() as connection:
            language = connection.execute(sa.select(t.runtimes.c.language).where(mine)).scalar()
            if language is None:
                return None
            connection.execute(t.runtimes.update().where(mine).values(revision_id=revision))
            made = self._revise(connection, by, (revision, runtime, str(language)), manifest, imports)
            note(connection, by, "runtime.revise", runtime, revision)
        return made

    def listed(self, project: str, *, limit: int, after: str | None = None) -> list[Runtime]:
        """Return runtimes in the order in which they were made."""
        query = _WITH_REVISION.where(t.runtimes.c.project_id == project)
        with self._database.read() as connection:
            rows = connection.execute(page(query, t.runtimes.c.id, limit, after)).mappings().all()
        return [_runtime(row) for row in rows]

    def get(self, project: str, runtime: str) -> Runtime | None:
        """Return one; None where there is none."""
        query = _WITH_REVISION.where(t.runtimes.c.project_id == project, t.runtimes.c.id == runtime)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _runtime(row)

    def revisions(self, project: str, runtime: str) -> list[Revision]:
        """Return a runtime's revisions, the oldest first."""
        query = _OF_PROJECT.where(t.runtimes.c.project_id == project, t.runtime_revisions.c.runtime_id == runtime)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(t.runtime_revisions.c.id)).mappings().all()
        return [_revision(row) for row in rows]

    def revision(self, project: str, revision: str) -> Revision | None:
        """Return a revision of any of a project's runtimes; None where there is none."""
        query = _OF_PROJECT.where(t.runtimes.c.project_id == project, t.runtime_revisions.c.id == revision)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _revision(row)

    def delete(self, by: Caller, runtime: str) -> list[str] | None:
        """Remove a runtime; return its revisions' ids, None where there is none."""
        with self._database.write() as connection:
            mine = (t.runtimes.c.project_id == by.project_id) & (t.runtimes.c.id == runtime)
            if connection.execute(sa.select(t.runtimes.c.id).where(mine)).first() is None:
                return None
            of_it = t.runtime_revisions.c.runtime_id == runtime
            rows = connection.execute(
                sa.select(t.runtime_revisions.c.id, t.runtime_revisions.c.manifest).where(of_it)
            ).all()
            connection.execute(t.runtime_revisions.delete().where(of_it))
            connection.execute(t.runtimes.delete().where(mine))
            use(connection, by.project_id, stored_bytes=-sum(len(row[1]) for row in rows))
            note(connection, by, "runtime.delete", runtime)
        return [row[0] for row in rows]

    def waiting(self, project: str) -> int:
        """Return how many revisions of a project's are to be built, or are."""
        query = (
            sa.select(sa.func.count()).select_from(t.runtime_revisions)
            .join(t.runtimes, t.runtimes.c.id == t.runtime_revisions.c.runtime_id)
            .where(t.runtimes.c.project_id == project, t.runtime_revisions.c.status.in_(("pending", "building")))
        )  # fmt: skip
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    # What builds them, for all projects

    def take(self, builder: str, after: str = "") -> Revision | None:
        """Take a revision that is to be built, for the builder that asks; None where there is none.

        `after`: the project whose revision it built last, which waits for the others.
        """
        r = t.runtime_revisions.c
        stale = written(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=STALE_SECONDS))
        free = (r.status == "pending") | ((r.status == "building") & (r.builder_seen_at < stale))
        query = _OF_PROJECT.where(free).order_by(t.runtimes.c.project_id == after, r.id).limit(1)
        with self._database.write() as connection:
            row = connection.execute(query.with_for_update(of=t.runtime_revisions, skip_locked=True)).mappings().first()
            if row is None:
                return None
            taken = {"status": "building", "builder": builder, "builder_seen_at": now(), "log": ""}
            connection.execute(t.runtime_revisions.update().where(r.id == row["id"]).values(taken))
        return _revision(row).replace(status="building", log="")

    def progress(self, builder: str, revision: str, log: str) -> bool:
        """Say that a build goes on, and what it said; False where it is the builder's no longer."""
        return self._change(builder, revision, {"log": log[-_LOG_CHARACTERS:], "builder_seen_at": now()})

    def end(self, builder: str, revision: str, status: str, log: str) -> bool:
        """Say how a build ended, or that it is to begin again: "succeeded", "failed" or "pending"."""
        return self._change(builder, revision, {"status": status, "log": log[-_LOG_CHARACTERS:], "builder": None})

    def _change(self, builder: str, revision: str, values: dict[str, str | None]) -> bool:
        mine = (t.runtime_revisions.c.id == revision) & (t.runtime_revisions.c.builder == builder)
        with self._database.write() as connection:
            return connection.execute(t.runtime_revisions.update().where(mine).values(values)).rowcount > 0

    def _revise(
        self,
        connection: sa.Connection,
        by: Caller,
        names: tuple[str, str, str],
        manifest: tuple[str, str],
        imports: str,
    ) -> Revision:
        revision, runtime, language = names
        made = Revision(
            id=revision, runtime_id=runtime, language=language, project_id=by.project_id,
            manifest_name=manifest[0], manifest=manifest[1],
            python_imports=imports, status="pending", created_at=now(),
        )  # fmt: skip
        values = {name: value for name, value in made.as_dict().items() if name not in ("language", "project_id")}
        connection.execute(t.runtime_revisions.insert().values(values))
        use(connection, by.project_id, stored_bytes=size((manifest[1],)))
        return made


_OF_PROJECT = sa.select(t.runtime_revisions, t.runtimes.c.language, t.runtimes.c.project_id).join(
    t.runtimes, t.runtimes.c.id == t.runtime_revisions.c.runtime_id
)
_WITH_REVISION = sa.select(
    *(column.label(f"of_{column.name}") for column in t.runtimes.c),
    *t.runtime_revisions.c,
    t.runtimes.c.language,
    t.runtimes.c.project_id,
).join(t.runtime_revisions, t.runtime_revisions.c.id == t.runtimes.c.revision_id)


def _revision(row: sa.RowMapping) -> Revision:
    return Revision(**{name: row[name] for name in Revision._fields})


def _runtime(row: sa.RowMapping) -> Runtime:
    values = {name: row[f"of_{name}"] for name in Runtime._fields if name != "revision"}
    return Runtime(**values, revision=_revision(row))
