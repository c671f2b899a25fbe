"""The report of an experiment, or of two variants, as plain data: the same rows give the same report on any machine.

It holds figures with intervals, paired comparisons with the baseline, tasks, errors and provenance; whatever prints or
writes it (`tables`, `exports`) takes its numbers from here. Nothing of the machine or the moment it is made on goes in,
and no path, prompt, key or note. Floats are rounded to ten digits, which hides how a processor adds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sqlalchemy import Connection

from melete.bench import metric as metrics
from melete.bench import origin, selection
from melete.bench.columns import Columns
from melete.bench.compare import compare, pair
from melete.bench.metric import PerRequest
from melete.bench.rollups import SESSIONS, load
from melete.errors import ConfigError, UnknownNameError
from melete.gateway.entities import document, name_of

SCHEMA = 1
DIGITS = 10
CURVE = tuple(range(0, 101, 2))
"""Percentiles at which a distribution is drawn."""


def of_experiment(connection: Connection, name: str) -> dict[str, Any]:
    """The report of an experiment with all its variants, compared with its baseline.

    Args:
        connection: an open transaction.
        name: name of the experiment (then all its versions), or `name@digest`.

    Raises:
        UnknownNameError: no such experiment has a session.
    """
    chosen = selection.of_experiment(selection.groups(connection), name)
    experiments = selection.experiments(chosen)
    described = _document(connection, "experiment", experiments[-1]) or {}
    variants, notes = selection.newest_versions(chosen)
    baseline = described.get("baseline") or (described.get("variants") or [""])[0]
    order = [baseline, *described.get("variants", [])]
    variants.sort(key=lambda id: (order.index(name_of(id)) if name_of(id) in order else len(order), id))
    if baseline and variants and name_of(variants[0]) != baseline:
        notes.append(f"The baseline {baseline} has no session; the others are compared with {variants[0]}.")
    head = {
        "id": experiments[-1],
        "name": name_of(experiments[-1]),
        "versions": experiments,
        "document": described,
    }
    return _build(connection, head, experiments, variants, chosen, notes, detail=True)


def of_variants(
    connection: Connection, before: str, after: str, experiment: str | None = None
) -> dict[str, Any]:
    """The report of two variants on the task cards that both played.

    Args:
        connection: an open transaction.
        before: name of a variant (then its newest version), or `name@digest`.
        after: the other one.
        experiment: name or id; without it the newest experiment that both were played in, or all sessions.

    Raises:
        UnknownNameError: no session of such a variant or experiment.
        ConfigError: both are the same, or no task card was finalised by both.
    """
    everything = selection.groups(connection)
    if experiment is not None:
        everything = selection.of_experiment(everything, experiment)
    chosen, name, notes = selection.played_together(
        *(selection.of_variant(everything, side) for side in (before, after))
    )
    ids: list[str] = []
    for side in (before, after):
        newest, older = selection.newest_versions(
            [group for group in chosen if side in selection.named(group.variant)]
        )
        ids += newest
        notes += older
    if ids[0] == ids[1]:
        raise ConfigError(
            f"{before} and {after} are the same variant.",
            next_step="Name two variants, or two versions of one.",
        )
    if name is None:
        return _build(connection, None, None, ids, chosen, notes, detail=False)
    experiments = selection.experiments(chosen)
    described = _document(connection, "experiment", experiments[-1])
    head = {"id": experiments[-1], "name": name, "versions": experiments, "document": described}
    return _build(connection, head, experiments, ids, chosen, notes, detail=False)


def to_text(report: dict[str, Any]) -> str:
    """The report as JSON text, the same bytes for the same report."""
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _build(
    connection: Connection,
    experiment: dict[str, Any] | None,
    experiments: list[str] | None,
    variants: list[str],
    chosen: list[selection.Group],
    notes: list[str],
    *,
    detail: bool,
) -> dict[str, Any]:
    """Reads the sessions of each variant and puts the report together."""
    within = () if experiments is None else (SESSIONS.c.experiment.in_(experiments),)
    columns = {id: load(connection, SESSIONS.c.variant == id, *within) for id in variants}
    baseline, *others = variants
    comparisons = []
    for other in others:
        if detail and pair(columns[baseline], columns[other]) is None:
            notes = [
                *notes,
                f"{other} and {baseline} have no finalised task card in common; they are not compared.",
            ]
            continue
        comparisons.append(asdict(compare(baseline, columns[baseline], other, columns[other])))
    report = {
        "schema": SCHEMA,
        "title": f"{name_of(baseline)} against {name_of(others[0])}"
        if experiment is None and others
        else (experiment or {}).get("name") or name_of(baseline),
        "experiment": experiment,
        "baseline": baseline,
        "variants": [
            _variant(connection, id, columns[id], [g for g in chosen if g.variant == id], detail)
            for id in variants
        ],
        "comparisons": comparisons,
        "tasks": _tasks(columns) if detail else [],
        "metrics": {
            name: {
                "title": metrics.load(name).title,
                "compared": metrics.load(name).compared,
                "unit": metrics.load(name).unit,
                "better": metrics.load(name).better,
                "note": metrics.load(name).note,
            }
            for name in metrics.names()
        },
        "provenance": origin.sessions(connection, columns, within),
        "notes": notes + selection.unfinished([group for group in chosen if group.variant in variants]),
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def _variant(
    connection: Connection, id: str, columns: Columns, chosen: Sequence[selection.Group], detail: bool
) -> dict[str, Any]:
    """Everything that is said of one variant."""
    requests = columns.requests
    states: dict[str, int] = {}
    for group in chosen:
        for state, count in group.states.items():
            states[state] = states.get(state, 0) + count
    figures = {
        name: {figure: asdict(found) for figure, found in metrics.load(name).estimate(columns).items()}
        for name in metrics.names()
    }
    return {
        "id": id,
        "name": name_of(id),
        "document": _document(connection, "variant", id),
        "sessions": dict(sorted(states.items())),
        "measured": len(columns),
        "outcomes": {
            "solved": int((columns.solved == 1).sum()),
            "failed": int((columns.solved == 0).sum()),
            "unknown": int(np.isnan(columns.solved).sum()),
        },
        "requests": len(requests),
        "figures": {name: found for name, found in figures.items() if found},
        "statuses": columns.statuses,
        "errors": columns.errors,
        "words": columns.spoken,
        "estimated_share": float((requests["estimated"] > 0).mean()) if len(requests) else None,
        "priced_share": float(np.isfinite(requests["cost_usd"]).mean()) if len(requests) else None,
        "curves": _curves(columns) if detail else {},
    }


def _document(connection: Connection, kind: str, id: str) -> dict[str, Any] | None:
    """What an entity said; rollouts belong to policies and practices that have no file."""
    try:
        return document(connection, kind, id)
    except UnknownNameError:
        return None


def _curves(columns: Columns) -> dict[str, list[float]]:
    """The distribution of each metric of requests at the percentiles `CURVE`."""
    drawn = {}
    for name in metrics.names():
        metric = metrics.load(name)
        if isinstance(metric, PerRequest):
            values = columns.once(metric.of)
            known = np.sort(values[np.isfinite(values)])
            if len(known) > 1:
                places = [max(math.ceil(rank / 100 * len(known)) - 1, 0) for rank in CURVE]
                drawn[name] = [float(value) for value in known[places]]
    return drawn


def _tasks(columns: dict[str, Columns]) -> list[dict[str, Any]]:
    """For each task card how each variant did: attempts, solved, requests and cost."""
    tasks: dict[str, dict[str, dict[str, Any]]] = {}
    for variant, own in columns.items():
        costs = own.total(own.figure("cost_usd"))
        for card, solved, count, cost in zip(own.task_cards, own.solved, own.counts, costs, strict=True):
            cell = tasks.setdefault(card, {}).setdefault(
                variant, {"attempts": 0, "solved": 0, "unknown": 0, "requests": 0, "cost_usd": None}
            )
            cell["attempts"] += 1
            cell["solved"] += int(solved == 1)
            cell["unknown"] += int(np.isnan(solved))
            cell["requests"] += int(count)
            if np.isfinite(cost):
                cell["cost_usd"] = (cell["cost_usd"] or 0.0) + float(cost)
    return [{"task_card": card, "variants": tasks[card]} for card in sorted(tasks, key=_by_number)]


def _by_number(card: str) -> tuple[str, int, str]:
    """Sorts `support/9` before `support/10`."""
    stem, _, number = name_of(card).rpartition("/")
    return (stem, int(number), card) if number.isdecimal() else (name_of(card), -1, card)


def _plain(value: Any) -> Any:
    """JSON values: floats rounded, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
