"""Histories of requests for tests: what a hook might tell, in every way that a request can go."""

from __future__ import annotations

import random
import uuid
from typing import Any

from sqlalchemy import Connection, text

from melete.gateway.events import Event, event_id

WRITER = "host:1:2"
TABLES = ("request", "request_event", "request_open", "session", "spend_log")
OUTCOMES = ("ok", "stream", "retried", "error", "abort", "open", "interrupted", "refused", "end_only")


def told_of(
    outcome: str, request: str, session: str, at_s: float, model: str = "small", call_id: str | None = None
) -> list[Event]:
    """The events of one request that goes as `outcome` says, in the order in which they happen."""

    def event(kind: str, number: int = 0, after_s: float = 0.0, **fields: Any) -> Event:
        id = event_id(request, kind, number)
        return Event(
            kind, id, request, None if kind == "refused" else session, at_s + after_s, WRITER, fields
        )

    stream = outcome == "stream"
    begin = event("begin", endpoint="chat", stream=stream, model_asked=model, client="openai", started_s=at_s)
    tried = event("attempt", 0, 0.5, index=0, deployment="a", status="ok", upstream_request_id="req-1")
    failed = event("attempt", 0, 0.2, index=0, deployment="a", status="error", http_status=500)
    again = event("attempt", 1, 0.5, index=1, deployment="a", status="ok", upstream_request_id="req-2")
    counts = {"tokens_in": 100, "tokens_cached": 40, "tokens_out": 20, "tokens_estimated": False}
    money = {"cost_usd": 0.001, "cost_source": "config"}
    ok = {
        "status": "ok",
        "http_status": 200,
        "latency_ms": 500.0,
        "call_id": call_id or request,
        **counts,
        **money,
    }
    ended = event("end", 0, 0.5, **ok, **({"ttft_ms": 120.0, "first_chunk_ms": 30.0} if stream else {}))
    wrong = {"status": "error", "error_class": "rate_limit", "http_status": 429, "latency_ms": 200.0}
    return {
        "ok": [begin, tried, ended],
        "stream": [begin, tried, ended],
        "retried": [begin, failed, again, ended],
        "error": [begin, failed, event("end", 0, 0.2, **wrong)],
        "abort": [
            begin,
            event("end", 0, 0.1, status="client_abort", latency_ms=100.0, tokens_estimated=True),
        ],
        "open": [begin],
        "interrupted": [begin, tried],
        "refused": [event("refused", status="refused", error_class="refused_session", http_status=401)],
        "end_only": [event("end", 0, 0.5, **ok, started_s=at_s, source="rollout", model_asked=model)],
    }[outcome]


def history(seed: int, requests: int, sessions: list[str]) -> list[Event]:
    """Events of many requests that overlap in time, in the order in which they happen; the same for the same seed."""
    chance = random.Random(seed)
    events = []
    for number in range(requests):
        request = str(uuid.UUID(int=chance.getrandbits(128)))
        outcome = OUTCOMES[number % len(OUTCOMES)]
        events += told_of(outcome, request, chance.choice(sessions), 1000.0 + number * 0.125)
    return sorted(events, key=lambda event: event.time_s)


def rows(connection: Connection) -> dict[str, list[str]]:
    """All rows of all tables that ingestion writes, in one order."""
    found = {}
    for table in TABLES:
        selected = connection.execute(text(f"SELECT * FROM {table}")).mappings()
        found[table] = sorted(repr(sorted(row.items(), key=lambda item: item[0])) for row in selected)
    return found


def forget(connection: Connection) -> None:
    """Empties all that ingestion writes, and leaves the sessions as they were before their first request."""
    for table in (*TABLES, "spool_position"):
        if table != "session":
            connection.execute(text(f"DELETE FROM {table}"))
    connection.execute(text("UPDATE session SET first_request_s = NULL, last_request_s = NULL"))
