"""Cost per solved task: what all sessions cost, over the number of tasks solved."""

import numpy as np

from melete.bench.columns import Array, Columns
from melete.bench.metric import Ratio


def _cost(columns: Columns) -> Array:
    """Cost of each session whose outcome is known; a session that made no request cost nothing."""
    cost = columns.total(columns.figure("cost_usd"))
    return np.where(columns.counts == 0, 0.0, cost)


METRIC = Ratio(
    title="cost per solved task",
    unit="USD",
    better="lower",
    order=3,
    note="Failed attempts are paid for too. Sessions without a price or an outcome are left out.",
    top=_cost,
    bottom=lambda columns: columns.solved,
)
