"""The queue: jobs, their processes, workers, and GPUs that are taken."""

import sqlalchemy as sa
from alembic import op

revision = "0003_jobs"
down_revision = "0002_sessions"


def upgrade() -> None:
    """Makes the tables of the queue."""
    op.create_table(
        "job",
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("home", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("cwd", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("wanted", sa.String(10), nullable=False),
        sa.Column("wanted_s", sa.Float(53), nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("started_s", sa.Float(53)),
        sa.Column("ended_s", sa.Float(53)),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
    )
    op.create_index("job_by_age", "job", ["created_s", "id"])
    op.create_index("job_by_state", "job", ["home", "state"])
    op.create_table(
        "job_step",
        sa.Column("job_id", sa.String(100), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("process", sa.String(100), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("limit_batches", sa.Integer()),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("executor", sa.String(40), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("device", sa.String(10), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_s", sa.Float(53), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("not_before_s", sa.Float(53), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(100)),
        sa.Column("worker", sa.String(60)),
        sa.Column("host", sa.String(200)),
        sa.Column("pid", sa.Integer()),
        sa.Column("pid_started_s", sa.Float(53)),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("handed_back", sa.Boolean(), nullable=False),
        sa.Column("claimed_s", sa.Float(53)),
        sa.Column("beat_s", sa.Float(53)),
        sa.Column("ended_s", sa.Float(53)),
        sa.Column("error", sa.Text()),
    )
    op.create_index("job_step_by_turn", "job_step", ["state", "priority", "created_s"])
    op.create_index("job_step_by_worker", "job_step", ["worker"])
    op.create_table(
        "job_worker",
        sa.Column("id", sa.String(60), primary_key=True),
        sa.Column("home", sa.String(40), nullable=False),
        sa.Column("host", sa.String(200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started_s", sa.Float(53), nullable=False),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("cpu_slots", sa.Integer(), nullable=False),
        sa.Column("executors", sa.JSON(), nullable=False),
        sa.Column("started_s", sa.Float(53), nullable=False),
        sa.Column("beat_s", sa.Float(53), nullable=False),
    )
    op.create_table(
        "job_gpu",
        sa.Column("host", sa.String(200), primary_key=True),
        sa.Column("gpu", sa.Integer(), primary_key=True),
        sa.Column("job_id", sa.String(100), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    """Drops them."""
    for table in ("job_gpu", "job_worker", "job_step", "job"):
        op.drop_table(table)
