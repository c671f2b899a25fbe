"""What all tables share: their metadata."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.orm import DeclarativeBase


class Model(DeclarativeBase):
    """What all tables share: their metadata."""


def table(row: type[Model]) -> Table:
    """The table of a row, for statements over many rows at once."""
    found = row.__table__
    assert isinstance(found, Table)
    return found
