"""Where the numbers of a report come from: configs by digest, harnesses, models, hosts, load, versions, price sources.

It is put together from what the store says of the sessions, so that it is the same wherever the report is made. Paths
and whatever else is not on the list here stay out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from melete.bench.columns import Columns
from melete.bench.rollups import SESSIONS

CONFIGS = ("harness_profile", "provider", "model", "kind")
NOTED = ("host", "cores", "platform", "harness_version", "commit", "dirty", "seed")
"""What is taken from a session's metadata, besides versions and load."""
MOST = 12
"""Different values of one thing that are listed."""
RESAMPLES = {"confidence": 0.95, "resamples": 10_000, "seed": 0}
"""How `melete.metrics` makes intervals, by its defaults."""


def sessions(
    connection: Connection, columns: Mapping[str, Columns], within: Sequence[ColumnElement[bool]]
) -> dict[str, Any]:
    """The provenance of the sessions of some variants.

    Args:
        connection: an open transaction.
        columns: the sessions of each variant.
        within: conditions that the sessions meet besides.
    """
    table = SESSIONS.c
    keys = [table[name] for name in CONFIGS]
    query = (
        select(table.variant, *keys, func.count(), func.min(table.started_s), func.max(table.ended_s))
        .where(table.variant.in_(columns), *within)
        .group_by(table.variant, *keys)
        .order_by(table.variant, *keys)
    )
    rows = [tuple(row) for row in connection.execute(query)]
    started = [row[-2] for row in rows if row[-2] is not None]
    ended = [row[-1] for row in rows if row[-1] is not None]
    noted = [facts for own in columns.values() for facts in own.metadata]
    loads = sorted(facts["load_1m"] for facts in noted if isinstance(facts.get("load_1m"), (int, float)))
    return {
        "variants": {
            id: {
                name: sorted({str(row[place]) for row in rows if row[0] == id and row[place] is not None})
                for place, name in enumerate(CONFIGS, 1)
            }
            for id in columns
        },
        "task_cards": len({card for own in columns.values() for card in own.task_cards}),
        "first_started": _moment(min(started, default=None)),
        "last_ended": _moment(max(ended, default=None)),
        "noted": {name: _listed(facts.get(name) for facts in noted) for name in NOTED},
        "versions": _versions(noted),
        "load_1m": {"low": loads[0], "median": loads[len(loads) // 2], "high": loads[-1]} if loads else None,
        "price_sources": dict(
            sum((Counter(own.spoken["cost_source"]) for own in columns.values()), Counter())
        ),
        "intervals": RESAMPLES,
    }


def _listed(values: Any) -> dict[str, int]:
    """The most frequent values as text, each with its count."""
    counts = Counter(str(value) for value in values if value is not None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST])


def _versions(noted: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for facts in noted:
        versions = facts.get("versions")
        for name, version in versions.items() if isinstance(versions, dict) else ():
            found.setdefault(str(name), set()).add(str(version))
    return {name: sorted(found[name])[:MOST] for name in sorted(found)}


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
