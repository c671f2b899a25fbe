"""What the pages over runs ask for by index: what runs now, and one run by its id alone."""

from alembic import op

revision = "0004_runs_by_state"
down_revision = "0003_jobs"


def upgrade() -> None:
    """Makes the indexes."""
    op.create_index("runs_by_state", "runs", ["state", "created_s"])
    op.create_index("runs_by_id", "runs", ["id"])


def downgrade() -> None:
    """Drops them."""
    op.drop_index("runs_by_id", "runs")
    op.drop_index("runs_by_state", "runs")
