"""Paired comparison: exact p-values, intervals, the sentence, and the needed number of pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete import metrics

BINARY = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


def test_mcnemar_of_known_counts_gives_the_exact_binomial_p() -> None:
    # 1 pair worse and 9 better: 2 * (C(10, 0) + C(10, 1)) / 2**10
    before = [1] + [0] * 9 + [1] * 20
    after = [0] + [1] * 9 + [1] * 20
    assert metrics.mcnemar_p(before, after) == pytest.approx(22 / 1024)


@given(BINARY)
def test_mcnemar_of_any_pairs_is_a_probability_that_direction_does_not_change(
    pairs: list[tuple[int, int]],
) -> None:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    p_value = metrics.mcnemar_p(before, after)
    assert 0 <= p_value <= 1
    assert p_value == metrics.mcnemar_p(after, before)


@settings(max_examples=30, deadline=None)
@given(BINARY)
def test_comparison_of_swapped_sides_is_the_mirror_image(pairs: list[tuple[int, int]]) -> None:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = (metrics.compare_pairs(x, y, resamples=200) for x, y in ((before, after), (after, before)))
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == back.p_value
    assert there.needed == back.needed


def test_comparison_with_a_clear_gain_shows_it() -> None:
    before, after = [0] * 30 + [1] * 10, [1] * 20 + [0] * 10 + [1] * 10
    found = metrics.compare_pairs(before, after)
    assert found.shown
    assert found.needed is None
    assert found.low > 0
    assert "a difference of +0.5 is shown with 40 pairs" in found.sentence


def test_comparison_with_a_few_pairs_shows_nothing_and_says_how_many_are_needed() -> None:
    found = metrics.compare_pairs([0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1], [1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1])
    assert not found.shown
    assert found.needed == 45
    assert found.sentence.startswith("no difference shown with 12 pairs")
    assert found.sentence.endswith("about 45 would be needed")


def test_comparison_of_three_pairs_that_all_gain_is_not_shown() -> None:
    found = metrics.compare_pairs([0, 0, 0], [1, 1, 1])
    assert (found.shown, found.p_value, found.needed, found.effect_size) == (False, 0.25, 6, None)
    assert metrics.compare_pairs([0] * 6, [1] * 6).shown


def test_comparison_of_equal_scores_needs_no_number() -> None:
    found = metrics.compare_pairs([0.5, 0.25], [0.25, 0.5])
    assert (found.difference, found.needed) == (0.0, None)
    assert found.sentence == "no difference shown with 2 pairs: the means are equal"


def test_sign_flip_of_few_pairs_tries_all_flips_exactly() -> None:
    found = metrics.compare_pairs([0.1, 0.2, 0.3, 0.4, 0.5], [1.1, 1.3, 1.2, 1.6, 1.4])
    assert found.test == "sign flip"
    assert found.p_value == pytest.approx(2 / 2**5)


def test_sign_flip_under_no_difference_is_rarely_significant() -> None:
    generator = np.random.default_rng(5)
    values = generator.normal(size=(200, 10))
    shown = [metrics.compare_pairs(np.zeros(10), change, resamples=100).p_value < 0.05 for change in values]
    assert np.mean(shown) < 0.1


def test_needed_pairs_when_drawn_show_the_difference_about_as_often_as_promised() -> None:
    generator = np.random.default_rng(11)
    pilot = generator.normal(0.5, 1.0, size=8)
    pilot = (pilot - pilot.mean()) / pilot.std(ddof=1) + 0.5  # an effect of exactly 0.5
    needed = metrics.compare_pairs(np.zeros(8), pilot).needed
    assert needed == 32
    drawn = generator.normal(0.5, 1.0, size=(200, needed))
    means, errors = drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / np.sqrt(needed)
    assert 0.7 < np.mean(means / errors > 2.04) < 0.9


def test_comparison_of_lists_of_different_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 scores before and 1 after are not pairs"):
        metrics.compare_pairs([1, 0], [1])


def test_comparison_of_many_pairs_agrees_with_resampling_them() -> None:
    generator = np.random.default_rng(2)
    change = generator.exponential(1.0, size=499) - 0.93
    resampled = metrics.compare_pairs(np.zeros(499), change)
    limit = metrics.compare_pairs(np.zeros(998), np.repeat(change, 2))
    assert limit.difference == pytest.approx(resampled.difference)
    assert limit.high - limit.low == pytest.approx((resampled.high - resampled.low) / np.sqrt(2), rel=0.05)


def test_mcnemar_of_thousands_of_differing_pairs_is_still_exact() -> None:
    assert metrics.mcnemar_p([0, 1] * 3_000, [1, 0] * 3_000) == pytest.approx(1.0)
    assert 0 < metrics.mcnemar_p([0] * 1_000, [1] * 1_000) < 1e-290


def test_ratios_of_swapped_sides_are_the_mirror_image() -> None:
    generator = np.random.default_rng(6)
    before, after = ((generator.exponential(1.0, 30), generator.integers(1, 4, 30)) for _ in range(2))
    there, back = metrics.compare_ratios(before, after), metrics.compare_ratios(after, before)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.p_value == pytest.approx(back.p_value)


def test_ratios_that_differ_are_shown_and_equal_ones_are_rarely() -> None:
    generator = np.random.default_rng(8)
    cost, solved = generator.exponential(1.0, 40), np.ones(40)
    assert metrics.compare_ratios((cost, solved), (3 * cost + 1, solved)).shown
    draws = (generator.exponential(1.0, (2, 12)) for _ in range(200))
    alike = [metrics.compare_ratios((one, np.ones(12)), (other, np.ones(12))).shown for one, other in draws]
    assert np.mean(alike) < 0.1


def test_ratio_difference_with_nothing_solved_in_many_resamples_is_open() -> None:
    found = metrics.compare_ratios(([1.0] * 5, [1, 0, 0, 0, 0]), ([1.0] * 5, [1, 1, 1, 1, 0]))
    assert found.low == float("-inf")
    assert not found.shown


def test_ratios_of_many_rows_agree_with_swapping_few() -> None:
    generator = np.random.default_rng(3)
    first, second = ((generator.exponential(scale, 499), np.ones(499)) for scale in (1.0, 1.15))
    few = metrics.compare_ratios(first, second)
    many = metrics.compare_ratios(
        *(tuple(np.append(part, part[:1]) for part in side) for side in (first, second))
    )
    assert many.p_value == pytest.approx(few.p_value, abs=0.02)
