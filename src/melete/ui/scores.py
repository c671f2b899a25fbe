"""Scores in the results of runs: rates with their count and interval, found by their shape, whoever wrote them.

A score is an object with `value`, `count`, `low` and `high` (`records.Score`), wherever in a result it stands; a
difference holds its value as `difference`; the rows of an exam of an agent hold theirs as `[value, low, high]` beside
`tasks`. Every other number of a result is a figure without an interval. `told` says which of them a page shows first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

COUNTS = ("tasks", "tool_calls")
MOST_DEEP = 4
HEADLINE = 6
"""Figures that a run's page shows before the fold."""


@dataclass(frozen=True)
class Score:
    """A figure of a result; `low` and `high` are the ends of its 95 % interval where it has one."""

    name: str
    value: float
    count: int | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def is_share(self) -> bool:
        """Whether it can be drawn on a line from 0 to 100 %, with its interval."""
        return self.low is not None and self.high is not None and 0 <= self.low <= self.high <= 1


@dataclass(frozen=True)
class Told:
    """The scores of a result in the order in which people read them.

    Attributes:
        pairs: name, before and after of each share that was measured twice.
        first: the few that are shown at once, those with intervals before others.
        groups: all of them by what they are of, where that is more than `pairs` and `first` show.
    """

    pairs: list[tuple[str, Score, Score]]
    first: list[Score]
    groups: dict[str, list[Score]]


def told(found: dict[str, Score]) -> Told:
    """What a page shows of scores first, and what it folds."""
    pairs = []
    for name, before in found.items():
        after = found.get(f"after {name.removeprefix('before ')}") if name.startswith("before ") else None
        if after is not None and before.is_share and after.is_share:
            pairs.append((name.removeprefix("before "), before, after))
    paired = {score.name for _, *both in pairs for score in both}
    rest = sorted(
        (score for score in found.values() if score.name not in paired), key=lambda one: one.low is None
    )
    sure = [score for score in rest if score.low is not None]
    first = (sure if pairs else rest)[:HEADLINE]
    groups: dict[str, list[Score]] = {}
    if len(paired) + len(first) < len(found):
        for score in found.values():
            groups.setdefault(score.name.rpartition(" ")[0], []).append(score)
    return Told(pairs, first, groups)


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
    for what in ("value", "difference"):
        if {what, "count", "low", "high"} <= value.keys() and isinstance(value[what], int | float):
            note = str(value.get("note") or value.get("sentence") or "")
            return [Score(name, value[what], value["count"], value["low"], value["high"], note)]
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
    said = [str(row[key]) for key in ("split", "decoding", "metric") if key in row]
    return " ".join(said if name == "measured" else [name, *said])
