"""Figures over steps as SVG geometry: ticks at round numbers, a log axis where it helps, at most a few hundred points.

Long series are thinned by keeping the lowest and the highest point of each stretch, so that a spike is never hidden;
from `SMOOTH_FROM` points on, the drawn line is a smoothed one with the points behind it.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

WIDTH, HEIGHT = 520, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 26
POINTS = 360
SMOOTH_FROM = 120
FIRST = (
    "loss",
    "val_loss",
    "bpb",
    "val_bpb",
    "reward",
    "score",
    "accuracy",
    "gradient_norm",
    "lr",
    "tokens_per_s",
    "mfu",
)
"""Figures that stand first in a report, in this order."""

Point = tuple[float, float]


@dataclass
class Line:
    """One series of a chart: what is drawn, and the points that the pointer finds."""

    name: str
    path: str
    cloud: str
    last: float
    data: str


@dataclass
class Chart:
    """A chart ready for the template; ticks are (position, label)."""

    title: str
    log: bool
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line] = field(default_factory=list)


def charts(metrics: Sequence[dict[str, Any]]) -> list[Chart]:
    """One chart for each figure that changes over the steps; `loss` and `val_loss` share one."""
    series: dict[str, list[Point]] = {}
    for row in metrics:
        for key, value in row.items():
            if key not in ("step", "time_s") and isinstance(value, (int, float)) and math.isfinite(value):
                series.setdefault(key, []).append((float(row["step"]), float(value)))
    series = {
        key: points
        for key, points in series.items()
        if len({step for step, _ in points}) > 1 and len({value for _, value in points}) > 1
    }
    groups: dict[str, list[str]] = {}
    for key in sorted(series, key=_rank):
        title = key.removeprefix("val_").removeprefix("train_")
        groups.setdefault(title, []).append(key)
    return [chart(title, {key: series[key] for key in keys}) for title, keys in groups.items()]


def chart(title: str, series: dict[str, list[Point]]) -> Chart:
    """Lays out one chart of one or more series."""
    steps = [step for points in series.values() for step, _ in points]
    values = [value for points in series.values() for _, value in points]
    low, high = min(values), max(values)
    log = _wants_log(values)
    if low == high:
        low, high = low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9
    y_ticks = log_ticks(low, high) if log else ticks(low, high, 5)
    low, high = min(low, *y_ticks), max(high, *y_ticks)

    def x(step: float) -> float:
        return LEFT + (step - min(steps)) / (max(steps) - min(steps)) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        part = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    drawn = Chart(
        title,
        log,
        [
            (x(step), label(step))
            for step in ticks(min(steps), max(steps), 6)
            if min(steps) <= step <= max(steps)
        ],
        [(y(value), label(value)) for value in y_ticks],
    )
    for name, points in series.items():
        thin = thinned(points)
        smooth = len(points) >= SMOOTH_FROM
        shown = thinned(smoothed(points)) if smooth else thin
        drawn.lines.append(
            Line(
                name,
                _path([(x(step), y(value)) for step, value in shown]),
                _path([(x(step), y(value)) for step, value in thin]) if smooth else "",
                points[-1][1],
                json.dumps([[round(x(s), 1), round(y(v), 1), s, v] for s, v in thin]),
            )
        )
    return drawn


def _wants_log(values: list[float]) -> bool:
    """Whether most of the values would lie flat on the floor of a linear axis."""
    low, high, middle = min(values), max(values), statistics.median(values)
    return low > 0 and high / low > 50 and middle - low < 0.1 * (high - low)


def thinned(points: list[Point], limit: int = POINTS) -> list[Point]:
    """At most `limit` points: the lowest and the highest of each stretch, in order, and the two ends."""
    if len(points) <= limit:
        return points
    stretches = limit // 2 - 1
    kept = {0, len(points) - 1}
    for i in range(stretches):
        stretch = range(i * len(points) // stretches, (i + 1) * len(points) // stretches)
        kept.add(min(stretch, key=lambda j: points[j][1]))
        kept.add(max(stretch, key=lambda j: points[j][1]))
    return [points[i] for i in sorted(kept)]


def smoothed(points: list[Point]) -> list[Point]:
    """Mean over a window of about a fortieth of the points around each, narrower towards the ends."""
    half = max(1, len(points) // 80)
    sums = [0.0, *itertools.accumulate(value for _, value in points)]
    result = []
    for i, (step, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)
        result.append((step, (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1)))
    return result


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers around `low … high`, about `count` of them (Heckbert, Graphics Gems, 1990)."""
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around `low … high`, every other one where there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = 1 + (last - first) // 6
    return [10.0**power for power in range(first, last + 1, stride)]


def label(value: float) -> str:
    """A tick or a figure in few characters."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e9 or size < 1e-3:
        return f"{value:.2g}"
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):.4g}{unit}"
    return f"{value:.4g}"


def _path(points: list[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _rank(key: str) -> tuple[int, str]:
    return (FIRST.index(key) if key in FIRST else len(FIRST), key)
