"""Reasoning tokens per task: the part of the answer that is not shown."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="reasoning tokens per task",
    unit="tokens",
    better="neither",
    order=19,
    note="Part of the answer tokens, where the provider reports them.",
    of=lambda columns: columns.total(columns.figure("tokens_reasoning")),
)
