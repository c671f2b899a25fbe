"""Overhead: the gateway's own part of a request's latency."""

from melete.bench.metric import PerRequest

METRIC = PerRequest(
    title="gateway's overhead",
    unit="ms",
    better="lower",
    order=21,
    note="As the proxy measures it; not known for streams.",
    of=lambda columns: columns.figure("overhead_ms", columns.answered),
)
