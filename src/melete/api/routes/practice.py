"""Practice: runs that practised or evaluated a scenario, with what they measured before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from melete.api import here, proof
from melete.api.clean import text
from melete.api.episode_records import PracticeSummary
from melete.api.store import Asked, Listed, Store, Text
from melete.errors import MeleteError
from melete.runs import folder
from melete.store import index

MOST_RUNS = 100
"""Runs that are looked at for one page."""


class PracticeAsked(Asked):
    """Which runs."""

    process: Literal["agents.train", "agents.evaluate", "agents.demonstrate"] = Field(
        "agents.train", description="Practice, evaluations, or demonstrations."
    )
    scenario: Text | None = Field(None, description="A scenario's name.", examples=["customer_support"])


def routes(store: Store) -> APIRouter:
    """A list, newest first."""
    router = APIRouter()

    @router.get("")
    def list_practice(asked: Annotated[PracticeAsked, Query()]) -> Listed[PracticeSummary]:
        """List runs of this home that practised, evaluated or demonstrated; at most 100 are looked at for one page."""
        found: list[PracticeSummary] = []
        own = index.location(store.settings)
        wanted = {"location": own, "process": asked.process}
        looked, cursor = 0, asked.cursor
        with store.read() as connection:
            while True:
                page = here.page(connection, wanted, limit=asked.limit - len(found), cursor=cursor)
                for row in page.items:
                    one = _summary(store.settings.runs / row["id"])
                    if one is not None and asked.scenario in (None, one.scenario):
                        found.append(one)
                looked, cursor = looked + len(page.items), page.next_cursor
                if cursor is None or len(found) == asked.limit or looked >= MOST_RUNS:
                    return Listed[PracticeSummary](object="list", data=found, next_cursor=cursor)

    return router


def _summary(path: Path) -> PracticeSummary | None:
    """What is said of a run; None for one whose folder is gone or cannot be read."""
    try:
        record = folder.read(path)
    except MeleteError:
        return None
    found = here.yaml_of(path / "config.yaml")
    config: dict[str, Any] = found if isinstance(found, dict) else {}
    return PracticeSummary(
        id=record.id,
        process=record.process,
        state=record.state,
        name=text(record.name or record.step_name or "", 200) or None,
        created_s=record.created_s,
        ended_s=record.ended_s,
        scenario=_word(config.get("scenario")),
        base=_word(config.get("base")) or _word(record.result.get("model")),
        framework=_word(config.get("framework")),
        rows=proof.rows(record.result),
        differences=proof.differences(record.result),
    )


def _word(value: Any) -> str | None:
    return text(value, 200) if isinstance(value, str) and value else None
