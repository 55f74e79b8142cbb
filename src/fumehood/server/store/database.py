"""A database of the service's: SQLite in a file, or another by SQLAlchemy's URL.

Promised: what a `with database.write()` held is there after the process is killed, once the block has ended; a database that an
older version made is brought up to date when it is opened, and one of a newer version is refused.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import event

from ...errors import ConfigurationError, InvalidRequest, StoreUnavailable
from .tables import HEAD, METADATA, make_append_only

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_BUSY_SECONDS = 30


class Database:
    """Any thread may use it. `url` as SQLAlchemy has it: `sqlite:////path`, `postgresql+psycopg://user@host/name`."""

    def __init__(self, url: str) -> None:
        try:
            self._engine = sa.create_engine(
                url, pool_size=16, max_overflow=48, pool_use_lifo=True, pool_pre_ping=not url.startswith("sqlite")
            )
        except ImportError as error:
            raise ConfigurationError(
                f"database {_without_password(url)!r} cannot be used: {error}; for PostgreSQL install fumehood[postgresql]"
            ) from error
        except sa.exc.ArgumentError as error:
            raise ConfigurationError(
                f"database {_without_password(url)!r} cannot be used: write it like sqlite:////var/lib/fumehood.db or "
                "postgresql+psycopg://user@host/name"
            ) from error
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        if self._is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
        try:
            self._bring_up_to_date()
        except StoreUnavailable as error:
            raise ConfigurationError(f"database {_without_password(url)!r} cannot be opened: {error}") from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a connection to read by. Raises `StoreUnavailable`."""
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give a connection whose changes are all kept when the block ends, or none where it raises. Raises `StoreUnavailable`."""
        with self._translated(), self._engine.connect() as connection:
            if self._is_sqlite:
                # At once: who reads first and then wants to write may be refused in the middle.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            # Without this, as where the block raises, leaving the connection undoes it all.
            connection.commit()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DataError, UnicodeError) as error:
            raise InvalidRequest(
                "a text has a character that the service's database cannot keep: NUL, or half of one"
            ) from error
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            # Without the statement and its values: what was to be kept is nobody's to read here.
            words = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
            raise StoreUnavailable(f"the service's database does not answer as it should: {words}") from error

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _bring_up_to_date(self) -> None:
        with self.write() as connection:
            there = sa.inspect(connection).get_table_names()
            if "alembic_version" not in there and "projects" not in there:
                METADATA.create_all(connection)
                make_append_only(connection)
                connection.exec_driver_sql(
                    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
                )
                connection.execute(sa.text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
                return
            (version,) = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars()
        if version != HEAD:
            self._migrate(version)

    def _migrate(self, version: str) -> None:
        # 0.3 s to load, and databases are seldom of another version.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415
        from alembic.util import CommandError  # noqa: PLC0415

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise ConfigurationError(
                    f"the database is of version {version!r}, which this Fumehood does not know: it was made by a newer one"
                ) from error


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # Transactions begin where we say so, not where the driver guesses.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # What is written survives the process. Against the machine's own death the WAL is synced at checkpoints.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
    cursor.close()


def _without_password(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return url.partition("@")[2] or url
