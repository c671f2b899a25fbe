"""Sessions in the store: opened before their first request, moved by the table of legal moves, ended for good.

A move is one conditional update, so that of two that come at once one wins and the other is told. Ending a session
revokes its credentials in the same transaction; from then on the gateway refuses its key.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select, update

from melete.errors import SessionError, UnknownNameError
from melete.records import SESSION_MOVES, SessionRecord, SessionState, move_session
from melete.store.database import chunks
from melete.store.models import CredentialRow, SessionRow, table

SESSIONS = table(SessionRow)
CREDENTIALS = table(CredentialRow)
OUTCOME = ("solved", "score", "outcome_source", "outcome_note")
ENDED = frozenset(state for state, moves in SESSION_MOVES.items() if not moves)
"""States in which a session has ended for good."""
OPEN = tuple(str(state) for state in SESSION_MOVES if state not in ENDED)
"""The others: states in which a session's key works."""


def new_id(now_s: float | None = None) -> str:
    """A new session id: `s-`, the time to the second (UTC) so that ids sort by age, and 40 random bits."""
    moment = datetime.fromtimestamp(time.time() if now_s is None else now_s, UTC)
    return f"s-{moment:%y%m%d-%H%M%S}-{secrets.token_hex(5)}"


def open_session(connection: Connection, **fields: Any) -> SessionRecord:
    """Opens one session in state `created`.

    Args:
        connection: an open transaction.
        **fields: fields of `SessionRecord`; id, kind (gateway), state and created_s have defaults.
    """
    return open_many(connection, [fields])[0]


def open_many(connection: Connection, rows: Iterable[dict[str, Any]]) -> list[SessionRecord]:
    """Opens many sessions with one insert; each row holds fields of `SessionRecord`, as for `open_session`."""
    now_s = time.time()
    records = []
    for row in rows:
        created_s = row.get("created_s") or now_s
        defaults = {
            "id": new_id(created_s),
            "kind": "gateway",
            "state": SessionState.CREATED,
            "created_s": created_s,
        }
        records.append(SessionRecord(**{**defaults, **row}))
    if records:
        connection.execute(SESSIONS.insert(), [_row(record) for record in records])
    return records


def get(connection: Connection, id: str) -> SessionRecord:
    """The session of an id or of the beginning of one that only it has.

    Raises:
        UnknownNameError: no session, or more than one, begins so.
    """
    exact = connection.execute(select(SESSIONS).where(SESSIONS.c.id == id)).mappings().first()
    if exact is not None:
        return _record(exact)
    begins = SESSIONS.c.id.startswith(id, autoescape=True)
    found = (
        connection.execute(select(SESSIONS).where(begins).order_by(SESSIONS.c.id).limit(8)).mappings().all()
    )
    if len(found) == 1 and id:
        return _record(found[0])
    newest = select(SESSIONS.c.id).order_by(SESSIONS.c.created_s.desc(), SESSIONS.c.id.desc()).limit(8)
    known = [row["id"] for row in found] if id and found else connection.scalars(newest).all()
    raise UnknownNameError("session", id, known, next_step="See `melete bench session list`.")


def list_sessions(
    connection: Connection,
    *,
    kind: str | None = None,
    state: str | None = None,
    experiment: str | None = None,
    variant: str | None = None,
    task_card: str | None = None,
    limit: int = 50,
) -> list[SessionRecord]:
    """The newest sessions, newest first; pages of them are made by `queries.page`.

    Args:
        connection: an open transaction.
        kind: only gateway or only rollout.
        state: only those in a state.
        experiment: only those of an experiment, by id or by name (then of all its versions); so for the next two.
        variant: only those of a variant.
        task_card: only those of a task card.
        limit: how many at most.
    """
    of = SESSIONS.c
    query = select(SESSIONS).order_by(of.created_s.desc(), of.id.desc()).limit(limit)
    for column, value in ((of.kind, kind), (of.state, state)):
        if value is not None:
            query = query.where(column == value)
    entities = ((of.experiment, experiment), (of.variant, variant), (of.task_card, task_card))
    for column, value in entities:
        if value is not None:
            named = column == value if "@" in value else column.startswith(f"{value}@", autoescape=True)
            query = query.where(named)
    return [_record(row) for row in connection.execute(query).mappings()]


def move(
    connection: Connection, id: str, state: SessionState, *, now_s: float | None = None, **outcome: Any
) -> SessionRecord:
    """Moves a session, and where it ends revokes its credentials.

    Args:
        connection: an open transaction.
        id: a whole session id.
        state: the new state; entering `live` sets started_s, an end sets ended_s.
        now_s: time of the move, now by default.
        **outcome: solved, score, outcome_source, outcome_note; also metadata, which is added to what stands there.

    Raises:
        UnknownNameError: no such session.
        SessionError: an illegal move; it says when the session ended.
    """
    now_s = time.time() if now_s is None else now_s
    found = get(connection, id)
    values: dict[str, Any] = {"state": str(state), **{key: outcome[key] for key in OUTCOME if key in outcome}}
    if outcome.get("metadata"):
        values["metadata"] = {**found.metadata, **outcome["metadata"]}
    values["started_s" if state is SessionState.LIVE else "ended_s"] = now_s
    _legal(found, state)
    moved = connection.execute(
        update(SESSIONS).where(SESSIONS.c.id == found.id, SESSIONS.c.state == str(found.state)).values(values)
    )
    if moved.rowcount != 1:  # somebody else was quicker
        _legal(get(connection, found.id), state)
        raise SessionError(f"Session {found.id} was moved by another process at the same time.")
    if state in ENDED:
        revoke(connection, [found.id], now_s)
    return get(connection, found.id)


def expire_due(connection: Connection, now_s: float | None = None) -> list[str]:
    """Expires sessions whose time is over and revokes their credentials; returns their ids."""
    now_s = time.time() if now_s is None else now_s
    of = SESSIONS.c
    due = select(of.id).where(of.state.in_(OPEN), of.expires_s < now_s).order_by(of.id)
    ids = list(connection.scalars(due))
    for some in chunks(ids):
        connection.execute(
            update(SESSIONS)
            .where(of.id.in_(some), of.state.in_(OPEN))
            .values(state=str(SessionState.EXPIRED), ended_s=of.expires_s)
        )
        revoke(connection, some, now_s)
    return ids


def revoke(connection: Connection, session_ids: Sequence[str], now_s: float) -> int:
    """Revokes the credentials of sessions; returns how many. One that is revoked already keeps its time."""
    working = CREDENTIALS.c.session_id.in_(session_ids) & CREDENTIALS.c.revoked_s.is_(None)
    return connection.execute(update(CREDENTIALS).where(working).values(revoked_s=now_s)).rowcount


def _legal(found: SessionRecord, state: SessionState) -> None:
    if found.state in ENDED:
        when = (
            f"{datetime.fromtimestamp(found.ended_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
            if found.ended_s
            else "before"
        )
        raise SessionError(
            f"Session {found.id} was {found.state} already, on {when}; nothing was changed.",
            allowed="A session that has ended has ended for good.",
            next_step="Start another session for another attempt.",
        )
    move_session(found.state, state, f"session ({found.id})")


def _row(record: SessionRecord) -> dict[str, Any]:
    return {**vars(record), "state": str(record.state)}


def _record(row: RowMapping) -> SessionRecord:
    return SessionRecord(**{**row, "state": SessionState(row["state"])})
