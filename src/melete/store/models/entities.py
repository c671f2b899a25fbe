"""Config entities: the exact text of each provider, harness profile, variant, experiment and task card in force.

An id is `name@digest`, the digest of the canonical document; a file that changes becomes a new row, the old one stays.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Float, String
from sqlalchemy.orm import Mapped, mapped_column

from melete.store.models._model import Model


class _Entity:
    """Columns of every config entity."""

    id: Mapped[str] = mapped_column(String(200), primary_key=True, doc="name@digest")
    name: Mapped[str] = mapped_column(String(180), index=True)
    digest: Mapped[str] = mapped_column(String(64), doc="sha256 of the canonical document")
    document: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_s: Mapped[float] = mapped_column(Float(53))


class ProviderRow(_Entity, Model):
    """Where models are served: its file, with secrets by reference only."""

    __tablename__ = "provider"


class HarnessProfileRow(_Entity, Model):
    """How a harness is told of the gateway."""

    __tablename__ = "harness_profile"


class VariantRow(_Entity, Model):
    """A harness with a provider, a model and parameters: what is compared."""

    __tablename__ = "variant"


class ExperimentRow(_Entity, Model):
    """Variants and task cards that are played against each other."""

    __tablename__ = "experiment"


class TaskCardRow(_Entity, Model):
    """A task and how its outcome is checked."""

    __tablename__ = "task_card"


ENTITIES: dict[str, type[ProviderRow | HarnessProfileRow | VariantRow | ExperimentRow | TaskCardRow]] = {
    row.__tablename__: row for row in (ProviderRow, HarnessProfileRow, VariantRow, ExperimentRow, TaskCardRow)
}
"""Kind of entity to its table."""
