"""The tables. `migrations/` brings an older database to this; a test compares both."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()
#: The migration after which a database has these tables.
HEAD = "0001"

projects = Table(
    "projects", METADATA,
    Column("id", String(26), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", String(32), nullable=False),
    # Quotas; none where NULL.
    Column("requests_per_minute", Integer),
    Column("concurrency", Integer),
    Column("cpu_seconds_per_day", Integer),
    Column("stored_bytes", BigInteger),
)  # fmt: skip
keys = Table(
    "keys", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    # Keyed with the service's own secret: what a thief of the database has cannot be tried against it.
    Column("hash", String(64), nullable=False, unique=True),
    # Words, with blanks between.
    Column("scopes", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("revoked_at", String(32)),
    Index("keys_of_project", "project_id", "id"),
)  # fmt: skip
executions = Table(
    "executions", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("key_id", String(26), nullable=False),
    Column("door", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("language", String(64), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("cpu_ms", Integer, nullable=False),
    Column("exit_code", Integer, nullable=False),
    Column("reason", String(16), nullable=False),
    Column("tool_id", String(26)),
    Column("session_id", String(32)),
    Column("stored_bytes", Integer, nullable=False),
    # JSON; credentials were taken out before.
    Column("request", Text, nullable=False),
    Column("response", Text, nullable=False),
    Index("executions_of_project", "project_id", "id"),
    Index("executions_by_door", "project_id", "door", "id"),
    Index("failed_executions_of_project", "project_id", "door", "exit_code", "id"),
)  # fmt: skip
connections = Table(
    "connections", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("execution_id", String(26), nullable=False),
    Column("at", String(32), nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("why", Text, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Index("connections_of_project", "project_id", "id"),
    Index("connections_of_execution", "execution_id"),
)  # fmt: skip
tools = Table(
    "tools", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("revision_id", String(26), nullable=False),
    Index("tools_of_project", "project_id", "id"),
)  # fmt: skip
tool_revisions = Table(
    "tool_revisions", METADATA,
    Column("id", String(26), primary_key=True),
    Column("tool_id", ForeignKey("tools.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("language", String(32), nullable=False),
    Column("code", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("input_schema", Text, nullable=False),
    Column("runtime_revision_id", Text),
    Column("created_at", String(32), nullable=False),
    Index("revisions_of_tool", "tool_id", "id"),
)  # fmt: skip
secrets = Table(
    "secrets", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", String(32), nullable=False),
    Index("secrets_of_project", "project_id", "id"),
)  # fmt: skip
runtimes = Table(
    "runtimes", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("language", String(32), nullable=False),
    Column("engine", String(16), nullable=False),
    Column("revision_id", String(26), nullable=False),
    Column("created_at", String(32), nullable=False),
    Index("runtimes_of_project", "project_id", "id"),
)  # fmt: skip
runtime_revisions = Table(
    "runtime_revisions", METADATA,
    Column("id", String(26), primary_key=True),
    Column("runtime_id", ForeignKey("runtimes.id"), nullable=False),
    Column("manifest_name", String(32), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("python_imports", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("log", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    # Which server builds it, and when that one was last heard of.
    Column("builder", String(26)),
    Column("builder_seen_at", String(32)),
    Index("revisions_of_runtime", "runtime_id", "id"),
    Index("revisions_by_status", "status"),
)  # fmt: skip
usage = Table(
    "usage", METADATA,
    Column("project_id", ForeignKey("projects.id"), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("executions", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("cpu_ms", BigInteger, nullable=False),
    # What was stored on this day, less what was removed: all days together are what is stored.
    Column("stored_bytes", BigInteger, nullable=False),
)  # fmt: skip
audit = Table(
    "audit", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", String(26), nullable=False),
    Column("key_id", String(26), nullable=False),
    Column("at", String(32), nullable=False),
    Column("action", String(32), nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("audit_of_project", "project_id", "id"),
)  # fmt: skip

#: What makes the audit log one that is only ever added to, by the database's own hand: statements by dialect.
APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
        "CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION fumehood_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$",
        "CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION fumehood_append_only()",
    ),
}


def make_append_only(connection: sa.Connection) -> None:
    """Put up the triggers that keep the audit log as it was written."""
    for statement in APPEND_ONLY.get(connection.dialect.name, ()):
        connection.exec_driver_sql(statement)
