"""The page on the data model names every table, and every column of sessions and requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from melete.gateway.normalise import ERROR_CLASSES, STATUSES
from melete.records import SESSION_MOVES
from melete.store.models import Model, RequestRow, SessionRow

PAGE = (Path(__file__).parents[2] / "docs" / "bench" / "data-model.md").read_text(encoding="utf-8")
ELSEWHERE = ("melete.store.models.access", "melete.store.models.jobs", "melete.store.models.runs")
TABLES = sorted(
    str(mapper.local_table.name)
    for mapper in Model.registry.mappers
    if mapper.class_.__module__ not in ELSEWHERE
)


@pytest.mark.parametrize("table", TABLES)
def test_page_names_the_table(table: str) -> None:
    assert table in PAGE


@pytest.mark.parametrize("row", [SessionRow, RequestRow], ids=["session", "request"])
def test_page_names_every_column(row: type[SessionRow | RequestRow]) -> None:
    assert [column.name for column in row.__table__.columns if f"`{column.name}`" not in PAGE] == []


def test_page_names_every_status_error_class_and_state() -> None:
    words = [*STATUSES, *ERROR_CLASSES, *map(str, SESSION_MOVES)]
    assert [word for word in words if f"`{word}`" not in PAGE] == []
