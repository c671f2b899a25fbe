"""Cache hit rate: prompt tokens that the provider read from its cache."""

import numpy as np

from melete.bench.columns import Array, Columns
from melete.bench.metric import Ratio


def _cached(columns: Columns) -> Array:
    """Cached tokens of the requests that say so; a provider that says nothing is unknown, not zero."""
    return columns.total(columns.figure("tokens_cached"))


def _prompt(columns: Columns) -> Array:
    prompt = columns.figure("tokens_in")
    return columns.total(np.where(np.isfinite(columns.figure("tokens_cached")), prompt, np.nan))


METRIC = Ratio(
    title="cache hit rate",
    unit="share",
    better="higher",
    order=14,
    note="Cached prompt tokens over all prompt tokens, where the provider reports them.",
    top=_cached,
    bottom=_prompt,
    rate=True,
)
