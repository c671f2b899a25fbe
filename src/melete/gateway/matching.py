"""Which row of LiteLLM's own log tells of which request, so that what two witnesses saw is counted once.

Both know the session by its key's hash. Within a session a log row and a request belong together when their call ids
are equal (a client can set those, so several may be) or one of them has none and the model is the same, and their times
overlap; nearest starts first. A log row that no request fits becomes a request of its own, until the hook's events
come. The result is a pure function of both sets, whichever came first. Limit: two calls under one call id and in the
same moment, of which the log holds only one, may be joined crosswise; they are counted right all the same.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from melete.gateway.events import Event
from melete.gateway.normalise import request_of
from melete.store.database import chunks, upsert
from melete.store.models import RequestEventRow, RequestRow, SpendLogRow, table

REQUESTS = table(RequestRow)
EVENTS = table(RequestEventRow)
LOGS = table(SpendLogRow)
COLUMNS = [column.name for column in REQUESTS.columns]
SOURCE = "spend_logs"
SLACK_S = 2.0
"""How far the clocks of two witnesses may be apart."""
LONGEST_S = 3600.0
"""How long a request may have lasted that nobody saw end."""
_OF_THE_HOOK = frozenset(
    {"id", "session_id", "source", "status", "error_class", "http_status", "attempts", "started_s"}
)
"""Columns in which the log never fills a gap of the hook."""

Row = dict[str, Any]


def match(connection: Connection, sessions: Iterable[str]) -> None:
    """Joins log rows and requests of sessions anew; does nothing for sessions without log rows."""
    sessions = sorted(sessions)
    if not sessions or connection.scalar(select(LOGS.c.id).limit(1)) is None:
        return
    for some in chunks(sessions):
        logged = select(LOGS.c.session_id).where(LOGS.c.session_id.in_(some)).distinct()
        for session in connection.scalars(logged).all():
            _match_session(connection, str(session))


def own_id(origin: str, id: str) -> str:
    """Request id of a log row that no request fits."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{origin}/{id}"))


@dataclass(frozen=True)
class Pairs:
    """Log rows, as (origin, id), to the ids of their requests: `witness` one to one, `retries` what is left over.

    LiteLLM may write a row of its own for a try that failed before the one that answered; it has the call id of its
    request and lies within its time, and is no request of its own.
    """

    witness: dict[tuple[str, str], str]
    retries: dict[tuple[str, str], str]


def pairs(requests: list[Row], logs: list[Row]) -> Pairs:
    """Which log row belongs to which request; a row in neither dictionary is a request that only the log knows of."""
    by_call = defaultdict(list)
    for request in requests:
        by_call[request["call_id"]].append(request)
    candidates = []
    for log in logs:
        near = requests if log["call_id"] is None else [*by_call[log["call_id"]], *by_call[None]]
        for request in near:
            same_call = log["call_id"] is not None and request["call_id"] == log["call_id"]
            same_model = request["model_asked"] == log["fields"].get("model_asked")
            if (same_call or same_model) and _overlap(request, log):
                apart_s = abs(request["started_s"] - log["started_s"])
                failed = log["fields"].get("status") != "ok"
                candidates.append((not same_call, failed, apart_s, log["origin"], log["id"], request["id"]))
    candidates.sort()
    witness: dict[tuple[str, str], str] = {}
    taken = set()
    for *_, origin, id, request_id in candidates:
        if (origin, id) not in witness and request_id not in taken:
            witness[origin, id] = request_id
            taken.add(request_id)
    retries: dict[tuple[str, str], str] = {}
    for other_call, *_, origin, id, request_id in candidates:
        if not other_call and (origin, id) not in witness:
            retries.setdefault((origin, id), request_id)
    return Pairs(witness, retries)


def joined(request: Row, log: Row) -> Row:
    """The request's row with its gaps filled from the log."""
    fields = log["fields"]
    gaps = {name for name in COLUMNS if request[name] is None and name not in _OF_THE_HOOK}
    if request["cost_usd"] is None and fields.get("cost_usd") is not None:
        gaps.add("cost_source")
    return {
        **request,
        **{name: fields.get(name) for name in gaps},
        "source": ",".join(sorted({*request["source"].split(","), SOURCE})),
    }


def alone_row(log: Row) -> Row:
    """The row of a request that only the log knows of."""
    fields = {name: log["fields"].get(name) for name in COLUMNS}
    told = {name: log[name] for name in ("session_id", "call_id", "started_s", "ended_s")}
    return {**fields, **told, "id": own_id(log["origin"], log["id"]), "source": SOURCE}


def _match_session(connection: Connection, session: str) -> None:
    mine = select(LOGS).where(LOGS.c.session_id == session)
    logs = {(row["origin"], row["id"]): dict(row) for row in connection.execute(mine).mappings()}
    requests = _seen_by_hook(connection, session)
    found = pairs(list(requests.values()), list(logs.values()))
    request_of_log = {**found.retries, **found.witness}
    for key, request_id in found.witness.items():
        requests[request_id] = joined(requests[request_id], logs[key])
    alone = [alone_row(log) for key, log in logs.items() if key not in request_of_log]
    keep = {row["id"] for row in alone}
    of_logs = select(REQUESTS.c.id).where(REQUESTS.c.session_id == session, REQUESTS.c.source == SOURCE)
    gone = [{"gone": id} for id in connection.scalars(of_logs) if id not in keep]
    if gone:
        connection.execute(delete(REQUESTS).where(REQUESTS.c.id == bindparam("gone")), gone)
    upsert(connection, REQUESTS, [*requests.values(), *alone])
    told = [{"o": key[0], "i": key[1], "r": request_of_log.get(key) or own_id(*key)} for key in logs]
    this = update(LOGS).where(LOGS.c.origin == bindparam("o"), LOGS.c.id == bindparam("i"))
    connection.execute(this.values(request_id=bindparam("r")), told)


def _seen_by_hook(connection: Connection, session: str) -> dict[str, Row]:
    """Rows of the session's requests that have events, as these alone give them."""
    mine = (REQUESTS.c.session_id == session, REQUESTS.c.source != SOURCE)
    query = select(EVENTS).join(REQUESTS, REQUESTS.c.id == EVENTS.c.request_id).where(*mine)
    events = defaultdict(list)
    for request, id, kind, of, time_s, writer, fields in connection.execute(query):
        events[request].append(Event(kind, id, request, of, time_s, writer, json.loads(fields)))
    rows = {request: request_of(told) for request, told in events.items()}
    return {request: row for request, row in rows.items() if row is not None}


def _overlap(request: Row, log: Row) -> bool:
    ended_s = request["ended_s"] or request["started_s"] + LONGEST_S
    began, ended = log["started_s"], max(log["started_s"], log["ended_s"])
    return bool(began <= ended_s + SLACK_S and ended >= request["started_s"] - SLACK_S)
