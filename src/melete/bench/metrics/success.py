"""Success: the share of tasks that were solved."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="success",
    unit="share",
    better="higher",
    order=0,
    note="Sessions whose outcome is unknown are left out.",
    of=lambda columns: columns.solved,
    rate=True,
)
