"""Paired comparison: the same tasks before and after, and whether a difference is shown.

The difference has a bootstrap interval over pairs; whether it is shown is decided by an exact or Monte Carlo test, so
that three lucky pairs cannot pass. For outcomes of 0 and 1 that test is McNemar's exact test, for other scores a
sign-flip permutation test, or its normal limit from `MANY` pairs on. The sentence says in words what was found, and how
many pairs would be needed when nothing was shown. Limits: pairs are taken as independent, and the needed number assumes
that the true difference is the one seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from melete.metrics.intervals import MANY, Array, Values, bootstrap_mean_interval, finite, normal_quantile

POWER = 0.8
EXACT_PAIRS = 12  # up to here all sign flips are tried
FLIPS = 10_000


@dataclass(frozen=True)
class Comparison:
    """The paired difference `after - before` and what it shows.

    Attributes:
        before: mean (or ratio) before, over the pairs.
        after: the same after.
        difference: mean difference.
        low: lower end of its interval.
        high: upper end of its interval.
        count: number of pairs.
        effect_size: mean difference over its standard deviation (Cohen's d for pairs); None where nothing varies.
        p_value: of the test named in `test`.
        test: `mcnemar exact`, `sign flip` or `swapped labels`.
        shown: whether a difference is shown at the level of the interval.
        needed: pairs for 80 % power if the true difference is the one seen; None if there is none, or one is shown.
        sentence: the finding in words.
    """

    before: float
    after: float
    difference: float
    low: float
    high: float
    count: int
    effect_size: float | None
    p_value: float
    test: str
    shown: bool
    needed: int | None
    sentence: str


def compare_pairs(
    before: Values,
    after: Values,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
    *,
    write: Callable[[float], str] = "{:+.3g}".format,
) -> Comparison:
    """Compares two scores of the same tasks.

    Source: bootstrap as in Efron and Tibshirani (1993), chapter 13; effect size d_z, D. Lakens, Frontiers in
    Psychology 4 (2013); test Q. McNemar, Psychometrika 12 (1947), in its exact binomial form.

    Args:
        before: (N,) scores, one per task.
        after: (N,) scores of the same tasks in the same order.
        confidence: coverage of the interval; the test has the level `1 - confidence`.
        seed: seed of the resampling.
        resamples: number of bootstrap samples.
        write: how the sentence writes a difference.

    Raises:
        ValueError: the lengths differ, there is no pair, or a score is not finite.
    """
    first, second = finite(before), finite(after)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scores before and {len(second)} after are not pairs")
    change = second - first
    low, high = bootstrap_mean_interval(change, confidence, seed, resamples)
    binary = bool(np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all())
    p_value = mcnemar_p(first, second) if binary else sign_flip_p(change, seed)
    test = "mcnemar exact" if binary else "sign flip"
    return concluded(first, second, (low, high), p_value, test, confidence, write)


def concluded(
    before: Array,
    after: Array,
    interval: tuple[float, float],
    p_value: float,
    test: str,
    confidence: float,
    write: Callable[[float], str],
) -> Comparison:
    """What an interval and a test show together.

    Args:
        before: (N,) values of the pairs.
        after: (N,) the others; the difference is that of the means.
        interval: of the difference.
        p_value: of the test.
        test: its name.
        confidence: of the interval; the test has the level `1 - confidence`.
        write: how the sentence writes a difference.
    """
    low, high = interval
    change = after - before
    difference = float(change.mean())
    shown = p_value < 1 - confidence and not low <= 0 <= high
    spread = float(change.std(ddof=1)) if len(change) > 1 else 0.0
    needed = None if shown or difference == 0 else _needed(change, confidence, test == "mcnemar exact")
    count = f"{len(change):,} pair{'s' if len(change) != 1 else ''}"
    span = f"{confidence:.0%} interval {write(low)} to {write(high)}"
    return Comparison(
        before=float(before.mean()),
        after=float(after.mean()),
        difference=difference,
        low=low,
        high=high,
        count=len(change),
        effect_size=difference / spread if spread else None,
        p_value=p_value,
        test=test,
        shown=shown,
        needed=needed,
        sentence=_sentence(write(difference), span, count, shown, needed),
    )


def mcnemar_p(before: Values, after: Values) -> float:
    """Two-sided p-value of McNemar's exact test on paired outcomes of 0 and 1.

    Only pairs that differ count; under no difference each falls either way with chance 1/2.

    Raises:
        ValueError: an outcome is not 0 or 1, or the lengths differ.
    """
    first, second = finite(before), finite(after)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} outcomes before and {len(second)} after are not pairs")
    if not (np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all()):
        raise ValueError("an outcome is 0 or 1")
    better, worse = int((second > first).sum()), int((second < first).sum())
    differing = better + worse
    tail = term = 1
    for i in range(min(better, worse)):
        term = term * (differing - i) // (i + 1)
        tail += term
    return min(1.0, float(2 * tail / 2**differing))


def sign_flip_p(change: Array, seed: int) -> float:
    """Share of sign flips whose mean is at least as far from zero; all of them are tried for few pairs."""
    seen = abs(float(change.mean())) * (1 - 1e-12)
    if len(change) >= MANY:
        root = math.sqrt(float((change**2).sum()))  # standard deviation of the sum over all flips
        return math.erfc(seen * len(change) / root / math.sqrt(2)) if root else 1.0
    extreme = np.abs(flips(len(change), seed) @ change) / len(change) >= seen
    return share_of_flips(extreme)


def share_of_flips(extreme: npt.NDArray[np.bool_]) -> float:
    """p-value from which of the flips are as extreme as the data; the data itself is one of them."""
    return (int(extreme.sum()) + 1) / (FLIPS + 1) if len(extreme) == FLIPS else float(extreme.mean())


@lru_cache(maxsize=2)
def flips(count: int, seed: int) -> npt.NDArray[np.int8]:
    """Signs of pairs, a row each time: all of them for few pairs, else (FLIPS, count) random ones; they are kept."""
    if count <= EXACT_PAIRS:
        return np.array(list(itertools.product((-1, 1), repeat=count)), dtype=np.int8)
    coins = np.random.default_rng(seed).integers(0, 2, size=(FLIPS, count), dtype=np.int8)
    return np.asarray(2 * coins - 1, dtype=np.int8)


def _needed(change: Array, confidence: float, binary: bool) -> int | None:
    """Pairs for `POWER`, to two digits.

    For binary outcomes R. J. Connor, Sample size for testing differences in proportions for the paired-sample design,
    Biometrics 43 (1987); else the normal approximation of the paired t-test.
    """
    difference = float(change.mean())
    alpha, beta = normal_quantile(confidence), NormalDist().inv_cdf(POWER)
    if binary:
        differing = float((change != 0).mean())
        root = alpha * math.sqrt(differing) + beta * math.sqrt(max(differing - difference**2, 0.0))
        pairs = float((root / difference) ** 2)
    else:
        spread = float(change.std(ddof=1)) if len(change) > 1 else 0.0
        pairs = float(((alpha + beta) * spread / difference) ** 2)
    changed = float((change != 0).mean())
    fewest = (
        math.floor(1 - math.log2(1 - confidence)) + 1
    )  # that many changes one way: then 2 / 2**n is below the level
    least = max(pairs, len(change) + 1.0, fewest / changed)
    digits: int = 10 ** max(math.floor(math.log10(least)) - 1, 0)
    return math.ceil(least / digits) * digits


def _sentence(difference: str, interval: str, pairs: str, shown: bool, needed: int | None) -> str:
    if shown:
        return f"a difference of {difference} is shown with {pairs} ({interval})"
    if needed is None:
        return f"no difference shown with {pairs}: the means are equal"
    return f"no difference shown with {pairs} ({difference}, {interval}); about {needed:,} would be needed"
