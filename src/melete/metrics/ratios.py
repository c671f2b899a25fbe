"""Ratios of sums, such as cost per solved task: an interval of one, and of the difference of two on the same tasks.

Rows (tasks) are resampled whole, so that a task's cost and its outcome stay together. A resample whose bottom is 0
counts as an infinite ratio: where those are not rare, an end of the interval is infinite, which says that too little
was solved to know. Whether two ratios differ is tested by swapping sides at random, task by task. From `MANY` rows on
the linearised ratio's normal limits are used for both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from melete.metrics.intervals import (
    MANY,
    Array,
    Interval,
    Values,
    bootstrap_mean_interval,
    finite,
    resampled_sums,
)
from melete.metrics.paired import Comparison, concluded, flips, share_of_flips, sign_flip_p

RESAMPLES = 10_000


def ratio(top: Values, bottom: Values, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Sum of the top over the sum of the bottom, with the percentile bootstrap interval over rows.

    Args:
        top: (N,) finite numbers.
        bottom: (N,) numbers of the same rows, none negative.
        confidence: coverage of the interval.
        seed: seed of the resampling.

    Raises:
        ValueError: the lengths differ, or the bottom adds up to nothing.
    """
    above, below = _parts(top, bottom)
    value = float(above.sum() / below.sum())
    if len(above) >= MANY:
        low, high = bootstrap_mean_interval(linearised(above, below), confidence, seed, RESAMPLES)
    else:
        low, high = _ends(_resampled(above, below, seed), confidence)
    return Interval(value, low, high, len(above))


def compare_ratios(
    before: tuple[Values, Values],
    after: tuple[Values, Values],
    confidence: float = 0.95,
    seed: int = 0,
    *,
    write: Callable[[float], str] = "{:+.3g}".format,
) -> Comparison:
    """Compares two ratios over the same rows, which are resampled and swapped together.

    Args:
        before: top and bottom, (N,) each.
        after: the same of the other side.
        confidence: coverage of the interval; the test has the level `1 - confidence`.
        seed: seed of the resampling.
        write: how the sentence writes a difference.

    Raises:
        ValueError: the lengths differ, or a bottom adds up to nothing.
    """
    first, second = _parts(*before), _parts(*after)
    if len(first[0]) != len(second[0]):
        raise ValueError(f"{len(first[0])} rows before and {len(second[0])} after are not pairs")
    values = linearised(*first)
    change = _told_apart(linearised(*second) - values, first)
    if len(change) >= MANY:
        interval = bootstrap_mean_interval(change, confidence, seed, RESAMPLES)
        p_value = sign_flip_p(change, seed)
    else:
        interval = _difference_interval(first, second, confidence, seed)
        p_value = _swapped_p(first, second, seed)
    return concluded(values, values + change, interval, p_value, "swapped labels", confidence, write)


def linearised(top: Array, bottom: Array) -> Array:
    """(N,) values whose mean is `top.sum() / bottom.sum()` and whose spread is, to first order, that of the ratio.

    Source: A. Deng et al., Applying the delta method in metric analytics, KDD 2018, section 2.
    """
    found = top.sum() / bottom.sum()
    return np.asarray(found + (top - found * bottom) / bottom.mean(), dtype=np.float64)


def _told_apart(change: Array, side: tuple[Array, Array]) -> Array:
    """The change, with 0 where only the rounding of equal ratios is left of it."""
    return np.where(np.abs(change) < 1e-12 * abs(side[0].sum() / side[1].sum()), 0.0, change)


def _parts(top: Values, bottom: Values) -> tuple[Array, Array]:
    above, below = finite(top), finite(bottom)
    if len(above) != len(below) or (below < 0).any() or not below.any():
        raise ValueError("a ratio needs as many tops as bottoms, none negative and not all 0")
    return above, below


def _resampled(top: Array, bottom: Array, seed: int) -> Array:
    """(RESAMPLES,) ratios, infinite where a resample has no bottom."""
    above, below = (resampled_sums(part, seed, RESAMPLES) for part in (top, bottom))
    ratios = np.full(RESAMPLES, np.inf)
    np.divide(above, below, out=ratios, where=below > 0)
    return ratios


def _difference_interval(
    before: tuple[Array, Array], after: tuple[Array, Array], confidence: float, seed: int
) -> tuple[float, float]:
    with np.errstate(invalid="ignore"):
        change = _told_apart(_resampled(*after, seed) - _resampled(*before, seed), before)
    unknown = np.isnan(change)  # nothing solved on either side: it could be anything
    low, _ = _ends(np.where(unknown, -np.inf, change), confidence)
    _, high = _ends(np.where(unknown, np.inf, change), confidence)
    return low, high


def _swapped_p(before: tuple[Array, Array], after: tuple[Array, Array], seed: int) -> float:
    """Share of swaps of sides after which the ratios differ at least as much as they do."""
    signs = flips(len(before[0]), seed)
    sums = [(old + new).sum() for old, new in zip(before, after, strict=True)]
    swapped = [signs @ (new - old) for old, new in zip(before, after, strict=True)]
    sides = [[(sums[part] + sign * swapped[part]) / 2 for part in (0, 1)] for sign in (-1, 1)]
    ratios = []
    for top, bottom in sides:
        found = np.full(len(signs), np.inf)
        np.divide(top, bottom, out=found, where=bottom > 1e-9 * sums[1])
        ratios.append(found)
    seen = abs(float(after[0].sum() / after[1].sum() - before[0].sum() / before[1].sum()))
    return share_of_flips(np.abs(ratios[1] - ratios[0]) >= seen * (1 - 1e-9))


def _ends(values: Array, confidence: float) -> tuple[float, float]:
    """The quantiles that leave out the two tails; never between a number and infinity."""
    ordered, tail = np.sort(values), (1 - confidence) / 2
    cut = int(tail * len(ordered))
    return float(ordered[cut]), float(ordered[len(ordered) - 1 - cut])
