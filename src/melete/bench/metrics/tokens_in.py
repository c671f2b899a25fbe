"""Prompt tokens per task: what was sent to the model, cached tokens included."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="prompt tokens per task",
    unit="tokens",
    better="lower",
    order=16,
    note="Cached ones included.",
    of=lambda columns: columns.total(columns.figure("tokens_in")),
)
