"""Cost per task: what the requests of a session cost."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="cost per task",
    unit="USD",
    better="lower",
    order=4,
    note="Sum over the requests that have a price; sessions without any are left out.",
    of=lambda columns: columns.total(columns.figure("cost_usd")),
)
