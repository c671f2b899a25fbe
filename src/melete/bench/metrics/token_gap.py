"""Gaps between the chunks of a stream: the 95th percentile within each request."""

from melete.bench.metric import PerRequest

METRIC = PerRequest(
    title="gap between chunks",
    unit="ms",
    better="lower",
    order=12,
    note="95th percentile of the gaps within a request; streamed requests.",
    of=lambda columns: columns.figure("gap_p95_ms", columns.answered),
)
