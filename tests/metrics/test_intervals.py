"""Rates, means and pass@k: known values and properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete import metrics


def test_success_rate_of_known_counts_gives_the_published_wilson_interval() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    rate = metrics.success_rate(81, 263)
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.2553, 0.3662)
    rate = metrics.success_rate(1, 29)
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.0061, 0.1718)


@given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_success_rate_of_any_counts_has_an_interval_around_it_inside_0_and_1(counts: tuple[int, int]) -> None:
    rate = metrics.success_rate(*counts)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    mirrored = metrics.success_rate(counts[1] - counts[0], counts[1])
    assert mirrored.low == pytest.approx(1 - rate.high, abs=1e-12)


@pytest.mark.parametrize("counts", [(0, 0), (3, 2), (-1, 2)])
def test_success_rate_of_impossible_counts_is_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        metrics.success_rate(*counts)


def test_mean_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    samples = generator.exponential(1.0, size=(300, 40))
    intervals = [metrics.mean(sample, resamples=400) for sample in samples]
    covered = np.mean([one.low <= 1.0 <= one.high for one in intervals])
    assert 0.88 <= covered <= 0.98


def test_mean_with_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert metrics.mean(values, seed=3) == metrics.mean(values, seed=3)
    assert metrics.mean(values, seed=3) != metrics.mean(values, seed=4)


def test_mean_of_many_values_stays_within_its_memory_and_is_right() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    found = metrics.mean(values, resamples=500)
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(20_000), rel=0.15)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0, 2.0]]])
def test_mean_of_no_finite_list_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"needed|finite"):
        metrics.mean(values)


@settings(max_examples=40)
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_equals_the_share_of_subsets_with_a_correct_sample(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(itertools.combinations([1] * c + [0] * (n - c), k))
    expected = np.mean([any(subset) for subset in subsets])
    assert metrics.pass_at_k([n], [c], k)[0] == pytest.approx(expected)


def test_pass_at_k_with_fewer_samples_than_k_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 samples"):
        metrics.pass_at_k([10, 4], [1, 1], 5)


def test_cluster_rate_of_single_trials_is_the_wilson_interval_of_their_variance() -> None:
    draw = np.random.default_rng(0).random(400) < 0.7
    ours, plain = metrics.cluster_rate(draw, np.ones(400)), metrics.success_rate(int(draw.sum()), 400)
    assert (ours.value, ours.count) == (plain.value, 400)
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=1e-3)


def test_cluster_rate_of_trials_that_are_all_alike_knows_no_more_than_its_clusters() -> None:
    right = np.array([5.0] * 70 + [0.0] * 30)
    ours, plain = metrics.cluster_rate(right, np.full(100, 5)), metrics.success_rate(70, 100)
    assert ours.count == 500
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=2e-3)


@given(st.lists(st.integers(0, 9).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1))
def test_cluster_rate_of_any_clusters_lies_inside_its_interval(clusters: list[tuple[int, int]]) -> None:
    right, tried = (list(column) for column in zip(*clusters, strict=True))
    if not sum(tried):
        with pytest.raises(ValueError, match="must be a trial"):
            metrics.cluster_rate(right, tried)
        return
    rate = metrics.cluster_rate(right, tried)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    plain = metrics.success_rate(sum(right), sum(tried))
    assert rate.high - rate.low >= plain.high - plain.low - 1e-9


def test_percentile_interval_covers_the_true_percentile_about_as_often_as_it_says() -> None:
    draws = np.sort(np.random.default_rng(9).exponential(1.0, size=(400, 150)), axis=1)
    found = [metrics.percentile_interval(draw, 50) for draw in draws]
    assert 0.92 <= np.mean([one.low <= np.log(2) <= one.high for one in found]) <= 0.99


def test_percentile_interval_of_few_values_is_open_where_they_say_nothing() -> None:
    found = metrics.percentile_interval(np.arange(20.0), 99)
    assert (found.value, found.high) == (19.0, float("inf"))


def test_ratio_of_few_solved_tasks_is_open_above() -> None:
    found = metrics.ratio([1.0, 1.0, 1.0, 1.0, 1.0], [1, 0, 0, 0, 0])
    assert (found.value, found.high) == (5.0, float("inf"))
    assert found.low == pytest.approx(5 / 3)


def test_ratio_interval_of_many_rows_agrees_with_resampling_fewer() -> None:
    generator = np.random.default_rng(4)
    cost, solved = generator.exponential(1.0, 499), generator.random(499) < 0.6
    few, many = metrics.ratio(cost, solved), metrics.ratio(np.tile(cost, 4), np.tile(solved, 4))
    assert few.value == pytest.approx(many.value)
    assert many.high - many.low == pytest.approx((few.high - few.low) / 2, rel=0.1)


def test_ratio_without_a_bottom_is_refused() -> None:
    with pytest.raises(ValueError, match="not all 0"):
        metrics.ratio([1.0, 2.0], [0, 0])
