"""The database: migrations lead to the tables, other versions are told apart, several use it at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

import fumehood.server.store as store_package
from fumehood.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from fumehood.protocol.network import Connection, Refusal
from fumehood.server.ids import new_id
from fumehood.server.store.common import SCOPES, Caller
from fumehood.server.store.database import Database
from fumehood.server.store.executions import Execution
from fumehood.server.store.keeping import Store
from fumehood.server.store.keys import Quotas, Used
from fumehood.server.store.tables import HEAD, METADATA
from fumehood.server.vault import Vault
from tests.testing.postgres import MISSING, Postgres


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


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database, of each kind."""
    if request.param == "sqlite":
        return url(tmp_path)
    server: Postgres = request.getfixturevalue("postgres")
    return server.url(f"d{new_id().lower()}")


@contextlib.contextmanager
def opened(address: str, folder: Path) -> Iterator[tuple[Database, Store, Caller]]:
    """Give a store with a first key."""
    database = Database(address)
    store = Store(database, Vault.open(folder))
    store.keys.first("the first key", "test")
    caller = store.keys.caller("the first key")
    assert caller is not None
    try:
        yield database, store, caller
    finally:
        database.close()


def tool(**values: Any) -> dict[str, Any]:
    usual = {"name": "n", "language": "python", "code": "c", "description": "", "input_schema": {}}
    return {**usual, "runtime_revision_id": None, **values}


def test_what_raises_in_the_middle_leaves_nothing(address: str, tmp_path: Path) -> None:
    database = Database(address)

    def fail() -> None:
        with database.write() as connection:
            connection.execute(sa.text("INSERT INTO projects (id, name, created_at) VALUES ('1', 'a', 'b')"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.read() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM projects")).scalar() == 0
    database.close()


def test_two_services_write_to_one_database(address: str, tmp_path: Path) -> None:
    with opened(address, tmp_path) as (_one, first, caller), opened(address, tmp_path) as (_two, second, same):
        assert caller == same

        def write(store: Store) -> None:
            for number in range(50):
                store.secrets.add(caller, f"s{number}", "v")

        threads = [threading.Thread(target=write, args=(store,)) for store in (first, second) for _each in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(first.secrets.listed(caller.project_id, limit=1000)) == 300
        # What is counted beside was counted by all of them.
        assert first.keys.used(caller.project_id).stored_bytes == 300 * len(Vault.open(tmp_path).lock("v"))


def test_of_two_changes_of_a_tool_at_once_none_is_lost(address: str, tmp_path: Path) -> None:
    with opened(address, tmp_path) as (_database, store, caller):
        made = store.tools.add(caller, tool())

        def change(name: str) -> None:
            for number in range(20):
                store.tools.change(caller, made.id, {name: str(number)})

        threads = [threading.Thread(target=change, args=(name,)) for name in ("name", "code", "description")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = store.tools.get(caller.project_id, made.id)
        assert left is not None
        assert (left.name, left.code, left.description) == ("19", "19", "19")


def test_a_project_sees_nothing_of_anothers(address: str, tmp_path: Path) -> None:
    with opened(address, tmp_path) as (_database, store, caller):
        made, secret = store.tools.add(caller, tool()), store.secrets.add(caller, "n", "v")
        runtime = store.runtimes.add(caller, "r", "python", "v8", ("requirements.txt", ""), "")
        project = store.keys.add_project(caller, "other", Quotas())
        key = store.keys.add(caller, "the other key", "n", SCOPES, project.id)
        other = store.keys.caller("the other key")
        assert other is not None
        assert other.key_id == key.id
        assert store.tools.get(other.project_id, made.id) is None
        assert store.tools.change(other, made.id, {"name": "m"}) is None
        assert store.runtimes.revise(other, runtime.id, ("requirements.txt", ""), "") is None
        assert store.runtimes.revision(other.project_id, runtime.revision.id) is None
        assert store.secrets.text(other.project_id, secret.id) is None
        assert store.runtimes.delete(other, runtime.id) is None
        assert not store.tools.delete(other, made.id)
        assert not store.secrets.delete(other, secret.id)
        assert not store.keys.revoke(other, caller.key_id)
        for part in (store.tools, store.secrets, store.runtimes, store.executions):
            assert part.listed(other.project_id, limit=9) == []
        assert [each.action for each in store.keys.audit(other.project_id, limit=9, after=None)] == []
        assert store.keys.used(other.project_id) == Used()
        assert store.tools.get(caller.project_id, made.id) == made
        assert store.secrets.text(caller.project_id, secret.id) == "v"


def test_what_is_deleted_is_stored_no_longer(address: str, tmp_path: Path) -> None:
    with opened(address, tmp_path) as (_database, store, caller):
        made, secret = store.tools.add(caller, tool(code="x" * 1000)), store.secrets.add(caller, "n", "v")
        store.tools.change(caller, made.id, {"code": "y" * 500})
        runtime = store.runtimes.add(caller, "r", "python", "v8", ("requirements.txt", "z" * 100), "")
        store.executions.add(caller.project_id, execution(caller), (), ())
        assert store.keys.used(caller.project_id).stored_bytes > 1600
        assert store.tools.delete(caller, made.id)
        assert store.secrets.delete(caller, secret.id)
        assert store.runtimes.delete(caller, runtime.id) == [runtime.revision.id]
        assert store.executions.forget_before("9999") == 1
        assert store.keys.used(caller.project_id).stored_bytes == 0
        assert store.keys.used(caller.project_id).executions == 1


def execution(caller: Caller, **values: Any) -> Execution:
    usual: dict[str, Any] = {
        "id": new_id(), "key_id": caller.key_id, "door": "riza", "kind": "script", "language": "python",
        "started_at": "2026-01-02T03:04:05.678Z", "duration_ms": 20, "cpu_ms": 10, "exit_code": 0, "reason": "exited",
        "request": {"code": "c"}, "response": {"stdout": "\0\ud800"},
    }  # fmt: skip
    return Execution(**usual | values)


def test_executions_are_listed_the_newest_first_with_whom_they_reached(address: str, tmp_path: Path) -> None:
    with opened(address, tmp_path) as (_database, store, caller):
        project = caller.project_id
        made = [
            execution(caller, exit_code=number % 2, door="riza" if number % 3 else "native") for number in range(12)
        ]
        reached = Connection(host="a.example", port=443, verdict="tunnelled", sent_bytes=1 << 40)
        refused = Refusal(host="b.example", port=80, why="not allowed")
        for each in made:
            store.executions.add(project, each, (reached,), (refused,))
        newest = [each.id for each in reversed(made)]
        assert [each.id for each in store.executions.listed(project, limit=5)] == newest[:5]
        assert [each.id for each in store.executions.listed(project, limit=5, after=newest[4])] == newest[5:10]
        assert {each.exit_code for each in store.executions.listed(project, limit=9, only_failed=True)} == {1}
        assert {each.door for each in store.executions.listed(project, limit=9, door="native")} == {"native"}
        kept = store.executions.get(project, made[0].id)
        assert kept is not None
        assert (kept.request, kept.response) == (made[0].request, made[0].response)
        lines = store.executions.connections(project, limit=9, execution=made[0].id)
        assert {(each.host, each.verdict, each.sent_bytes) for each in lines} == {
            ("a.example", "tunnelled", 1 << 40), ("b.example", "refused", 0)}  # fmt: skip
        assert len(store.executions.connections(project, limit=100)) == 24
        (bucket,) = store.executions.buckets(project, "2026", 13)
        assert (bucket.at, bucket.executions, bucket.failed, bucket.longest_ms) == ("2026-01-02T03", 12, 6, 20)


@pytest.mark.parametrize("statement", ["UPDATE audit SET detail = ''", "DELETE FROM audit"])
def test_the_audit_log_is_only_added_to(address: str, tmp_path: Path, statement: str) -> None:
    with opened(address, tmp_path) as (database, store, caller):
        store.keys.note(caller, "login", "dashboard")
        with pytest.raises(StoreUnavailable, match="append-only"), database.write() as connection:
            connection.execute(sa.text(statement))
        assert [each.action for each in store.keys.audit(caller.project_id, limit=9, after=None)] == [
            "login",
            "key.create",
        ]


def test_a_build_is_taken_by_one_and_taken_over_when_that_one_is_gone(address: str, tmp_path: Path) -> None:
    with opened(address, tmp_path) as (database, store, caller):
        made = [store.runtimes.add(caller, str(n), "python", "v8", ("requirements.txt", "a"), "") for n in range(20)]
        taken: list[str] = []

        def take(builder: str) -> None:
            while (revision := store.runtimes.take(builder)) is not None:
                taken.append(revision.id)

        threads = [threading.Thread(target=take, args=(f"b{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == sorted(each.revision.id for each in made)
        assert store.runtimes.take("another") is None
        with database.write() as connection:
            connection.execute(
                sa.text("UPDATE runtime_revisions SET builder_seen_at = '2020' WHERE id = :id"), {"id": taken[0]}
            )
        again = store.runtimes.take("another")
        assert again is not None
        assert again.id == taken[0]
        # Who had it before has no say any more.
        assert not store.runtimes.end("b0", taken[0], "failed", "")
        assert store.runtimes.end("another", taken[0], "succeeded", "words")
        kept = store.runtimes.revision(caller.project_id, taken[0])
        assert kept is not None
        assert (kept.status, kept.log, kept.language) == ("succeeded", "words", "python")


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_what_the_database_cannot_hold_is_the_callers_fault(address: str, tmp_path: Path, text: str) -> None:
    with opened(address, tmp_path) as (_database, store, caller):
        if "sqlite" in address and "\0" in text:
            made = store.tools.add(caller, tool(name=text))
            assert store.tools.get(caller.project_id, made.id) == made
        else:
            with pytest.raises(InvalidRequest, match="cannot keep"):
                store.tools.add(caller, tool(name=text))


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_a_database_that_went_away_is_told_and_used_again_when_it_is_back(tmp_path: Path) -> None:
    with Postgres() as server, opened(server.url("gone"), tmp_path) as (_database, store, caller):
        kept = store.secrets.add(caller, "kept", "v")
        server.stop()
        with pytest.raises(StoreUnavailable):
            store.secrets.add(caller, "lost", "v")
        server.start()
        assert [each.id for each in store.secrets.listed(caller.project_id, limit=9)] == [kept.id]


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
