"""The index of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0001_runs"
down_revision = None


def upgrade() -> None:
    """Makes the table of runs."""
    op.create_table(
        "runs",
        sa.Column("location", sa.String(500), primary_key=True),
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("process", sa.String(100), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("name", sa.String(200)),
        sa.Column("job", sa.String(100)),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("ended_s", sa.Float(53)),
        sa.Column("step", sa.Integer()),
        sa.Column("last", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text()),
    )
    op.create_index("runs_by_age", "runs", ["created_s"])
    op.create_index("runs_by_process", "runs", ["process", "created_s"])


def downgrade() -> None:
    """Drops it."""
    op.drop_table("runs")
