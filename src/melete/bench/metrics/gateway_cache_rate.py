"""Gateway cache rate: requests that the gateway answered from its own cache."""

from melete.bench.metric import Ratio

METRIC = Ratio(
    title="answered by the gateway's cache",
    unit="share",
    better="neither",
    order=15,
    note="Off unless a provider switches it on; a repeated attempt that is read from a cache measures nothing.",
    top=lambda columns: columns.total(columns.has_status("cache_hit")),
    bottom=lambda columns: columns.total(columns.has_status("ok", "cache_hit")),
    rate=True,
)
