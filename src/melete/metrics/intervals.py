"""Rates and means with 95 % intervals, and pass@k.

A rate has a Wilson interval, which stays inside [0, 1] and is right at 0 of n and n of n. A mean has a percentile
bootstrap interval, which assumes nothing about the distribution but is too narrow below about ten values; from `MANY`
values on it is replaced by the normal interval, its limit. A percentile has an interval of order statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Values = Sequence[float] | npt.NDArray[np.generic]

MANY = 500  # from here on resampling a mean only repeats the central limit theorem


@dataclass(frozen=True)
class Interval:
    """An estimate, its confidence interval, and the number of values behind it."""

    value: float
    low: float
    high: float
    count: int


def success_rate(successes: int, count: int, confidence: float = 0.95) -> Interval:
    """Share of successes with the Wilson score interval.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    Args:
        successes: number of successes, from 0 to `count`.
        count: number of trials, at least 1.
        confidence: coverage of the interval.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"{successes} successes of {count} trials is not a rate")
    z = normal_quantile(confidence)
    rate = successes / count
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    low = 0.0 if successes == 0 else centre - half  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if successes == count else centre + half
    return Interval(rate, low, high, count)


def cluster_rate(successes: Values, counts: Values, confidence: float = 0.95) -> Interval:
    """Share of successes among trials that come in clusters, such as the tool calls of an episode.

    Trials of one cluster are alike, so there is less to know from them than from as many independent ones. The
    variance of the ratio is taken between clusters, and the Wilson interval is that of the number of independent trials
    with this variance; at most the real number, so that clusters never make an interval narrower.

    Source: E. Korn and B. Graubard, Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data, Survey Methodology 24 (1998).

    Args:
        successes: (N,) successes of each cluster.
        counts: (N,) trials of each cluster; those without any say nothing.
        confidence: coverage of the interval.

    Returns:
        The rate over all trials; `count` is the number of trials.

    Raises:
        ValueError: no trials, or more successes than trials in a cluster.
    """
    right, tried = finite(successes), finite(counts)
    if right.shape != tried.shape or (right < 0).any() or (right > tried).any() or not tried.any():
        raise ValueError("each cluster needs at most as many successes as trials, and there must be a trial")
    right, tried = right[tried > 0], tried[tried > 0]
    total, clusters = float(tried.sum()), len(tried)
    rate = float(right.sum() / total)
    effective = total
    if clusters > 1 and 0 < rate < 1:
        variance = clusters / (clusters - 1) * float(((right - rate * tried) ** 2).sum()) / total**2
        effective = min(total, rate * (1 - rate) / variance) if variance else total
    else:
        effective = float(clusters)  # nothing is known of how alike the trials of a cluster are
    z = normal_quantile(confidence)
    centre = (rate + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z * math.sqrt(rate * (1 - rate) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
    low = 0.0 if rate == 0 else centre - half
    high = 1.0 if rate == 1 else centre + half
    return Interval(rate, low, high, int(total))


def mean(values: Values, confidence: float = 0.95, seed: int = 0, resamples: int = 10_000) -> Interval:
    """Mean with the percentile bootstrap interval.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        values: (N,) finite numbers.
        confidence: coverage of the interval.
        seed: seed of the resampling.
        resamples: number of bootstrap samples.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    array = finite(values)
    low, high = bootstrap_mean_interval(array, confidence, seed, resamples)
    return Interval(float(array.mean()), low, high, len(array))


def pass_at_k(samples: Values, correct: Values, k: int) -> Array:
    """Chance that at least one of `k` samples of a problem is correct, without bias, per problem.

    Source: M. Chen et al., Evaluating Large Language Models Trained on Code (2021), section 2.1.

    Args:
        samples: (P,) samples drawn per problem.
        correct: (P,) correct ones among them.
        k: how many tries, at most the fewest samples of a problem.

    Returns:
        (P,) estimates of `1 - C(n - c, k) / C(n, k)`.

    Raises:
        ValueError: a problem has fewer than `k` samples, or more correct ones than samples.
    """
    n, c = np.asarray(samples, dtype=np.int64), np.asarray(correct, dtype=np.int64)
    if n.shape != c.shape or k < 1 or (n < k).any() or (c < 0).any() or (c > n).any():
        raise ValueError(f"pass@{k} needs at least {k} samples per problem and at most as many correct ones")
    return np.array([_pass_at_k(int(a), int(b), k) for a, b in zip(n, c, strict=True)], dtype=np.float64)


def percentile_interval(ordered: Array, rank: float, confidence: float = 0.95) -> Interval:
    """A nearest-rank percentile with the interval between two order statistics around it.

    Source: G. Hahn and W. Meeker, Statistical Intervals (1991), section 5.2, with the normal approximation of the
    binomial. Values are taken as independent.

    Args:
        ordered: (N,) finite values in ascending order.
        rank: percentile from 0 to 100.
        confidence: coverage of the interval.

    Returns:
        The value; an end is infinite where so few values say nothing about that side.
    """
    count, share = len(ordered), rank / 100
    half = normal_quantile(confidence) * math.sqrt(count * share * (1 - share))
    place = max(math.ceil(share * count) - 1, 0)
    below, above = math.floor(count * share - half), math.ceil(count * share + half)
    return Interval(
        float(ordered[place]),
        float(ordered[below - 1]) if below >= 1 else -math.inf,
        float(ordered[above]) if above < count else math.inf,
        count,
    )


def bootstrap_mean_interval(
    array: Array, confidence: float, seed: int, resamples: int
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `array` (N,); the normal interval from `MANY` values on."""
    if len(array) >= MANY:
        half = normal_quantile(confidence) * float(array.std(ddof=1)) / math.sqrt(len(array))
        return float(array.mean()) - half, float(array.mean()) + half
    means = resampled_sums(array, seed, resamples) / len(array)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def resampled_sums(array: Array, seed: int, resamples: int) -> Array:
    """(resamples,) sums of as many values, drawn from `array` (N,) with replacement; the same draws for the same N."""
    return np.asarray(_draws(len(array), seed, resamples) @ array, dtype=np.float64)


@lru_cache(maxsize=2)
def _draws(count: int, seed: int, resamples: int) -> npt.NDArray[np.uint8]:
    """(resamples, count) how often each value is drawn; kept, as the figures of one comparison ask alike."""
    picks = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
    picks += np.arange(resamples)[:, None] * count
    counted = np.bincount(picks.ravel(), minlength=resamples * count)
    return np.minimum(counted, 255).astype(np.uint8).reshape(resamples, count)


def normal_quantile(confidence: float) -> float:
    """The number of standard errors on each side of a two-sided interval.

    Raises:
        ValueError: the confidence is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1; found {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def finite(values: Values) -> Array:
    """Values as a float array (N,).

    Raises:
        ValueError: no values, more than one dimension, or one that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"a list of at least one number is needed; found shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.flatnonzero(~np.isfinite(array))[0])} is not a finite number")
    return array


def _pass_at_k(n: int, c: int, k: int) -> float:
    if n - c < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))
