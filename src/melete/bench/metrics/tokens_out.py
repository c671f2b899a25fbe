"""Answer tokens per task: what the model wrote, reasoning included."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="answer tokens per task",
    unit="tokens",
    better="lower",
    order=18,
    note="Reasoning included.",
    of=lambda columns: columns.total(columns.figure("tokens_out")),
)
