"""Comparison of two variants: sessions paired by task card and attempt, every metric with its interval and a sentence.

Each task card counts once: its paired attempts are averaged first, because attempts at one card are alike. What has no
partner is left out and said. Limits: every row is tested on its own at 5 %, so of twenty rows about one shows a
difference by chance; and pairs are as good as the cards, whose choice no interval knows of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from melete.bench import metric as metrics
from melete.bench.columns import Columns
from melete.bench.metric import Metric, Pairs
from melete.bench.tables import amount
from melete.errors import ConfigError
from melete.metrics import Comparison

Verdict = Literal["better", "worse", "different", "none shown"]
NAMED = 5
"""Task cards that a sentence names before it says how many more there are."""


@dataclass(frozen=True)
class Difference(Comparison):
    """One metric, `after - before`, over task cards.

    Attributes:
        metric: its name.
        verdict: what the comparison shows, in the metric's own sense of better.
    """

    metric: str
    verdict: Verdict


@dataclass(frozen=True)
class VariantComparison:
    """Two variants on the task cards that both played.

    Attributes:
        before: id of the variant that is compared with.
        after: id of the other one.
        task_cards: how many cards are paired.
        pairs: how many sessions are, on each side.
        left_out: sentences about what is not in the pairs.
        differences: one for each metric that both know.
    """

    before: str
    after: str
    task_cards: int
    pairs: int
    left_out: list[str]
    differences: list[Difference]


def compare(before_id: str, before: Columns, after_id: str, after: Columns) -> VariantComparison:
    """Compares the finalised sessions of two variants.

    Raises:
        ConfigError: no task card and attempt was played by both.
    """
    pairs = pair(before, after)
    if pairs is None:
        raise ConfigError(
            f"There is nothing to compare: no task card was finalised by both {before_id} and {after_id}.",
            allowed=f"Finalised sessions: {len(before):,} and {len(after):,}.",
            next_step="Play the same task cards with both: melete bench run EXPERIMENT",
        )
    differences = [
        found for name in metrics.names() if (found := _difference(name, before, after, pairs)) is not None
    ]
    return VariantComparison(
        before_id,
        after_id,
        pairs.cards,
        len(pairs.card),
        _left_out(before_id, before, after_id, after)
        + _unknown(before_id, before)
        + _unknown(after_id, after),
        differences,
    )


def pair(before: Columns, after: Columns) -> Pairs | None:
    """Which sessions belong together, or None where there are none; a session without a card has no partner."""
    first = {cell: place for place, cell in enumerate(_cells(before)) if cell[0]}
    second = {cell: place for place, cell in enumerate(_cells(after)) if cell[0]}
    both = [cell for cell in first if cell in second]
    if not both:
        return None
    cards = {card: place for place, card in enumerate(dict.fromkeys(card for card, _ in both))}
    return Pairs(
        before=np.array([first[cell] for cell in both], dtype=np.int64),
        after=np.array([second[cell] for cell in both], dtype=np.int64),
        card=np.array([cards[card] for card, _ in both], dtype=np.int64),
        cards=len(cards),
    )


def _cells(columns: Columns) -> list[tuple[str, int]]:
    return list(zip(columns.task_cards, columns.attempts, strict=True))


def _difference(name: str, before: Columns, after: Columns, pairs: Pairs) -> Difference | None:
    metric = metrics.load(name)
    found = metric.compare(before, after, pairs, lambda value: amount(value, metric.unit, signed=True))
    if found is None:
        return None
    return Difference(**vars(found), metric=name, verdict=_verdict(metric, found))


def _verdict(metric: Metric, found: Comparison) -> Verdict:
    if not found.shown:
        return "none shown"
    if metric.better == "neither":
        return "different"
    return "better" if (found.difference > 0) == (metric.better == "higher") else "worse"


def _left_out(before_id: str, before: Columns, after_id: str, after: Columns) -> list[str]:
    """Sentences about sessions without a partner."""
    said = []
    for own_id, own, other_id, other in (
        (before_id, before, after_id, after),
        (after_id, after, before_id, before),
    ):
        cells = set(_cells(other))
        alone = [cell for cell in _cells(own) if cell not in cells or not cell[0]]
        cards = list(dict.fromkeys(card or "(no task card)" for card, _ in alone))
        if alone:
            more = f" and {len(cards) - NAMED} more" if len(cards) > NAMED else ""
            sessions = f"{len(alone):,} session{'s' if len(alone) != 1 else ''}"
            said.append(
                f"{sessions} of {own_id} without a partner in {other_id} are left out of the differences:"
                f" {', '.join(cards[:NAMED])}{more}."
            )
    return said


def _unknown(id: str, columns: Columns) -> list[str]:
    """A sentence about sessions whose outcome nobody gave."""
    count = int(np.isnan(columns.solved).sum())
    if not count:
        return []
    sessions = f"{count:,} session{'s' if count != 1 else ''}"
    return [
        f"{sessions} of {id} have no outcome and are left out of success and what is counted per solved task."
    ]
