"""Who may use the lab: named tokens, sign-ins of browsers, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0005_access"
down_revision = "0004_runs_by_state"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "access_token",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(12), nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("created_by", sa.String(80), nullable=False),
        sa.Column("last_used_s", sa.Float(53)),
        sa.Column("expires_s", sa.Float(53)),
        sa.Column("revoked_s", sa.Float(53)),
    )
    live = sa.text("revoked_s IS NULL")
    op.create_index(
        "access_token_by_name",
        "access_token",
        ["name"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_index("access_token_by_hash", "access_token", ["token_hash"], unique=True)
    op.create_table(
        "access_sign_in",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("cookie_hash", sa.String(64), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("last_seen_s", sa.Float(53), nullable=False),
        sa.Column("expires_s", sa.Float(53), nullable=False),
        sa.Column("address", sa.String(60), nullable=False),
        sa.Column("browser", sa.String(200), nullable=False),
    )
    op.create_index("access_sign_in_by_hash", "access_sign_in", ["cookie_hash"], unique=True)
    op.create_index("access_sign_in_by_token", "access_sign_in", ["token_hash"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("time_s", sa.Float(53), nullable=False),
        sa.Column("who", sa.String(80), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("via", sa.String(10), nullable=False),
        sa.Column("address", sa.String(60), nullable=False),
        sa.Column("method", sa.String(10), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
    )
    op.create_index("audit_by_action", "audit", ["action", "id"])
    op.create_index("audit_by_who", "audit", ["who", "id"])


def downgrade() -> None:
    """Drops them."""
    for table in ("audit", "access_sign_in", "access_token"):
        op.drop_table(table)
