"""Drawings of a report as SVG geometry: intervals on a line, distributions of requests, cost against success.

Ticks, labels and sizes are those of the report of a run, so that both look alike. Numbers come from the report's data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from melete.bench.report import CURVE
from melete.bench.tables import amount, called
from melete.runs import curves
from melete.runs.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

STRIP = 120
"""Width of an interval's drawing in pixels."""
CARDS_SHOWN = 200


@dataclass(frozen=True)
class Span:
    """An interval on a strip of `STRIP` units; `zero` is where no difference lies, None for a share from 0 to 1."""

    low: float
    high: float
    value: float
    zero: float | None


@dataclass(frozen=True)
class Dot:
    """A variant on the plane of cost and success, with the ends of both intervals."""

    name: str
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    text: str


@dataclass(frozen=True)
class Plane:
    """Cost per task against success; ticks are (position, label)."""

    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    dots: list[Dot]


def difference(row: dict[str, Any]) -> Span | None:
    """A difference and its interval around zero; an end of which nothing is known reaches the edge."""
    ends = [row[name] for name in ("low", "high", "difference") if row[name] is not None]
    largest = max(map(abs, ends))
    if not largest:
        return None
    middle = STRIP / 2

    def place(value: float | None, edge: float) -> float:
        return edge if value is None else middle + value / largest * (middle - 6)

    return Span(place(row["low"], 0), place(row["high"], STRIP), place(row["difference"], middle), middle)


def share(found: dict[str, Any]) -> Span:
    """A share and its interval from 0 to 1."""
    return Span(STRIP * (found["low"] or 0.0), STRIP * (found["high"] or 1.0), STRIP * found["value"], None)


def distributions(report: dict[str, Any]) -> list[tuple[str, curves.Chart]]:
    """For each metric of requests its unit and the share of requests below each value, a line for each variant."""
    drawn = []
    for name, metric in report["metrics"].items():
        lines = {
            called(report, variant["id"]): [
                (value, float(rank)) for rank, value in zip(CURVE, variant["curves"][name], strict=True)
            ]
            for variant in report["variants"]
            if name in variant["curves"]
        }
        values = {value for points in lines.values() for value, _ in points}
        if len(values) > 1:
            drawn.append((metric["unit"], curves.chart(metric["title"], lines)))
    return drawn


def plane(report: dict[str, Any]) -> Plane | None:
    """Cost per task against success, where at least two variants have both."""
    found = [
        (variant, variant["figures"]["cost"][""], variant["figures"]["success"][""])
        for variant in report["variants"]
        if {"cost", "success"} <= variant["figures"].keys()
    ]
    if len(found) < 2:
        return None
    largest = max(cost["high"] or cost["value"] for _, cost, _ in found)
    x_ticks = curves.ticks(0.0, largest, 5) if largest > 0 else [0.0, 1.0]

    def x(value: float) -> float:
        return LEFT + value / x_ticks[-1] * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value * (HEIGHT - TOP - BOTTOM)

    dots = [
        Dot(
            called(report, variant["id"]),
            x(cost["value"]),
            y(success["value"]),
            x(max(cost["low"] or 0.0, 0.0)),
            x(min(cost["high"] or x_ticks[-1], x_ticks[-1])),
            y(success["low"]),
            y(success["high"]),
            f"{amount(success['value'], 'share')} solved at {amount(cost['value'], 'USD')} a task",
        )
        for variant, cost, success in found
    ]
    return Plane(
        [(x(tick), amount(tick, "USD") if tick else "0") for tick in x_ticks],
        [(y(tick), f"{tick:.0%}") for tick in (0.0, 0.25, 0.5, 0.75, 1.0)],
        dots,
    )


def cells(report: dict[str, Any]) -> list[tuple[str, list[tuple[float | None, str]]]]:
    """Each task card with how much of it each variant solved, from 0 to 1, and that in words."""
    rows = []
    for task in report["tasks"][:CARDS_SHOWN]:
        row: list[tuple[float | None, str]] = []
        for variant in report["variants"]:
            cell = task["variants"].get(variant["id"])
            judged = cell["attempts"] - cell["unknown"] if cell else 0
            if not cell or not judged:
                row.append((None, "not played" if not cell else "no outcome"))
            else:
                cost = f", {amount(cell['cost_usd'], 'USD')}" if cell["cost_usd"] is not None else ""
                text = f"{cell['solved']} of {judged} solved, {cell['requests']} requests{cost}"
                row.append((cell["solved"] / judged, text))
        rows.append((task["task_card"].rpartition("@")[0] or task["task_card"], row))
    return rows
