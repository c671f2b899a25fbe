"""The figures of a report as flat rows, for formats of tables."""

from __future__ import annotations

from typing import Any

COLUMNS = (
    "experiment", "variant", "compared_with", "metric", "figure", "unit", "better", "value", "low", "high", "count",
    "effect_size", "p_value", "test", "shown", "needed", "verdict",
)  # fmt: skip


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each figure of each variant, and one for each difference; those name what they compare with."""
    experiment = (report["experiment"] or {}).get("id")
    found = []
    for variant in report["variants"]:
        for metric, figures in variant["figures"].items():
            for figure, estimate in figures.items():
                found.append({"variant": variant["id"], "metric": metric, "figure": figure, **estimate})
    for comparison in report["comparisons"]:
        for difference in comparison["differences"]:
            found.append(
                {
                    **difference,
                    "variant": comparison["after"],
                    "compared_with": comparison["before"],
                    "figure": "difference",
                    "value": difference["difference"],
                }
            )
    described = report["metrics"]
    return [
        {
            column: {
                "experiment": experiment,
                "unit": described[row["metric"]]["unit"],
                "better": described[row["metric"]]["better"],
                **row,
            }.get(column)
            for column in COLUMNS
        }
        for row in found
    ]
