"""Events into the store: each kept once, and the rows of the requests they touch computed from all of their events.

Everything of one call happens in the caller's transaction, behind a lock that one ingest at a time holds, so that two
collectors at once cannot each miss what the other has not committed. Repeating a call changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, delete, func, select, update

from melete.gateway import matching
from melete.gateway.events import Event
from melete.gateway.normalise import interrupted_event, is_open, request_of
from melete.store.database import chunks, insert_new, upsert
from melete.store.models import (
    MetricRollupRow,
    RequestEventRow,
    RequestOpenRow,
    RequestRow,
    SessionRow,
    table,
)

EVENTS = table(RequestEventRow)
REQUESTS = table(RequestRow)
OPEN = table(RequestOpenRow)
SESSIONS = table(SessionRow)
ROLLUPS = table(MetricRollupRow)
INGEST_LOCK = 5_104_712
"""Key of the PostgreSQL advisory lock that an ingest holds until its transaction ends."""


@dataclass(frozen=True)
class Ingested:
    """What one call added: new events, events that were known, requests whose row was written, and their sessions."""

    events: int = 0
    repeated: int = 0
    requests: int = 0
    sessions: frozenset[str] = frozenset()

    def __add__(self, other: Ingested) -> Ingested:
        return Ingested(
            self.events + other.events,
            self.repeated + other.repeated,
            self.requests + other.requests,
            self.sessions | other.sessions,
        )


def ingest(connection: Connection, events: Iterable[Event]) -> Ingested:
    """Keeps events that are new and computes the rows of their requests."""
    told = {(event.request, event.id): event for event in events}
    if not told:
        return Ingested()
    alone(connection)
    known = _known(connection, list({request for request, _ in told}))
    new = [event for key, event in told.items() if key not in known]
    if not new:
        return Ingested(repeated=len(told))
    insert_new(connection, EVENTS, [_row(event) for event in new])
    of_request: dict[str, list[Event]] = {event.request: [] for event in new}
    for event in (*known.values(), *new):
        if event.request in of_request:
            of_request[event.request].append(event)
    rows, sessions = _write_rows(connection, of_request)
    _keep_open(connection, of_request, was_open={key[0] for key in known})
    return Ingested(len(new), len(told) - len(new), rows, sessions)


def recompute(connection: Connection) -> int:
    """Computes the rows of all requests anew from their events, as after a change of `normalise`; returns how many."""
    alone(connection)
    after, rows = "", 0
    while True:
        following = select(EVENTS.c.request_id).where(EVENTS.c.request_id > after).distinct()
        ids = list(connection.scalars(following.order_by(EVENTS.c.request_id).limit(5000)))
        if not ids:
            return rows
        of_request: dict[str, list[Event]] = {id: [] for id in ids}
        for event in _known(connection, ids).values():
            of_request[event.request].append(event)
        rows += _write_rows(connection, of_request)[0]
        after = ids[-1]


def close_interrupted(connection: Connection, dead: Iterable[str]) -> Ingested:
    """Ends what writers that died had begun; an end that is still found in a spool wins over it."""
    dead = list(dead)
    if not dead:
        return Ingested()
    query = select(OPEN).where(OPEN.c.writer.in_(dead))
    rows = connection.execute(query).mappings().all()
    return ingest(
        connection,
        [interrupted_event(r["request_id"], r["session_id"], r["begun_s"], r["writer"]) for r in rows],
    )


def open_writers(connection: Connection) -> list[str]:
    """Writers of requests that began and have not ended."""
    return list(connection.scalars(select(OPEN.c.writer).distinct()))


def open_requests(connection: Connection, session_id: str) -> int:
    """How many requests of a session began and have not ended."""
    return connection.scalar(select(func.count()).where(OPEN.c.session_id == session_id)) or 0


def note_requests(connection: Connection, sessions: Iterable[str]) -> None:
    """Writes into sessions when their first and their last request began."""
    began = REQUESTS.c.started_s
    of_session = REQUESTS.c.session_id == SESSIONS.c.id
    first = select(func.min(began)).where(of_session).scalar_subquery()
    last = select(func.max(began)).where(of_session).scalar_subquery()
    for some in chunks(sorted(sessions)):
        values = {"first_request_s": first, "last_request_s": last}
        connection.execute(update(SESSIONS).where(SESSIONS.c.id.in_(some)).values(values))


def drop_rollups(connection: Connection, sessions: Iterable[str]) -> None:
    """Drops the rollups of sessions whose requests changed; who reads them next computes them again."""
    for some in chunks(sorted(sessions)):
        connection.execute(delete(ROLLUPS).where(ROLLUPS.c.scope == "session", ROLLUPS.c.scope_id.in_(some)))


def alone(connection: Connection) -> None:
    """Waits until no other ingest is in a transaction, and keeps others out until this one ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({INGEST_LOCK})"))
    elif not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _write_rows(connection: Connection, of_request: dict[str, list[Event]]) -> tuple[int, frozenset[str]]:
    """Writes the rows of requests from all of their events, and what follows; returns how many, and their sessions."""
    rows = [row for row in map(request_of, of_request.values()) if row is not None]
    upsert(connection, REQUESTS, rows)
    sessions = frozenset(row["session_id"] for row in rows if row["session_id"])
    matching.match(connection, sessions)
    note_requests(connection, sessions)
    drop_rollups(connection, sessions)
    return len(rows), sessions


def _known(connection: Connection, requests: list[str]) -> dict[tuple[str, str], Event]:
    """The events of requests that are kept already."""
    known = {}
    for some in chunks(requests):
        for row in connection.execute(select(EVENTS).where(EVENTS.c.request_id.in_(some))):
            request, id, kind, session, time_s, writer, fields = row
            known[request, id] = Event(kind, id, request, session, time_s, writer, json.loads(fields))
    return known


def _row(event: Event) -> dict[str, Any]:
    return {
        "request_id": event.request,
        "id": event.id,
        "kind": event.kind,
        "session_id": event.session,
        "time_s": event.time_s,
        "writer": event.writer,
        "fields": json.dumps(event.fields, separators=(",", ":")),
    }


def _keep_open(connection: Connection, of_request: dict[str, list[Event]], was_open: set[str]) -> None:
    """Brings `request_open` in line with the events of requests."""
    ended, opened = [], []
    for request, events in of_request.items():
        if is_open(events):
            begin = min((e for e in events if e.kind == "begin"), key=lambda e: (e.time_s, e.id))
            opened.append(
                {
                    "request_id": request,
                    "session_id": begin.session,
                    "writer": begin.writer,
                    "begun_s": begin.time_s,
                }
            )
        elif request in was_open:
            ended.append(request)
    upsert(connection, OPEN, opened)
    for some in chunks(ended):
        connection.execute(delete(OPEN).where(OPEN.c.request_id.in_(some)))
