"""Figures that follow from requests, and files that belong to a session or an experiment."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, Index, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from melete.store.models._model import Model


class MetricRollupRow(Model):
    """One figure of a session, a variant or an experiment; deterministic, and computed again whenever asked for."""

    __tablename__ = "metric_rollup"

    scope: Mapped[str] = mapped_column(String(20), primary_key=True, doc="session, variant or experiment")
    scope_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    metric: Mapped[str] = mapped_column(String(60), primary_key=True)
    value: Mapped[float | None] = mapped_column(Float(53))
    count: Mapped[int] = mapped_column(Integer)
    columns: Mapped[bytes | None] = mapped_column(LargeBinary, doc="packed float32, one per request")


class ArtifactRow(Model):
    """A file that was kept: a report, a bundle, a log of a harness."""

    __tablename__ = "artifact"
    __table_args__ = (
        Index("artifact_by_session", "session_id"),
        Index("artifact_by_experiment", "experiment"),
    )

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    session_id: Mapped[str | None] = mapped_column(String(60))
    experiment: Mapped[str | None] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(40))
    path: Mapped[str] = mapped_column(String(500))
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_s: Mapped[float] = mapped_column(Float(53))
