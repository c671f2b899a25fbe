"""Experiments: variants and task cards that are played against each other."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from melete.api.entity import EntityId, entity_routes
from melete.api.store import Store
from melete.errors import UnknownNameError
from melete.gateway import queries
from melete.gateway.entities import name_of
from melete.gateway.listings import SESSION, entity


class VariantProgress(BaseModel):
    """How far one variant is."""

    variant: str | None = Field(examples=["small@5f0c1d2e3a4b"])
    name: str
    sessions: int
    states: dict[str, int] = Field(description="Sessions by state.", examples=[{"finalised": 4, "live": 1}])
    solved: int
    failed: int
    unknown: int = Field(
        description="Finalised sessions of which nobody has said whether the task was solved."
    )
    first_s: float | None
    last_s: float | None


class Progress(BaseModel):
    """How far an experiment is."""

    experiment: str = Field(examples=["trial@5f0c1d2e3a4b"])
    sessions: int
    states: dict[str, int]
    variants: list[VariantProgress]


class ProgressAsked(BaseModel):
    """Nothing can be asked of it."""

    model_config = ConfigDict(extra="forbid")


def routes(store: Store) -> APIRouter:
    """A list, one of it, and how far it is."""
    router = APIRouter()

    @router.get("/{entity_id:path}/progress")
    def get_experiment_progress(entity_id: EntityId, asked: Annotated[ProgressAsked, Query()]) -> Progress:
        """Sessions of one text of an experiment, by variant, state and outcome."""
        counted = (
            select(
                SESSION.c.variant,
                SESSION.c.state,
                SESSION.c.solved,
                func.count().label("count"),
                func.min(SESSION.c.created_s).label("first_s"),
                func.max(SESSION.c.created_s).label("last_s"),
            )
            .where(SESSION.c.experiment == entity_id)
            .group_by(SESSION.c.variant, SESSION.c.state, SESSION.c.solved)
        )
        listing = entity("experiment")
        with store.read() as connection:
            rows = [dict(row) for row in connection.execute(counted).mappings()]
            if not rows and queries.one(connection, listing, {"id": entity_id}) is None:
                known = [item["id"] for item in queries.page(connection, listing, {}, limit=8).items]
                raise UnknownNameError("experiment", entity_id, known)
        variants: dict[str | None, VariantProgress] = {}
        for row in sorted(rows, key=lambda one: (one["first_s"], str(one["variant"]))):
            _add(variants, row)
        states: dict[str, int] = {}
        for one in variants.values():
            for state, count in one.states.items():
                states[state] = states.get(state, 0) + count
        return Progress(
            experiment=entity_id,
            sessions=sum(states.values()),
            states=states,
            variants=list(variants.values()),
        )

    return entity_routes(store, "experiment", router)


def _add(variants: dict[str | None, VariantProgress], row: dict[str, object]) -> None:
    """Adds a group of sessions to its variant."""
    variant, state, count = row["variant"], str(row["state"]), int(str(row["count"]))
    first_s, last_s = float(str(row["first_s"])), float(str(row["last_s"]))
    name = str(variant) if variant is not None else None
    one = variants.setdefault(
        name,
        VariantProgress(
            variant=name, name=name_of(name) if name else "no variant", sessions=0, states={}, solved=0, failed=0,
            unknown=0, first_s=first_s, last_s=last_s,
        ),
    )  # fmt: skip
    one.sessions += count
    one.states[state] = one.states.get(state, 0) + count
    if row["solved"] is not None:
        one.solved += count if row["solved"] else 0
        one.failed += 0 if row["solved"] else count
    elif state == "finalised":
        one.unknown += count
    one.first_s, one.last_s = min(one.first_s or first_s, first_s), max(one.last_s or last_s, last_s)
