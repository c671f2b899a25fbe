"""Error rate: requests that ended without an answer."""

from melete.bench.metric import Ratio

METRIC = Ratio(
    title="error rate",
    unit="share",
    better="lower",
    order=13,
    note="Errors and interrupted or refused requests; what the client gave up itself is counted apart.",
    top=lambda columns: columns.total(columns.has_status("error", "interrupted", "refused")),
    bottom=lambda columns: columns.total(
        columns.has_status("ok", "cache_hit", "error", "interrupted", "refused")
    ),
    rate=True,
)
