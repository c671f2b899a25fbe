"""Requests per task: model calls of a session, failed ones too."""

import numpy as np

from melete.bench.columns import Array, Columns
from melete.bench.metric import PerTask


def _accepted(columns: Columns) -> Array:
    return columns.counts.astype(np.float64) - np.nan_to_num(columns.total(columns.has_status("refused")))


METRIC = PerTask(
    title="requests per task",
    unit="requests",
    better="lower",
    order=6,
    note="All requests that the gateway accepted, whatever came of them.",
    of=_accepted,
)
