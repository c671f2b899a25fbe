"""Sessions, and the credentials by which the gateway knows whose request it is.

A session's row exists before its first request. The clear key of a credential is shown once and never stored.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, Float, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from melete.store.models._model import Model


class SessionRow(Model):
    """One attempt at one task by one variant; see `melete.records.SessionRecord`."""

    __tablename__ = "session"
    __table_args__ = (
        Index("session_by_age", "created_s", "id"),
        Index("session_by_experiment", "experiment", "created_s"),
        Index("session_by_variant", "variant", "created_s"),
        Index("session_by_end", "state", "expires_s"),
    )

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), doc="gateway or rollout")
    state: Mapped[str] = mapped_column(String(20))
    experiment: Mapped[str | None] = mapped_column(String(200))
    variant: Mapped[str | None] = mapped_column(String(200))
    task_card: Mapped[str | None] = mapped_column(String(200))
    attempt: Mapped[int] = mapped_column(Integer)
    harness_profile: Mapped[str | None] = mapped_column(String(200))
    provider: Mapped[str | None] = mapped_column(String(200))
    model: Mapped[str | None] = mapped_column(String(200))
    created_s: Mapped[float] = mapped_column(Float(53))
    started_s: Mapped[float | None] = mapped_column(Float(53))
    ended_s: Mapped[float | None] = mapped_column(Float(53))
    expires_s: Mapped[float | None] = mapped_column(Float(53))
    first_request_s: Mapped[float | None] = mapped_column(Float(53))
    last_request_s: Mapped[float | None] = mapped_column(Float(53), doc="when the last one began")
    solved: Mapped[bool | None] = mapped_column(Boolean)
    score: Mapped[float | None] = mapped_column(Float(53))
    outcome_source: Mapped[str | None] = mapped_column(String(20), doc="manual, checker or harness")
    outcome_note: Mapped[str | None] = mapped_column(Text)
    facts: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    content: Mapped[bool] = mapped_column(Boolean, doc="whether prompts and answers may be kept")


class CredentialRow(Model):
    """A session's key, known by its sha256; it dies with its session."""

    __tablename__ = "credential"
    __table_args__ = (Index("credential_by_session", "session_id"),)

    key_hash: Mapped[str] = mapped_column(
        String(64), primary_key=True, doc="sha256 hex of the whole sk-… key"
    )
    session_id: Mapped[str] = mapped_column(String(60))
    alias: Mapped[str] = mapped_column(String(60))
    issuer: Mapped[str] = mapped_column(String(40))
    models: Mapped[list[str]] = mapped_column(JSON, doc="models that may be asked for")
    policy: Mapped[dict[str, Any]] = mapped_column(JSON, doc="content flag and limits")
    created_s: Mapped[float] = mapped_column(Float(53))
    expires_s: Mapped[float] = mapped_column(Float(53))
    revoked_s: Mapped[float | None] = mapped_column(Float(53))
