"""Scores from items: rates with Wilson's interval, means with a normal one, ratios of sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

from melete.evals.task import Item
from melete.metrics import success_rate
from melete.metrics.intervals import normal_quantile
from melete.records import Score

Z = normal_quantile(0.95)


def rate(name: str, items: Sequence[Item], note: str = "") -> Score:
    """Share of items with value 1, with Wilson's 95 % interval.

    The items are assumed to be independent draws; an empty list is a score of count 0.
    """
    count = len(items)
    if not count:
        return Score(name, 0.0, 0, None, None, "no item")
    interval = success_rate(round(sum(item.value for item in items)), count)
    return Score(name, interval.value, count, interval.low, interval.high, note)


def ratio(name: str, items: Sequence[Item], note: str = "") -> Score:
    """Sum of values over sum of weights, with a 95 % interval by linearisation (Cochran, 1977, section 2.11)."""
    count, weight = len(items), sum(item.weight for item in items)
    if not weight:
        return Score(name, 0.0, 0, None, None, "no item")
    value = sum(item.value for item in items) / weight
    if count < 2:
        return Score(name, value, count, None, None, note)
    squares = sum((item.value - value * item.weight) ** 2 for item in items)
    error = Z * math.sqrt(squares * count / (count - 1)) / weight
    return Score(name, value, count, value - error, value + error, note)


def of_group(items: Sequence[Item], group: str) -> list[Item]:
    """The items of one group."""
    return [item for item in items if item.group == group]


def cut_note(items: Sequence[Item]) -> str:
    """Says how many prompts were longer than the model's context and lost their beginning."""
    cut = sum(bool(item.detail.get("cut")) for item in items)
    return f"{cut} prompts cut" if cut else ""


def joined(*notes: str) -> str:
    """Notes that are not empty, with semicolons."""
    return "; ".join(note for note in notes if note)
