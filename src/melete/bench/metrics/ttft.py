"""Time to the first content token of a streamed answer."""

from melete.bench.metric import PerRequest

METRIC = PerRequest(
    title="time to first token",
    unit="ms",
    better="lower",
    order=10,
    note="Streamed requests; the first chunk with content, not the first chunk.",
    of=lambda columns: columns.figure("ttft_ms", columns.answered),
)
