"""The index of runs; a run is known by the place of its home and its id, so that many hosts can share one database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Float, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from melete.store.models._model import Model


class RunRow(Model):
    """One run, as `run.json` and the end of `metrics.jsonl` tell it. Times are seconds since the epoch."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("runs_by_age", "created_s"),
        Index("runs_by_process", "process", "created_s"),
        Index("runs_by_home", "location", "created_s", "id"),
        Index("runs_by_state", "location", "state", "created_s", "id"),
        Index("runs_by_home_and_process", "location", "process", "created_s", "id"),
        Index("runs_by_id", "id"),
    )

    location: Mapped[str] = mapped_column(String(500), primary_key=True, doc="host:home folder")
    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    process: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(String(200))
    job: Mapped[str | None] = mapped_column(String(100))
    created_s: Mapped[float] = mapped_column(Float(53))
    ended_s: Mapped[float | None] = mapped_column(Float(53))
    step: Mapped[int | None] = mapped_column(Integer)
    last: Mapped[dict[str, Any]] = mapped_column(JSON, doc="last value of each figure")
    error: Mapped[str | None] = mapped_column(Text)
