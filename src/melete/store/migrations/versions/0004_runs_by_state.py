"""What the pages over runs ask for by index: runs of a home, by state and by process, and one by its id alone."""

from alembic import op

revision = "0004_runs_by_state"
down_revision = "0003_jobs"


def upgrade() -> None:
    """Makes the indexes."""
    op.create_index("runs_by_home", "runs", ["location", "created_s", "id"])
    op.create_index("runs_by_state", "runs", ["location", "state", "created_s", "id"])
    op.create_index("runs_by_home_and_process", "runs", ["location", "process", "created_s", "id"])
    op.create_index("runs_by_id", "runs", ["id"])


def downgrade() -> None:
    """Drops them."""
    for name in ("runs_by_id", "runs_by_home_and_process", "runs_by_state", "runs_by_home"):
        op.drop_index(name, "runs")
