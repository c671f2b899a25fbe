"""Cached tokens per task: the part of the prompt that the provider read from its cache."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="cached tokens per task",
    unit="tokens",
    better="neither",
    order=17,
    note="Part of the prompt tokens.",
    of=lambda columns: columns.total(columns.figure("tokens_cached")),
)
