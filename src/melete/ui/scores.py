"""Scores in the results of runs: rates with their count and interval, found by their shape, whoever wrote them.

A score is an object with `value`, `count`, `low` and `high` (`records.Score`), wherever in a result it stands; the rows
of an exam of an agent hold theirs as `[value, low, high]` beside `tasks`. Every other number of a result is a figure
without an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

COUNTS = ("tasks", "tool_calls")
MOST_DEEP = 4


@dataclass(frozen=True)
class Score:
    """A figure of a result; `low` and `high` are the ends of its 95 % interval where it has one."""

    name: str
    value: float
    count: int | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


def of_result(result: dict[str, Any]) -> dict[str, Score]:
    """The scores of a run's result by their names, in its order."""
    return {score.name: score for score in _found("", result, 0) if score.count != 0}


def _found(name: str, value: Any, deep: int) -> list[Score]:
    if isinstance(value, bool) or deep > MOST_DEEP:
        return []
    if isinstance(value, int | float):
        return [Score(name, value)]
    if isinstance(value, list):
        rows = [row for row in value if isinstance(row, dict)]
        return [score for row in rows for score in _found(_row_name(name, row), row, deep + 1)]
    if not isinstance(value, dict):
        return []
    if {"value", "count", "low", "high"} <= value.keys() and isinstance(value["value"], int | float):
        return [
            Score(
                name, value["value"], value["count"], value["low"], value["high"], str(value.get("note", ""))
            )
        ]
    found = []
    for key, item in value.items():
        inner = f"{name} {key}".strip()
        rate = isinstance(item, list) and len(item) == 3 and all(isinstance(end, int | float) for end in item)
        if rate and "tasks" in value:
            count = value["tool_calls" if key == "reliability" else "tasks"]
            found.append(Score(inner, item[0], count, item[1], item[2]))
        elif key != "seed":
            found += _found(inner, item, deep + 1)
    return found


def _row_name(name: str, row: dict[str, Any]) -> str:
    said = [str(row[key]) for key in ("split", "decoding") if key in row]
    return " ".join(said if name == "measured" else [name, *said])
