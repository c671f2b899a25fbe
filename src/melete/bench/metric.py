"""A metric: what is measured, in which unit, which way is better, and how it is estimated and compared.

There are three kinds. `PerTask` has one value per session and is averaged. `Ratio` divides what sessions add up to,
such as cost per solved task; sessions are never averaged as ratios, so a task without a solution cannot divide by zero.
`PerRequest` has one value per request: percentiles over all requests, and the median of each session for pairs. In all
of them each task card counts once in an interval: attempts at one card are alike, and are averaged first. A metric is
a file in `bench/metrics` that exports `METRIC`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from melete import find
from melete import metrics as statistics
from melete.bench.columns import Array, Columns
from melete.metrics import Comparison, Interval

PERCENTILES = (50, 95, 99)
Index = npt.NDArray[np.int64]
Write = Callable[[float], str]


@dataclass(frozen=True)
class Pairs:
    """Which sessions of two variants belong together: (P,) each, with the number of the card from 0 to `cards` - 1."""

    before: Index
    after: Index
    card: Index
    cards: int


@dataclass(frozen=True)
class Metric(ABC):
    """What all kinds share.

    Attributes:
        title: a few words, as a row of a report begins.
        unit: `ms`, `s`, `USD`, `tokens`, `tokens/s`, `share`, `requests`, `ratio` or `score`.
        better: which way is better.
        order: place in a report, from 0.
        note: one sentence that says what exactly is counted.
    """

    title: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    order: int
    note: str

    @property
    def compared(self) -> str:
        """Title of the metric's row in a comparison."""
        return self.title

    @abstractmethod
    def values(self, columns: Columns) -> dict[str, tuple[float, int]]:
        """Figures without intervals: name (empty for the only one) to value and count; none where nothing is known."""

    @abstractmethod
    def estimate(self, columns: Columns) -> dict[str, Interval]:
        """The same figures with 95 % intervals; an end is infinite where the data says nothing about it."""

    @abstractmethod
    def compare(self, before: Columns, after: Columns, pairs: Pairs, write: Write) -> Comparison | None:
        """The difference on the task cards of two variants, written by `write`; None without any pair."""


@dataclass(frozen=True)
class PerTask(Metric):
    """One value per session; `of` gives (S,) with NaN where it is unknown. A rate has values of 0 and 1."""

    of: Callable[[Columns], Array]
    rate: bool = False

    def values(self, columns: Columns) -> dict[str, tuple[float, int]]:
        """The mean over cards of the mean over attempts."""
        cards, attempts = _by_card(columns, columns.once(self.of))
        return {"": (float(cards.mean()), int(attempts.sum()))} if len(cards) else {}

    def estimate(self, columns: Columns) -> dict[str, Interval]:
        """Wilson's interval for a rate, clustered by card where attempts repeat; a bootstrap over cards otherwise."""
        cards, attempts = _by_card(columns, columns.once(self.of))
        if not len(cards):
            return {}
        count = int(attempts.sum())
        if self.rate and (attempts == attempts[0]).all():
            solved = np.round(cards * attempts)
            if attempts[0] == 1:
                return {"": statistics.success_rate(int(solved.sum()), count)}
            return {"": statistics.cluster_rate(solved, attempts)}
        found = statistics.mean(cards)
        return {"": Interval(found.value, found.low, found.high, count)}

    def compare(self, before: Columns, after: Columns, pairs: Pairs, write: Write) -> Comparison | None:
        """Means over the paired attempts at each card."""
        return _compare_means(before.once(self.of), after.once(self.of), pairs, write)


@dataclass(frozen=True)
class Ratio(Metric):
    """The sum of `top` over the sum of `bottom`, (S,) each with NaN where unknown. A rate's top is part of its bottom.

    Cards are resampled whole, so that what a card cost and whether it was solved stay together.
    """

    top: Callable[[Columns], Array]
    bottom: Callable[[Columns], Array]
    rate: bool = False

    def values(self, columns: Columns) -> dict[str, tuple[float, int]]:
        """The ratio of the sums; count is the sum of the bottom."""
        top, bottom = self._parts(columns)
        return {"": (float(top.sum() / bottom.sum()), round(float(bottom.sum())))} if bottom.sum() > 0 else {}

    def estimate(self, columns: Columns) -> dict[str, Interval]:
        """A rate's interval is Wilson's with the variance between cards; any other one a bootstrap over cards."""
        top, bottom = self._parts(columns)
        if not bottom.sum() > 0:
            return {}
        if self.rate and (top <= bottom).all():
            found = statistics.cluster_rate(top, bottom)
        else:
            found = statistics.ratio(top, bottom)
        return {"": Interval(found.value, found.low, found.high, round(float(bottom.sum())))}

    def compare(self, before: Columns, after: Columns, pairs: Pairs, write: Write) -> Comparison | None:
        """The difference of the ratios over the cards that both know."""
        parts = [
            columns.once(part)[index]
            for columns, index in ((before, pairs.before), (after, pairs.after))
            for part in (self.top, self.bottom)
        ]
        known = np.isfinite(parts).all(axis=0)
        seen = np.bincount(pairs.card[known], minlength=pairs.cards) > 0
        sums = [_sums(pairs.card[known], part[known], pairs.cards)[seen] for part in parts]
        if not sums[1].sum() > 0 or not sums[3].sum() > 0:
            return None
        return statistics.compare_ratios((sums[0], sums[1]), (sums[2], sums[3]), write=write)

    def _parts(self, columns: Columns) -> tuple[Array, Array]:
        """Top and bottom of each card."""
        top, bottom = columns.once(self.top), columns.once(self.bottom)
        known = np.isfinite(top) & np.isfinite(bottom)
        cards, place = np.unique(columns.cards[known], return_inverse=True)
        return _sums(place, top[known], len(cards)), _sums(place, bottom[known], len(cards))


@dataclass(frozen=True)
class PerRequest(Metric):
    """One value per request; `of` gives (N,) with NaN where it is unknown."""

    of: Callable[[Columns], Array]

    @property
    def compared(self) -> str:
        """Pairs compare medians, because a session's percentiles further out say little."""
        return f"{self.title} p50"

    def values(self, columns: Columns) -> dict[str, tuple[float, int]]:
        """Nearest-rank percentiles over all requests."""
        known = _known(columns.once(self.of))
        if not len(known):
            return {}
        return {
            name: (value, len(known)) for name, value in statistics.percentiles(known, PERCENTILES).items()
        }

    def estimate(self, columns: Columns) -> dict[str, Interval]:
        """The same with intervals of order statistics, which take requests as independent."""
        ordered = np.sort(_known(columns.once(self.of)))
        if not len(ordered):
            return {}
        return {f"p{rank}": statistics.percentile_interval(ordered, rank) for rank in PERCENTILES}

    def compare(self, before: Columns, after: Columns, pairs: Pairs, write: Write) -> Comparison | None:
        """The difference of the sessions' medians, averaged over the paired attempts at each card."""
        return _compare_means(
            before.median(before.once(self.of)), after.median(after.once(self.of)), pairs, write
        )


def names() -> list[str]:
    """Names of all metrics in the order of a report."""
    return sorted(find.names("melete.bench.metrics"), key=lambda name: (load(name).order, name))


@cache
def load(name: str) -> Metric:
    """The metric of a file.

    Raises:
        UnknownNameError: no metric has that name.
    """
    metric: Metric = find.load("melete.bench.metrics", name, "metric").METRIC
    return metric


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def _by_card(columns: Columns, values: Array) -> tuple[Array, Array]:
    """(K,) mean over the known attempts at each card, and (K,) how many those are."""
    known = np.isfinite(values)
    _, place, attempts = np.unique(columns.cards[known], return_inverse=True, return_counts=True)
    return _sums(place, values[known], len(attempts)) / attempts, attempts.astype(np.float64)


def _sums(place: Index, values: Array, count: int) -> Array:
    """(count,) sums of the values at each place."""
    return np.bincount(place, values, count).astype(np.float64)


def _compare_means(before: Array, after: Array, pairs: Pairs, write: Write) -> Comparison | None:
    """Compares means over the paired attempts at each card."""
    first, second = before[pairs.before], after[pairs.after]
    known = np.isfinite(first) & np.isfinite(second)
    if not known.any():
        return None
    attempts = np.bincount(pairs.card[known], minlength=pairs.cards)
    seen = attempts > 0
    first, second = (
        _sums(pairs.card[known], side[known], pairs.cards)[seen] / attempts[seen] for side in (first, second)
    )
    return statistics.compare_pairs(first, second, write=write)
