"""The database: migrations lead to the tables, other versions are told apart, several use it at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import fumehood.server.store as store_package
from fumehood.errors import ConfigurationError
from fumehood.server.ids import new_id
from fumehood.server.store.database import Database
from fumehood.server.store.keeping import Store
from fumehood.server.store.tables import HEAD, METADATA
from fumehood.server.vault import Vault


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'server.db'}"


def test_the_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(store_package.__path__[0]) / "migrations"))
    engine = sa.create_engine(url(tmp_path))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == HEAD
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_a_new_database_is_of_the_last_version_and_opens_again(tmp_path: Path) -> None:
    Database(url(tmp_path)).close()
    database = Database(url(tmp_path))
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
    database.close()


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(ConfigurationError, match="version '9999'.*newer"):
        Database(url(tmp_path))


@pytest.mark.parametrize(
    "bad",
    ["nonsense", "sqlite:////nowhere/at/all.db", "oracle://u:word@h/d", "postgresql+psycopg://u:word@127.0.0.1:1/d"],
)
def test_a_database_that_cannot_be_used_is_told_without_its_password(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be") as raised:
        Database(bad)
    assert "word@" not in str(raised.value)


def test_what_raises_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    database = Database(url(tmp_path))

    def fail() -> None:
        with database.write() as connection:
            connection.execute(sa.text("INSERT INTO projects VALUES ('1', 'a', 'b')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM projects")).scalar() == 0
    database.close()


def test_two_services_write_to_one_database(tmp_path: Path) -> None:
    stores = []
    for _each in range(2):
        database = Database(url(tmp_path))
        stores.append((database, Store(database, Vault.open(tmp_path))))
    caller = None
    for _database, store in stores:
        store.add_key("one key", "test")
        found = store.caller("one key")
        assert found is not None
        assert caller in (None, found)
        caller = found
    assert caller is not None
    project = caller.project_id

    def write(store: Store) -> None:
        for number in range(50):
            store.add_secret(project, f"s{number}", "v")

    threads = [threading.Thread(target=write, args=(store,)) for _database, store in stores for _each in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores[0][1].secrets(project, limit=1000, after=None)) == 300
    for database, _store in stores:
        database.close()


def test_a_project_sees_nothing_of_anothers(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    store = Store(database, Vault.open(tmp_path))
    store.add_key("k", "test")
    caller = store.caller("k")
    assert caller is not None
    fields: dict[str, Any] = {
        "name": "n",
        "language": "python",
        "code": "",
        "description": "",
        "input_schema": {},
        "runtime_revision_id": None,
    }
    tool = store.add_tool(caller.project_id, fields)
    secret = store.add_secret(caller.project_id, "n", "v")
    other = new_id()
    assert store.tool(other, tool.id) is None
    assert store.change_tool(other, tool.id, {"name": "m"}) is None
    assert store.secret(other, secret) is None
    assert store.tools(other, limit=9, after=None) == store.secrets(other, limit=9, after=None) == []
    assert store.tool(caller.project_id, tool.id) == tool
    database.close()


def test_ids_sort_as_they_were_made() -> None:
    made = [new_id() for _each in range(10_000)]
    assert made == sorted(set(made))
    assert {len(each) for each in made} == {26}


def test_a_vault_opens_what_an_older_key_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Vault.open(tmp_path)
    locked, fingerprint = old.lock("secret"), old.fingerprint("key")
    assert b"secret" not in locked
    (tmp_path / "two").mkdir()
    Vault.open(tmp_path / "two")
    newer = (tmp_path / "two" / "server.key").read_text().strip()
    older = (tmp_path / "server.key").read_text().strip()
    monkeypatch.setenv("FUMEHOOD_SERVER_KEY", f"{newer}, {older}")
    both = Vault.open(tmp_path)
    assert both.unlock(locked) == "secret"
    assert both.fingerprint("key") == fingerprint
    monkeypatch.setenv("FUMEHOOD_SERVER_KEY", newer)
    with pytest.raises(ConfigurationError, match="another key"):
        Vault.open(tmp_path).unlock(locked)
    monkeypatch.setenv("FUMEHOOD_SERVER_KEY", "short")
    with pytest.raises(ConfigurationError, match="32 random bytes"):
        Vault.open(tmp_path)
