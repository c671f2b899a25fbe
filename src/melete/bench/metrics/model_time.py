"""Model time per task: the time that a session's requests took, added up."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="model time per task",
    unit="s",
    better="lower",
    order=8,
    note="Sum of the latencies; more than the time per task where requests run at once.",
    of=lambda columns: columns.total(columns.figure("latency_ms")) / 1000,
)
