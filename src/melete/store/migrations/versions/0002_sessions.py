"""Sessions, credentials, config entities, requests with their events, rollups and artifacts."""

import sqlalchemy as sa
from alembic import op

revision = "0002_sessions"
down_revision = "0001_runs"

ENTITIES = ("provider", "harness_profile", "variant", "experiment", "task_card")


def upgrade() -> None:
    """Makes the tables of the gateway and of bench."""
    for entity in ENTITIES:
        op.create_table(
            entity,
            sa.Column("id", sa.String(200), primary_key=True),
            sa.Column("name", sa.String(180), nullable=False, index=True),
            sa.Column("digest", sa.String(64), nullable=False),
            sa.Column("document", sa.JSON(), nullable=False),
            sa.Column("created_s", sa.Float(53), nullable=False),
        )
    op.create_table(
        "session",
        sa.Column("id", sa.String(60), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("experiment", sa.String(200)),
        sa.Column("variant", sa.String(200)),
        sa.Column("task_card", sa.String(200)),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("harness_profile", sa.String(200)),
        sa.Column("provider", sa.String(200)),
        sa.Column("model", sa.String(200)),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("started_s", sa.Float(53)),
        sa.Column("ended_s", sa.Float(53)),
        sa.Column("expires_s", sa.Float(53)),
        sa.Column("first_request_s", sa.Float(53)),
        sa.Column("last_request_s", sa.Float(53)),
        sa.Column("solved", sa.Boolean()),
        sa.Column("score", sa.Float(53)),
        sa.Column("outcome_source", sa.String(20)),
        sa.Column("outcome_note", sa.Text()),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("content", sa.Boolean(), nullable=False),
    )
    op.create_index("session_by_age", "session", ["created_s", "id"])
    op.create_index("session_by_end", "session", ["state", "expires_s"])
    op.create_index("session_by_experiment", "session", ["experiment", "created_s"])
    op.create_index("session_by_variant", "session", ["variant", "created_s"])
    op.create_table(
        "credential",
        sa.Column("key_hash", sa.String(64), primary_key=True),
        sa.Column("session_id", sa.String(60), nullable=False),
        sa.Column("alias", sa.String(60), nullable=False),
        sa.Column("issuer", sa.String(40), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("expires_s", sa.Float(53), nullable=False),
        sa.Column("revoked_s", sa.Float(53)),
    )
    op.create_index("credential_by_session", "credential", ["session_id"])
    op.create_table(
        "request",
        sa.Column("id", sa.String(60), primary_key=True),
        sa.Column("session_id", sa.String(60)),
        sa.Column("source", sa.String(60), nullable=False),
        sa.Column("call_id", sa.String(100)),
        sa.Column("endpoint", sa.String(20)),
        sa.Column("stream", sa.Boolean()),
        sa.Column("model_asked", sa.String(200)),
        sa.Column("model_answered", sa.String(200)),
        sa.Column("deployment", sa.String(200)),
        sa.Column("provider", sa.String(100)),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("error_class", sa.String(40)),
        sa.Column("http_status", sa.Integer()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_s", sa.Float(53), nullable=False),
        sa.Column("ended_s", sa.Float(53)),
        sa.Column("latency_ms", sa.Float(53)),
        sa.Column("ttft_ms", sa.Float(53)),
        sa.Column("first_chunk_ms", sa.Float(53)),
        sa.Column("gap_p50_ms", sa.Float(53)),
        sa.Column("gap_p95_ms", sa.Float(53)),
        sa.Column("gap_max_ms", sa.Float(53)),
        sa.Column("tokens_in", sa.BigInteger()),
        sa.Column("tokens_cached", sa.BigInteger()),
        sa.Column("tokens_cache_write", sa.BigInteger()),
        sa.Column("tokens_out", sa.BigInteger()),
        sa.Column("tokens_reasoning", sa.BigInteger()),
        sa.Column("tokens_estimated", sa.Boolean()),
        sa.Column("cost_usd", sa.Float(53)),
        sa.Column("cost_source", sa.String(60)),
        sa.Column("upstream_request_id", sa.String(200)),
        sa.Column("overhead_ms", sa.Float(53)),
        sa.Column("tool_calls", sa.Integer()),
        sa.Column("finish_reason", sa.String(40)),
        sa.Column("changed", sa.JSON()),
        sa.Column("client", sa.String(40)),
    )
    op.create_index("request_by_age", "request", ["started_s", "id"])
    op.create_index("request_by_session", "request", ["session_id", "started_s"])
    op.create_table(
        "request_event",
        sa.Column("request_id", sa.String(60), primary_key=True),
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("session_id", sa.String(60)),
        sa.Column("time_s", sa.Float(53), nullable=False),
        sa.Column("writer", sa.String(120), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "request_open",
        sa.Column("request_id", sa.String(60), primary_key=True),
        sa.Column("session_id", sa.String(60)),
        sa.Column("writer", sa.String(120), nullable=False),
        sa.Column("begun_s", sa.Float(53), nullable=False),
    )
    op.create_index("request_open_by_session", "request_open", ["session_id"])
    op.create_table(
        "spool_position",
        sa.Column("segment", sa.String(300), primary_key=True),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("bad_lines", sa.Integer(), nullable=False),
        sa.Column("read_s", sa.Float(53), nullable=False),
    )
    op.create_table(
        "spend_log",
        sa.Column("origin", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(300), primary_key=True),
        sa.Column("session_id", sa.String(60)),
        sa.Column("call_id", sa.String(100)),
        sa.Column("started_s", sa.Float(53), nullable=False),
        sa.Column("ended_s", sa.Float(53), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("request_id", sa.String(60), nullable=False),
    )
    op.create_index("spend_log_by_session", "spend_log", ["session_id"])
    op.create_index("spend_log_by_start", "spend_log", ["origin", "started_s", "id"])
    op.create_table(
        "request_content",
        sa.Column("request_id", sa.String(60), primary_key=True),
        sa.Column("session_id", sa.String(60)),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("expires_s", sa.Float(53), nullable=False),
    )
    op.create_index("request_content_by_end", "request_content", ["expires_s"])
    op.create_table(
        "metric_rollup",
        sa.Column("scope", sa.String(20), primary_key=True),
        sa.Column("scope_id", sa.String(200), primary_key=True),
        sa.Column("metric", sa.String(60), primary_key=True),
        sa.Column("value", sa.Float(53)),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("columns", sa.LargeBinary()),
    )
    # Packed figures hardly compress, and are read by the ten thousand.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE metric_rollup ALTER COLUMN columns SET STORAGE EXTERNAL")
    op.create_table(
        "artifact",
        sa.Column("id", sa.String(60), primary_key=True),
        sa.Column("session_id", sa.String(60)),
        sa.Column("experiment", sa.String(200)),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("path", sa.String(500), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
    )
    op.create_index("artifact_by_experiment", "artifact", ["experiment"])
    op.create_index("artifact_by_session", "artifact", ["session_id"])


def downgrade() -> None:
    """Drops them."""
    for table in (
        "artifact",
        "metric_rollup",
        "request_content",
        "spend_log",
        "spool_position",
        "request_open",
        "request_event",
        "request",
        "credential",
        "session",
        *ENTITIES,
    ):
        op.drop_table(table)
