"""The tables. `migrations/` brings an older database to this; a test compares both."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()
#: The migration after which a database has these tables.
HEAD = "0001"

projects = Table(
    "projects", METADATA,
    Column("id", String(26), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", String(32), nullable=False),
)  # fmt: skip
keys = Table(
    "keys", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    # Keyed with the service's own secret: what a thief of the database has cannot be tried against it.
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_at", String(32), nullable=False),
    Column("revoked_at", String(32)),
)  # fmt: skip
executions = Table(
    "executions", METADATA,
    Column("id", String(26), primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("language", String(32), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("exit_code", Integer, nullable=False),
    Column("tool_id", String(26)),
    # JSON; credentials were taken out before.
    Column("request", Text, nullable=False),
    Column("response", Text, nullable=False),
    Index("executions_of_project", "project_id", "id"),
    Index("failed_executions_of_project", "project_id", "exit_code", "id"),
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
