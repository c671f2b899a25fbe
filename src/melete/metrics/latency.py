"""Percentiles of measured times, by nearest rank: each figure is a time that was really seen."""

from __future__ import annotations

import math

import numpy as np

from melete.metrics.intervals import Values, finite


def percentiles(times: Values, ranks: tuple[float, ...] = (50, 90, 95, 99)) -> dict[str, float]:
    """Nearest-rank percentiles of times in any one unit, such as `{"p50": …, "p99": …}`.

    With fewer than 100 values p99 is the largest one; show the count beside it.

    Args:
        times: (N,) times.
        ranks: percentiles from 0 to 100.

    Raises:
        ValueError: no times, one that is not finite, or a rank outside 0 to 100.
    """
    if any(not 0 <= rank <= 100 for rank in ranks):
        raise ValueError(f"a percentile lies between 0 and 100; found {ranks}")
    ordered = np.sort(finite(times))
    places = [max(math.ceil(rank / 100 * len(ordered)) - 1, 0) for rank in ranks]
    return {f"p{rank:g}": float(ordered[place]) for rank, place in zip(ranks, places, strict=True)}
