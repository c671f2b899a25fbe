"""What all tables share: their metadata."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase


class Model(DeclarativeBase):
    """What all tables share: their metadata."""
