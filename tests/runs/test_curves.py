"""Curves of a report: ticks, thinning, smoothing, grouping."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melete.runs import curves

finite = st.floats(-1e6, 1e6, allow_nan=False)


@given(finite, st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_are_round_few_and_reach_over_the_range(low: float, span: float, count: int) -> None:
    ticks = curves.ticks(low, low + span, count)
    assert ticks[0] <= low + span * 1e-6
    assert ticks[-1] >= low + span - span * 1e-6
    assert 2 <= len(ticks) <= 2 * count + 2
    assert ticks == sorted(ticks)


@given(st.lists(finite, min_size=1, max_size=3000))
def test_thinned_keeps_ends_extremes_and_order(values: list[float]) -> None:
    points = [(float(i), value) for i, value in enumerate(values)]
    thin = curves.thinned(points, 100)
    assert len(thin) <= 100
    assert thin == sorted(thin, key=lambda point: point[0])
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    assert max(v for _, v in thin) == max(values)
    assert min(v for _, v in thin) == min(values)


@given(st.lists(finite, min_size=1, max_size=500))
def test_smoothed_stays_within_the_values(values: list[float]) -> None:
    smooth = curves.smoothed([(float(i), value) for i, value in enumerate(values)])
    margin = 1e-6 * (1 + max(map(abs, values))) * len(values)
    assert len(smooth) == len(values)
    assert all(min(values) - margin <= value <= max(values) + margin for _, value in smooth)


def rows(**series: list[float]) -> list[dict[str, float | int]]:
    length = max(map(len, series.values()))
    return [
        {"step": i, **{key: values[i] for key, values in series.items() if i < len(values)}}
        for i in range(length)
    ]


def test_charts_put_loss_first_and_validation_beside_it() -> None:
    found = curves.charts(rows(lr=[1, 2, 3], val_loss=[3, 2, 2], loss=[3, 2, 1], time_s=[1, 2, 3]))
    assert [chart.title for chart in found] == ["loss", "lr"]
    assert [line.name for line in found[0].lines] == ["loss", "val_loss"]


def test_charts_leave_out_what_is_no_curve() -> None:
    assert curves.charts(rows(loss=[1.0], text=[float("nan"), math.inf], epoch=[0, 0, 0])) == []


def test_chart_over_decades_has_a_log_axis() -> None:
    (chart,) = curves.charts(rows(loss=[100.0, 1.0, 0.1]))
    assert chart.log
    assert [label for _, label in chart.y_ticks] == ["0.1", "1", "10", "100"]


def test_chart_of_a_schedule_that_falls_to_almost_nothing_stays_linear() -> None:
    (chart,) = curves.charts(rows(rate=[1.0, 0.75, 0.5, 0.25, 0.001]))
    assert not chart.log


def test_chart_of_a_constant_is_drawn_in_the_middle() -> None:
    chart = curves.chart("rate", {"rate": [(0, 2.0), (1, 2.0)]})
    heights = {point.split(",")[1] for point in chart.lines[0].path.split()}
    assert len(heights) == 1
    assert curves.TOP < float(heights.pop()) < curves.HEIGHT - curves.BOTTOM


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1234"), (52_100, "52.1k"), (7_340_000, "7.34M"), (0.00012, "0.00012")],
)
def test_label_is_short(value: float, text: str) -> None:
    assert curves.label(value) == text
