"""Rollups: the figures of a session, a variant or an experiment, computed from its requests and kept beside them.

A rollup is a pure function of session and request rows, so it can be dropped and computed again to the same bytes. A
session's rollup holds its figures and its requests packed as `columns`; those of a variant or an experiment are
computed from the packed sessions and never read a request. Ingest drops the rollups of sessions that it touches, and
computing those drops what follows from them; whatever reads rollups here computes first what is missing. Only
finalised sessions count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, delete, select

from melete.bench import metric as metrics
from melete.bench.columns import LAYOUT, READ, Columns, pack
from melete.gateway.entities import name_of
from melete.gateway.ingest import alone
from melete.records import SessionState
from melete.store.database import chunks
from melete.store.models import MetricRollupRow, RequestRow, SessionRow, table

Scope = Literal["session", "variant", "experiment"]
SESSIONS = table(SessionRow)
REQUESTS = table(RequestRow)
ROLLUPS = table(MetricRollupRow)
SESSION_COLUMNS = ("id", "experiment", "variant", "task_card", "attempt", "solved", "score", "metadata")


def finalise(connection: Connection, session_id: str) -> dict[str, float]:
    """Computes the rollup of one session and keeps it.

    Returns:
        Figures by name, such as `cost` and `latency.p95`; what is unknown is not among them.
    """
    return compute(connection, [session_id])[session_id]


def compute(connection: Connection, session_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Computes the rollups of sessions anew and keeps them; returns the figures of each."""
    figures: dict[str, dict[str, float]] = {}
    if session_ids:
        alone(connection)  # or requests that an ingest adds meanwhile would be missing for good
    for ids in chunks(session_ids):
        sessions = _sessions(connection, ids)
        packed = _packed(connection, ids)
        rows = []
        for session in sessions:
            columns = Columns.of([session], [packed[session["id"]]])
            found = values(columns)
            figures[session["id"]] = {name: value for name, (value, _) in found.items()}
            rows += _rows("session", session["id"], found)
            rows.append({**_row("session", session["id"], LAYOUT), "count": len(columns.requests)})
            rows[-1]["columns"] = packed[session["id"]]
        _replace(connection, "session", [session["id"] for session in sessions], rows)
        for scope in ("variant", "experiment"):  # theirs follow from these sessions
            _replace(connection, scope, sorted({session[scope] or "" for session in sessions}), [])
    return figures


def refresh(connection: Connection, scope: Scope, scope_id: str) -> dict[str, float]:
    """Computes the rollup of a session, or of all finalised sessions of a variant or experiment, and keeps it.

    Args:
        connection: an open transaction.
        scope: session, variant or experiment.
        scope_id: id of a session, or `name@digest`.

    Returns:
        Figures by name.
    """
    if scope == "session":
        return finalise(connection, scope_id)
    found = values(load(connection, SESSIONS.c[scope] == scope_id))
    _replace(connection, scope, [scope_id], _rows(scope, scope_id, found))
    return {name: value for name, (value, _) in found.items()}


def refresh_experiment(connection: Connection, experiments: Sequence[str]) -> None:
    """Computes the rollups of experiments, given by id, and of every variant that was played in them.

    Args:
        connection: an open transaction.
        experiments: ids, such as all versions of one.
    """
    within = SESSIONS.c.experiment.in_(experiments)
    variants = connection.scalars(select(SESSIONS.c.variant).where(within).distinct()).all()
    for variant in sorted(variant for variant in variants if variant):
        refresh(connection, "variant", variant)
    for experiment in sorted(experiments):
        refresh(connection, "experiment", experiment)


def load(connection: Connection, *conditions: ColumnElement[bool]) -> Columns:
    """The finalised sessions that meet conditions on their rows, oldest first; of two at one cell the later one.

    A cell is (name of the experiment, variant, task card, attempt); an attempt that was played again replaces the
    earlier one.
    """
    chosen = (SESSIONS.c.state == str(SessionState.FINALISED), *conditions)
    query = (
        select(
            *(SESSIONS.c[name] for name in SESSION_COLUMNS),
            ROLLUPS.c.columns,
        )
        .outerjoin_from(SESSIONS, ROLLUPS, _of_session())
        .where(*chosen)
        .order_by(SESSIONS.c.created_s, SESSIONS.c.id)
    )
    rows = connection.execute(query).all()
    missing = [row.id for row in rows if row.columns is None]
    if missing:
        compute(connection, missing)
        rows = connection.execute(query).all()
    latest: dict[tuple[str, str, str, int], Any] = {}
    for row in rows:
        experiment = name_of(row.experiment or "")
        cell = (experiment, row.variant or "", row.task_card or row.id, row.attempt)
        latest.pop(cell, None)
        latest[cell] = row
    return Columns.of(
        [dict(row._mapping) for row in latest.values()], [bytes(row.columns) for row in latest.values()]
    )


def values(columns: Columns) -> dict[str, tuple[float, int]]:
    """All figures of some sessions without intervals: `metric` or `metric.figure` to value and count.

    Besides the metrics: the number of sessions, and of requests that failed for each reason (`errors.timeout`).
    """
    found: dict[str, tuple[float, int]] = {"sessions": (float(len(columns)), len(columns))}
    for name in metrics.names():
        for figure, pair in metrics.load(name).values(columns).items():
            found[f"{name}.{figure}" if figure else name] = pair
    for error, count in columns.errors.items():
        found[f"errors.{error}"] = (float(count), len(columns.requests))
    return found


def _of_session() -> ColumnElement[bool]:
    return and_(ROLLUPS.c.scope == "session", ROLLUPS.c.scope_id == SESSIONS.c.id, ROLLUPS.c.metric == LAYOUT)


def _sessions(connection: Connection, ids: Sequence[str]) -> list[Mapping[str, Any]]:
    query = select(*(SESSIONS.c[name] for name in SESSION_COLUMNS)).where(SESSIONS.c.id.in_(ids))
    return [dict(row) for row in connection.execute(query.order_by(SESSIONS.c.id)).mappings()]


def _packed(connection: Connection, ids: Sequence[str]) -> dict[str, bytes]:
    """The packed requests of sessions, oldest request first."""
    query = (
        select(REQUESTS.c.session_id, *(REQUESTS.c[name] for name in READ))
        .where(REQUESTS.c.session_id.in_(ids))
        .order_by(REQUESTS.c.session_id, REQUESTS.c.started_s, REQUESTS.c.id)
    )
    rows = connection.execute(query).mappings()
    return dict.fromkeys(ids, pack([])) | {
        id: pack(dict(row) for row in group)
        for id, group in groupby(rows, key=lambda row: str(row["session_id"]))
    }


def _row(scope: str, scope_id: str, metric: str) -> dict[str, Any]:
    return {
        "scope": scope,
        "scope_id": scope_id,
        "metric": metric,
        "value": None,
        "count": 0,
        "columns": None,
    }


def _rows(scope: str, scope_id: str, found: Mapping[str, tuple[float, int]]) -> list[dict[str, Any]]:
    return [
        {**_row(scope, scope_id, name), "value": value, "count": count}
        for name, (value, count) in found.items()
    ]


def _replace(
    connection: Connection, scope: str, ids: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> None:
    connection.execute(delete(ROLLUPS).where(ROLLUPS.c.scope == scope, ROLLUPS.c.scope_id.in_(ids)))
    if rows:
        connection.execute(ROLLUPS.insert(), list(rows))
