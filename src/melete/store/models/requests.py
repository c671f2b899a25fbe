"""Requests: the events that were seen of each, and the one row that follows from them.

`request_event` is what the sources said and is only ever added to; `request` is a pure function of it and could be
dropped and computed again. `request_open` holds requests that began and have not ended.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from melete.store.models._model import Model


class RequestRow(Model):
    """One call of a model that has ended, or was refused (then `session_id` is empty)."""

    __tablename__ = "request"
    __table_args__ = (
        Index("request_by_session", "session_id", "started_s"),
        Index("request_by_age", "started_s", "id"),
    )

    id: Mapped[str] = mapped_column(String(60), primary_key=True, doc="made by our hook or recorder")
    session_id: Mapped[str | None] = mapped_column(String(60))
    source: Mapped[str] = mapped_column(String(60), doc="hook, rollout, spend_logs; joined by commas, sorted")
    call_id: Mapped[str | None] = mapped_column(String(100), doc="LiteLLM's id, which a client can set")
    endpoint: Mapped[str | None] = mapped_column(String(20), doc="chat, responses or messages")
    stream: Mapped[bool | None] = mapped_column(Boolean)
    model_asked: Mapped[str | None] = mapped_column(String(200))
    model_answered: Mapped[str | None] = mapped_column(String(200))
    deployment: Mapped[str | None] = mapped_column(String(200))
    provider: Mapped[str | None] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(
        String(20), doc="ok, error, client_abort, cache_hit, interrupted, refused"
    )
    error_class: Mapped[str | None] = mapped_column(String(40))
    http_status: Mapped[int | None] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    started_s: Mapped[float] = mapped_column(Float(53))
    ended_s: Mapped[float | None] = mapped_column(Float(53))
    latency_ms: Mapped[float | None] = mapped_column(Float(53))
    ttft_ms: Mapped[float | None] = mapped_column(Float(53), doc="time to the first content token")
    first_chunk_ms: Mapped[float | None] = mapped_column(Float(53))
    gap_p50_ms: Mapped[float | None] = mapped_column(Float(53), doc="between content chunks")
    gap_p95_ms: Mapped[float | None] = mapped_column(Float(53))
    gap_max_ms: Mapped[float | None] = mapped_column(Float(53))
    tokens_in: Mapped[int | None] = mapped_column(BigInteger)
    tokens_cached: Mapped[int | None] = mapped_column(BigInteger, doc="of tokens_in, read from a cache")
    tokens_cache_write: Mapped[int | None] = mapped_column(BigInteger)
    tokens_out: Mapped[int | None] = mapped_column(BigInteger)
    tokens_reasoning: Mapped[int | None] = mapped_column(BigInteger, doc="of tokens_out, not shown")
    tokens_estimated: Mapped[bool | None] = mapped_column(Boolean)
    cost_usd: Mapped[float | None] = mapped_column(Float(53))
    cost_source: Mapped[str | None] = mapped_column(
        String(60), doc="config, litellm_map:<version>, provider, none"
    )
    upstream_request_id: Mapped[str | None] = mapped_column(String(200))
    overhead_ms: Mapped[float | None] = mapped_column(Float(53))
    tool_calls: Mapped[int | None] = mapped_column(Integer)
    finish_reason: Mapped[str | None] = mapped_column(String(40))
    changed: Mapped[list[str] | None] = mapped_column(
        JSON, doc="names of client parameters that were stripped"
    )
    client: Mapped[str | None] = mapped_column(String(40), doc="product token of the user agent")


class RequestEventRow(Model):
    """One thing that a source said of a request; `fields` is JSON of allow-listed names only."""

    __tablename__ = "request_event"
    __table_args__ = ({"sqlite_with_rowid": False},)

    request_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    session_id: Mapped[str | None] = mapped_column(String(60))
    time_s: Mapped[float] = mapped_column(Float(53))
    writer: Mapped[str] = mapped_column(String(120))
    fields: Mapped[str] = mapped_column(Text)


class RequestOpenRow(Model):
    """A request that began and has not ended."""

    __tablename__ = "request_open"
    __table_args__ = (Index("request_open_by_session", "session_id"),)

    request_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    session_id: Mapped[str | None] = mapped_column(String(60))
    writer: Mapped[str] = mapped_column(
        String(120), doc="host:pid:start time of the process that saw it begin"
    )
    begun_s: Mapped[float] = mapped_column(Float(53))


class SpoolPositionRow(Model):
    """How far a segment of a spool has been read."""

    __tablename__ = "spool_position"

    segment: Mapped[str] = mapped_column(String(300), primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, doc="bytes")
    bad_lines: Mapped[int] = mapped_column(Integer, doc="lines that no event could be read from")
    read_s: Mapped[float] = mapped_column(Float(53))


class SpendLogRow(Model):
    """One row of LiteLLM's own log, as a second witness; `request_id` is the request that it tells of."""

    __tablename__ = "spend_log"
    __table_args__ = (
        Index("spend_log_by_session", "session_id"),
        Index("spend_log_by_start", "origin", "started_s", "id"),
    )

    origin: Mapped[str] = mapped_column(String(64), primary_key=True, doc="digest of where it was read")
    id: Mapped[str] = mapped_column(String(300), primary_key=True, doc="LiteLLM's request_id")
    session_id: Mapped[str | None] = mapped_column(String(60))
    call_id: Mapped[str | None] = mapped_column(String(100))
    started_s: Mapped[float] = mapped_column(Float(53))
    ended_s: Mapped[float] = mapped_column(Float(53))
    fields: Mapped[dict[str, Any]] = mapped_column(JSON)
    request_id: Mapped[str] = mapped_column(String(60))


class RequestContentRow(Model):
    """Redacted prompt and answer of a request, only where the experiment's content flag is on."""

    __tablename__ = "request_content"
    __table_args__ = (Index("request_content_by_end", "expires_s"),)

    request_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    session_id: Mapped[str | None] = mapped_column(String(60))
    parts: Mapped[list[Any]] = mapped_column(JSON)
    expires_s: Mapped[float] = mapped_column(Float(53))
