"""Requests per task: model calls of a session, failed ones too."""

from melete.bench.metric import PerTask

METRIC = PerTask(
    title="requests per task",
    unit="requests",
    better="lower",
    order=6,
    note="All requests that the gateway accepted.",
    of=lambda columns: columns.counts.astype(float),
)
