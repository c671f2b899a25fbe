"""Latency: from a request's arrival to the end of its answer."""

from melete.bench.metric import PerRequest

METRIC = PerRequest(
    title="latency",
    unit="ms",
    better="lower",
    order=9,
    note="Answered requests only.",
    of=lambda columns: columns.figure("latency_ms", columns.answered),
)
