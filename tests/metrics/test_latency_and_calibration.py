"""Percentiles of times and calibration: known values, properties, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete import metrics


def test_percentiles_of_1_to_100_are_the_ranks_themselves() -> None:
    assert metrics.percentiles(range(1, 101)) == {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentile_is_a_time_that_was_seen_with_its_share_at_or_below(
    times: list[float], rank: float
) -> None:
    (found,) = metrics.percentiles(times, (rank,)).values()
    assert found in times
    assert sum(time <= found for time in times) / len(times) >= rank / 100 - 1e-9


def test_percentiles_of_nothing_or_of_a_rank_above_100_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one number"):
        metrics.percentiles([])
    with pytest.raises(ValueError, match="between 0 and 100"):
        metrics.percentiles([1.0], (101,))


def test_calibration_error_of_known_bins_is_the_weighted_gap() -> None:
    # 4 values at 0.9 with half of them right, 1 value at 0.2 that is wrong: 4/5 * 0.4 + 1/5 * 0.2
    found = metrics.expected_calibration_error([0.9, 0.9, 0.9, 0.9, 0.2], [1, 1, 0, 0, 0], bins=10)
    assert found == pytest.approx(0.36)


def test_calibration_error_of_honest_confidences_is_small_and_of_boasts_is_their_gap() -> None:
    generator = np.random.default_rng(1)
    stated = generator.random(20_000)
    assert metrics.expected_calibration_error(stated, generator.random(20_000) < stated) < 0.02
    assert metrics.expected_calibration_error(np.ones(100), np.arange(100) < 70) == pytest.approx(0.3)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_reliability_bins_hold_every_value_once_inside_their_bounds(
    values: list[tuple[float, bool]], bins: int
) -> None:
    filled = metrics.reliability([v for v, _ in values], [float(r) for _, r in values], bins)
    assert sum(one.count for one in filled) == len(values)
    assert all(one.low - 1e-12 <= one.confidence <= one.high + 1e-12 for one in filled)


@pytest.mark.parametrize(
    ("stated", "right", "words"),
    [([1.2], [1], "between 0 and 1"), ([0.5], [2], "0 or 1"), ([0.5, 0.5], [1], "do not belong together")],
)
def test_calibration_of_impossible_values_is_refused(
    stated: list[float], right: list[int], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        metrics.expected_calibration_error(stated, right)
