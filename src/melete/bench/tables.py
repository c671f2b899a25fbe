"""Tables of a report as rows of text, for the terminal and for Markdown; every number is formatted in one place.

A comparison is one row a metric: both figures, the paired difference with its interval, and in a word what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from melete.gateway.entities import name_of

DASH = "–"


@dataclass(frozen=True)
class Table:
    """A head, rows of text, and the names of the columns that are aligned to the right."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: tuple[str, ...] = ()


def comparison(report: dict[str, Any], found: dict[str, Any]) -> Table:
    """One row for each metric that both variants of a comparison have; how many cards only where that differs."""
    names = [called(report, found[side]) for side in ("before", "after")]
    every = drawn(report, found)
    several = any(row["count"] != found["task_cards"] for row, _ in every)
    rows = [(*cells, *([f"{row['count']:,}"] if several else []), shown(row)) for row, cells in every]
    numbers = (*names, "difference", "95 % interval", *(["cards"] if several else []))
    return Table(("metric", *numbers, "shown"), rows, numbers)


def shown(row: dict[str, Any]) -> str:
    """What a difference shows, in a word; a dash for nothing."""
    return DASH if row["verdict"] == "none shown" else str(row["verdict"])


def drawn(report: dict[str, Any], found: dict[str, Any]) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    """Each difference with its cells: metric, both sides, difference, and the interval in the same unit.

    What is neither better nor worse nor different is left out.
    """
    rows = []
    for row in found["differences"]:
        metric = report["metrics"][row["metric"]]
        unit, better = metric["unit"], metric["better"]
        if better == "neither" and row["difference"] == 0:
            continue
        cells = (
            metric["compared"],
            *(amount(row[side], unit) for side in ("before", "after")),
            amount(row["difference"], unit, signed=True),
            f"{bare(row['low'], unit)} to {bare(row['high'], unit)}",
        )
        rows.append((row, cells))
    return rows


def variants(report: dict[str, Any]) -> Table:
    """One row for each metric, one column for each variant, with intervals."""
    names = [called(report, variant["id"]) for variant in report["variants"]]
    rows = []
    for name, metric in report["metrics"].items():
        figures = [variant["figures"].get(name, {}) for variant in report["variants"]]
        for figure in dict.fromkeys(key for found in figures for key in found):
            cells = [estimate(found.get(figure), metric["unit"]) for found in figures]
            rows.append((f"{metric['title']} {figure}".strip(), *cells))
    return Table(("metric", *names), rows, tuple(names))


def counts(report: dict[str, Any]) -> Table:
    """One row for each variant: sessions, outcomes, requests, errors by class, shares estimated and with a price."""
    head = ("variant", "sessions", "solved", "requests", "errors", "tokens estimated", "with a price")
    rows = []
    for variant in report["variants"]:
        outcomes = variant["outcomes"]
        judged = outcomes["solved"] + outcomes["failed"]
        errors = ", ".join(f"{count:,} {name}" for name, count in variant["errors"].items())
        rows.append(
            (
                called(report, variant["id"]),
                f"{variant['measured']:,}",
                f"{outcomes['solved']:,} of {judged:,}" if judged else DASH,
                f"{variant['requests']:,}",
                errors or "none",
                amount(variant["estimated_share"], "share"),
                amount(variant["priced_share"], "share"),
            )
        )
    return Table(head, rows, ("sessions", "solved", "requests", "tokens estimated", "with a price"))


def estimate(found: dict[str, Any] | None, unit: str) -> str:
    """A figure with its interval."""
    if found is None:
        return DASH
    return (
        f"{amount(found['value'], unit)} ({' to '.join(_plain(found[end], unit) for end in ('low', 'high'))})"
    )


def interval(low: float | None, high: float | None, unit: str, *, signed: bool = False) -> str:
    """Both ends; an end of which nothing is known is a dash."""
    return f"{amount(low, unit, signed=signed)} to {amount(high, unit, signed=signed)}"


def amount(value: float | None, unit: str, *, signed: bool = False) -> str:
    """A number as people read it, with its unit; shares in per cent."""
    if value is None or not math.isfinite(value):
        return DASH
    sign = ("+" if value > 0 else "−" if value < 0 else "") if signed else ("−" if value < 0 else "")
    size = abs(value)
    if unit == "share":
        return f"{sign}{size * 100:.1f}{' pp' if signed else ' %'}"
    if unit == "USD":
        return f"{sign}${size:,.2f}" if size >= 100 else f"{sign}${_digits(size)}"
    known = {"ms": " ms", "s": " s", "tokens/s": " /s"}
    return f"{sign}{_digits(size)}{known.get(unit, '')}"


def bare(value: float | None, unit: str) -> str:
    """The end of an interval in two digits and without its unit; shares in percentage points."""
    if value is None or not math.isfinite(value):
        return DASH
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return sign + (f"{abs(value) * 100:.1f}" if unit == "share" else _digits(abs(value), 2))


def _plain(value: float | None, unit: str) -> str:
    """The end of a figure's interval without its unit, which stands before it; shares in per cent."""
    return amount(value, unit).replace("$", "").partition(" ")[0]


def _digits(size: float, digits: int = 3) -> str:
    """So many digits that count, and all of a number's whole part."""
    if size >= 99.5:
        return f"{size:,.0f}"
    text = f"{size:.{digits}g}"
    return f"{size:.8f}".rstrip("0") if "e-" in text and size >= 1e-7 else text


def text(table: Table) -> str:
    """A table as plain aligned lines."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    lines = []
    for row in (table.head, *table.rows):
        cells = (
            cell.rjust(width) if name in table.right else cell.ljust(width)
            for name, cell, width in zip(table.head, row, widths, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def sentences(report: dict[str, Any], found: dict[str, Any], names: Sequence[str] | None = None) -> list[str]:
    """What a comparison shows in words, one sentence a metric."""
    return [
        f"{report['metrics'][row['metric']]['compared']}: {row['sentence']}{_effect_size(row)}."
        for row in found["differences"]
        if names is None or row["metric"] in names
    ]


def effect(row: dict[str, Any]) -> str:
    """The effect size of a difference, in standard deviations of the pairs."""
    size = row["effect_size"]
    if size is None:
        return DASH
    return f"{'−' if size < 0 else '+'}{abs(size):{'.2f' if abs(size) < 10 else ',.0f'}}"


def _effect_size(row: dict[str, Any]) -> str:
    return f"; effect size {effect(row)}" if row["effect_size"] else ""


def lead(report: dict[str, Any], found: dict[str, Any]) -> str:
    """What a comparison comes to in one line."""
    shown = [row for row in found["differences"] if row["verdict"] in ("better", "worse")]
    parts = [
        f"{word} in {', '.join(report['metrics'][row['metric']]['title'] for row in rows)}"
        for word in ("better", "worse")
        if (rows := [row for row in shown if row["verdict"] == word])
    ]
    cards = f"{found['task_cards']:,} task card{'s' if found['task_cards'] != 1 else ''}"
    attempts = f", {found['pairs']:,} pairs of sessions" if found["pairs"] != found["task_cards"] else ""
    verdict = "; ".join(parts) if parts else "no difference shown"
    sides = f"{called(report, found['after'])} against {called(report, found['before'])}"
    return f"{sides} on {cards}{attempts}: {verdict}."


def called(report: dict[str, Any], id: str) -> str:
    """The name of a variant, or its id where the report has two of that name."""
    names = [variant["name"] for variant in report["variants"]]
    return name_of(id) if names.count(name_of(id)) == 1 else id
