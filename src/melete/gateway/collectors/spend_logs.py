"""Reads `LiteLLM_SpendLogs`, the log that LiteLLM keeps in PostgreSQL, as a second witness of the same requests.

Read by key (startTime, request_id) in pages, beginning a while before where the last reading ended, because LiteLLM
writes rows late: a request that lasted long appears with an early start. A row belongs to a session by the hash of its
key and to nothing that a client can say; rows of other keys are left alone. Only figures are taken, by JSON path: no
prompt, answer or error text crosses. Reading again changes nothing.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, RowMapping, select
from sqlalchemy.exc import SQLAlchemyError

from melete.errors import ConfigError, StorageError
from melete.gateway import matching
from melete.gateway.events import allowed, text
from melete.gateway.hook_record import class_of
from melete.gateway.ingest import alone, drop_rollups, note_requests
from melete.settings import Settings
from melete.store.database import chunks, open_engine, opened, upsert
from melete.store.models import CredentialRow, SpendLogRow, SpoolPositionRow, table

LOGS = table(SpendLogRow)
CREDENTIALS = table(CredentialRow)
POSITIONS = table(SpoolPositionRow)
OVERLAP_S = 3600.0
"""How much is read again: as long as a request may last, and LiteLLM's delay in writing."""
PAGE = 500
ENDPOINTS = {
    "acompletion": "chat",
    "completion": "chat",
    "aresponses": "responses",
    "responses": "responses",
    "anthropic_messages": "messages",
}
QUERY = """
SELECT request_id, call_type, api_key, spend, prompt_tokens, completion_tokens, model, model_id, model_group,
  custom_llm_provider, cache_hit, status, litellm_call_id,
  extract(epoch FROM "startTime")::float8 AS started_s, extract(epoch FROM "endTime")::float8 AS ended_s,
  extract(epoch FROM "completionStartTime")::float8 AS first_chunk_s,
  metadata->>'status' AS told_status, metadata->>'attempted_retries' AS retries,
  metadata->>'original_model_group' AS first_model_group, metadata->>'litellm_overhead_time_ms' AS overhead_ms,
  metadata#>>'{error_information,error_class}' AS exception, metadata#>>'{error_information,error_code}' AS code,
  metadata#>>'{usage_object,prompt_tokens_details,cached_tokens}' AS cached,
  metadata#>>'{additional_usage_values,cache_creation_input_tokens}' AS cache_write,
  metadata#>>'{usage_object,completion_tokens_details,reasoning_tokens}' AS reasoning
FROM "LiteLLM_SpendLogs"
WHERE ("startTime", request_id) > (to_timestamp(:since_s) AT TIME ZONE 'UTC', :after)
ORDER BY "startTime", request_id LIMIT :page
"""


@dataclass(frozen=True)
class Read:
    """Rows of one reading: new, changed or known before, and those whose key belongs to no session of ours."""

    new: int = 0
    known: int = 0
    foreign: int = 0


def collect(settings: Settings, url: str) -> Read:
    """Reads LiteLLM's log from its database into the store of these settings.

    Args:
        settings: where the store is.
        url: LiteLLM's database, `postgresql://…`; a role that may only read is enough.

    Raises:
        ConfigError: the URL is not that of a PostgreSQL database.
        StorageError: either database cannot be used; nothing is lost, and the next call goes on.
    """
    if not url.startswith(("postgresql://", "postgresql+psycopg://", "postgres://")):
        raise ConfigError(
            "LiteLLM keeps its log in PostgreSQL.", allowed="Allowed: postgresql://user@host/name."
        )
    source = open_engine(url)
    try:
        with opened(settings.database) as engine:
            return collect_into(engine, source)
    finally:
        source.dispose()


def collect_into(engine: Engine, source: Engine, *, overlap_s: float = OVERLAP_S, page: int = PAGE) -> Read:
    """Reads the log at `source` into the store at `engine`, one transaction of the store for each page.

    Raises:
        StorageError: the log cannot be read.
    """
    origin = origin_of(source)
    with engine.connect() as connection:
        seen = select(POSITIONS.c.offset).where(POSITIONS.c.segment == _position_key(origin))
        reached_s = (connection.scalar(seen) or 0) / 1000
    after: tuple[float, str] | None = (max(0.0, reached_s - overlap_s), "")
    total = Read()
    while after is not None:
        rows = _page(source, after, page)
        with engine.begin() as connection:
            alone(connection)
            read = keep(connection, origin, rows)
            reached_s = max([reached_s, *(row["started_s"] for row in rows)])
            upsert(connection, POSITIONS, [_position(origin, reached_s)])
        total = Read(total.new + read.new, total.known + read.known, total.foreign + read.foreign)
        after = (rows[-1]["started_s"], rows[-1]["request_id"]) if len(rows) == page else None
    return total


def origin_of(source: Engine) -> str:
    """Digest of where a log is: host, port and name of its database, without who reads it."""
    url = source.url
    place = f"{url.host or url.query.get('host', '')}:{url.port or 5432}/{url.database}"
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def row_of(found: RowMapping | dict[str, Any]) -> dict[str, Any]:
    """The columns of a request that a row of the log tells."""
    exception, code = found["exception"], found["code"]
    failed = "failure" in (found["status"], found["told_status"])
    http_status = int(code) if code and code.isdigit() else None
    status, error_class = "ok", None
    if exception == "ClientDisconnected" or http_status == 499:
        status = error_class = "client_abort"
    elif failed:
        status, error_class = "error", class_of(http_status, "", exception)
    elif found["cache_hit"] == "True":
        status = "cache_hit"
    counted = status != "error" or bool(
        found["spend"]
    )  # of a failed call LiteLLM writes an estimate of the prompt
    fields = {
        "endpoint": ENDPOINTS.get(found["call_type"]),
        "model_asked": found["first_model_group"] or found["model_group"] or None,
        "model_answered": found["model"] or None,
        "deployment": found["model_id"] or None,
        "provider": found["custom_llm_provider"] or None,
        "error_class": error_class,
        "http_status": http_status or (None if failed else 200),
        "latency_ms": max(0.0, found["ended_s"] - found["started_s"]) * 1000,
        "tokens_in": found["prompt_tokens"] if counted else None,
        "tokens_cached": _whole(found["cached"]),
        "tokens_cache_write": _whole(found["cache_write"]),
        "tokens_out": found["completion_tokens"] if counted else None,
        "tokens_reasoning": _whole(found["reasoning"]),
        "cost_usd": found["spend"] if found["spend"] is not None and found["spend"] >= 0 else None,
        "cost_source": matching.SOURCE if found["spend"] is not None else "none",
        "overhead_ms": float(found["overhead_ms"]) if found["overhead_ms"] else None,
        "first_chunk_ms": _first_chunk_ms(found),
    }
    kept = allowed({name: value for name, value in fields.items() if value is not None})
    return {**kept, "status": status, "attempts": 1 + (_whole(found["retries"]) or 0)}


def keep(connection: Connection, origin: str, rows: list[dict[str, Any]]) -> Read:
    """Keeps those rows of a page that are of sessions of ours, and joins them with what the hook saw."""
    hashes = sorted({row["api_key"] for row in rows})
    session_of: dict[str, str] = {}
    for some in chunks(hashes):
        query = select(CREDENTIALS).where(CREDENTIALS.c.key_hash.in_(some))
        session_of.update((row.key_hash, row.session_id) for row in connection.execute(query))
    told = [_log(origin, row, session_of[row["api_key"]]) for row in rows if row["api_key"] in session_of]
    known = _known(connection, origin, [log["id"] for log in told])
    new = [log for log in told if known.get(log["id"]) != log["fields"]]
    upsert(connection, LOGS, new)
    sessions = {log["session_id"] for log in new}
    matching.match(connection, sessions)
    note_requests(connection, sessions)
    drop_rollups(connection, sessions)
    return Read(len(new), len(told) - len(new), len(rows) - len(told))


def _page(source: Engine, after: tuple[float, str], page: int) -> list[dict[str, Any]]:
    try:
        with source.connect() as connection:
            connection.execute(sqlalchemy.text("SET TRANSACTION READ ONLY"))
            values = {"since_s": after[0], "after": after[1], "page": page}
            return [dict(row) for row in connection.execute(sqlalchemy.text(QUERY), values).mappings()]
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        raise StorageError(
            f"LiteLLM's log at {source.url.render_as_string(hide_password=True)} cannot be read: {cause}",
            next_step="Check the URL, and that LiteLLM has made its tables there.",
        ) from error


def _log(origin: str, row: dict[str, Any], session: str) -> dict[str, Any]:
    id = text(row["request_id"], 300)
    return {
        "origin": origin,
        "id": id,
        "session_id": session,
        "call_id": text(row["litellm_call_id"], 100) if row["litellm_call_id"] else None,
        "started_s": row["started_s"],
        "ended_s": max(row["started_s"], row["ended_s"]),
        "fields": row_of(row),
        "request_id": matching.own_id(origin, id),
    }


def _known(connection: Connection, origin: str, ids: list[str]) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}
    for some in chunks(ids):
        query = select(LOGS.c.id, LOGS.c.fields).where(LOGS.c.origin == origin, LOGS.c.id.in_(some))
        known.update((id, fields) for id, fields in connection.execute(query))
    return known


def _position_key(origin: str) -> str:
    return f"{matching.SOURCE}/{origin}"


def _position(origin: str, reached_s: float) -> dict[str, Any]:
    """How far the log was read: the start of its newest row, in milliseconds."""
    offset = int(reached_s * 1000)
    return {"segment": _position_key(origin), "offset": offset, "bad_lines": 0, "read_s": time.time()}


def _first_chunk_ms(found: RowMapping | dict[str, Any]) -> float | None:
    """Time to the first chunk of a stream; for an answer in one piece LiteLLM writes its end there."""
    first_s = found["first_chunk_s"]
    if first_s is None or not found["started_s"] <= first_s < found["ended_s"]:
        return None
    return float(first_s - found["started_s"]) * 1000


def _whole(value: str | None) -> int | None:
    return int(value) if value and value.isdigit() else None
