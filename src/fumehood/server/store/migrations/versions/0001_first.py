"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from fumehood.server.store.tables import make_append_only

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "audit",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("project_id", sa.String(26), nullable=False),
        sa.Column("key_id", sa.String(26), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
    )
    op.create_index("audit_of_project", "audit", ["project_id", "id"])
    op.create_table(
        "projects",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False, unique=True),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("requests_per_minute", sa.Integer()),
        sa.Column("concurrency", sa.Integer()),
        sa.Column("cpu_seconds_per_day", sa.Integer()),
        sa.Column("stored_bytes", sa.BigInteger()),
    )
    op.create_table(
        "connections",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("project_id", sa.String(26), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("execution_id", sa.String(26), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("sent_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
    )
    op.create_index("connections_of_execution", "connections", ["execution_id"])
    op.create_index("connections_of_project", "connections", ["project_id", "id"])
    op.create_table(
        "executions",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("project_id", sa.String(26), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("key_id", sa.String(26), nullable=False),
        sa.Column("door", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("language", sa.String(64), nullable=False),
        sa.Column("started_at", sa.String(32), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("cpu_ms", sa.Integer(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("tool_id", sa.String(26)),
        sa.Column("session_id", sa.String(32)),
        sa.Column("stored_bytes", sa.Integer(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
    )
    op.create_index("executions_by_door", "executions", ["project_id", "door", "id"])
    op.create_index("executions_of_project", "executions", ["project_id", "id"])
    op.create_index("failed_executions_of_project", "executions", ["project_id", "door", "exit_code", "id"])
    op.create_table(
        "keys",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("project_id", sa.String(26), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("revoked_at", sa.String(32)),
    )
    op.create_index("keys_of_project", "keys", ["project_id", "id"])
    op.create_table(
        "runtimes",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("project_id", sa.String(26), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("language", sa.String(32), nullable=False),
        sa.Column("engine", sa.String(16), nullable=False),
        sa.Column("revision_id", sa.String(26), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("runtimes_of_project", "runtimes", ["project_id", "id"])
    op.create_table(
        "secrets",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("project_id", sa.String(26), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("secrets_of_project", "secrets", ["project_id", "id"])
    op.create_table(
        "tools",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("project_id", sa.String(26), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("revision_id", sa.String(26), nullable=False),
    )
    op.create_index("tools_of_project", "tools", ["project_id", "id"])
    op.create_table(
        "usage",
        sa.Column("project_id", sa.String(26), sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("executions", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("cpu_ms", sa.BigInteger(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "runtime_revisions",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("runtime_id", sa.String(26), sa.ForeignKey("runtimes.id"), nullable=False),
        sa.Column("manifest_name", sa.String(32), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("python_imports", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("builder", sa.String(26)),
        sa.Column("builder_seen_at", sa.String(32)),
    )
    op.create_index("revisions_by_status", "runtime_revisions", ["status"])
    op.create_index("revisions_of_runtime", "runtime_revisions", ["runtime_id", "id"])
    op.create_table(
        "tool_revisions",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("tool_id", sa.String(26), sa.ForeignKey("tools.id"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("language", sa.String(32), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("input_schema", sa.Text(), nullable=False),
        sa.Column("runtime_revision_id", sa.Text()),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_index("revisions_of_tool", "tool_revisions", ["tool_id", "id"])
    make_append_only(op.get_bind())
