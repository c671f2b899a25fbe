"""Score: what the checker or the harness gave, on the task's own scale."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="score",
    unit="score",
    better="higher",
    order=1,
    note="Sessions without a score are left out.",
    of=lambda columns: columns.score,
)
