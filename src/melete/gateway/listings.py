"""What of the gateway can be listed: config entities, sessions, requests and their events, rollups, artifacts.

A filter by a variant, an experiment or another entity takes its name, which means every text that ever had that
name, or an id `name@digest`, which means one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, exists, func, select

from melete.gateway.queries import MOST_SCANNED, Condition, Listing
from melete.store.models import (
    ENTITIES,
    ArtifactRow,
    MetricRollupRow,
    RequestEventRow,
    RequestRow,
    SessionRow,
    table,
)

SESSION = table(SessionRow)
REQUEST = table(RequestRow)
EVENT = table(RequestEventRow)
ROLLUP = table(MetricRollupRow)
ARTIFACT = table(ArtifactRow)


def entity(kind: str) -> Listing:
    """The texts of a kind of config entity, such as `variant`, newest first."""
    found = table(ENTITIES[kind])
    filters = {
        "name": _equals(found, "name"),
        "since_s": _since(found, "created_s"),
        "until_s": _until(found, "created_s"),
    }
    return Listing(kind.replace("_", " "), found, ("created_s", "id"), filters)


def _equals(of: Table, column: str) -> Condition:
    return lambda _, value: of.c[column] == value


def _since(of: Table, column: str) -> Condition:
    return lambda _, value: of.c[column] >= value


def _until(of: Table, column: str) -> Condition:
    return lambda _, value: of.c[column] < value


def _entity(of: Table, column: str, kind: str) -> Condition:
    return lambda connection, value: of.c[column].in_(ids(connection, kind, value))


def ids(connection: Connection, kind: str, value: str) -> list[str]:
    """Ids of the entities that a name or an id means.

    A session may also carry a plain name that is no entity, so the value itself is one of them.
    """
    if "@" in value:
        return [value]
    found = table(ENTITIES[kind])
    return [value, *connection.scalars(select(found.c.id).where(found.c.name == value))]


def _of_session(column: str) -> Condition:
    """Requests of the sessions that have an entity."""

    def condition(connection: Connection, value: str) -> ColumnElement[bool]:
        wanted = SESSION.c[column].in_(ids(connection, column, value))
        return exists().where(SESSION.c.id == REQUEST.c.session_id, wanted)

    return condition


def _nearest_request(
    connection: Connection, wanted: Mapping[str, Any], after: Sequence[Any] | None
) -> float | None:
    """When the newest request of the wanted variant or experiment can have begun."""
    columns = [name for name in ("variant", "experiment") if name in wanted]
    if not columns:
        return None
    query = select(func.max(SESSION.c.last_request_s))
    for name in columns:
        query = query.where(SESSION.c[name].in_(ids(connection, name, wanted[name])))
    if after is None:
        return connection.scalar(query) or 0.0
    begun = query.where(SESSION.c.first_request_s <= after[0])
    return min(connection.scalar(begun) or 0.0, float(after[0]))


SESSIONS = Listing(
    "session",
    SESSION,
    ("created_s", "id"),
    {
        **{name: _equals(SESSION, name) for name in ("kind", "state", "model", "solved", "attempt")},
        **{
            name: _entity(SESSION, name, name)
            for name in ("experiment", "variant", "task_card", "harness_profile", "provider")
        },
        "since_s": _since(SESSION, "created_s"),
        "until_s": _until(SESSION, "created_s"),
    },
    leads=("experiment", "variant"),
    most_scanned=MOST_SCANNED,
)
REQUESTS = Listing(
    "request",
    REQUEST,
    ("started_s", "id"),
    {
        "session": _equals(REQUEST, "session_id"),
        **{
            name: _equals(REQUEST, name)
            for name in ("status", "error_class", "endpoint", "provider", "stream")
        },
        "model": _equals(REQUEST, "model_asked"),
        **{name: _of_session(name) for name in ("variant", "experiment")},
        "since_s": _since(REQUEST, "started_s"),
        "until_s": _until(REQUEST, "started_s"),
    },
    leads=("session",),
    most_scanned=MOST_SCANNED,
    nearest=_nearest_request,
)
EVENTS = Listing(
    "event",
    EVENT,
    ("time_s", "id"),
    {"request": _equals(EVENT, "request_id")},
    newest_first=False,
)
ROLLUPS = Listing(
    "rollup",
    ROLLUP,
    ("scope", "scope_id", "metric"),
    {name: _equals(ROLLUP, name) for name in ("scope", "scope_id", "metric")},
    newest_first=False,
    most_scanned=MOST_SCANNED,
    hidden=frozenset({"columns"}),
    always=ROLLUP.c["columns"].is_(None),  # packed requests are no figures
)
ARTIFACTS = Listing(
    "artifact",
    ARTIFACT,
    ("created_s", "id"),
    {
        "session": _equals(ARTIFACT, "session_id"),
        "kind": _equals(ARTIFACT, "kind"),
        "experiment": _entity(ARTIFACT, "experiment", "experiment"),
    },
)
