"""Rollups: figures of a session, a variant or an experiment that follow from its requests."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from melete.api.store import Asked, Listed, Store, Text
from melete.gateway.listings import ROLLUPS


class Rollup(BaseModel):
    """One figure."""

    scope: str = Field(description="session, variant, experiment, or source: counted by another witness.")
    scope_id: str = Field(description="Id of what it is a figure of.")
    metric: str = Field(description="Name of a metric, see /metrics.", examples=["cost"])
    value: float | None
    count: int = Field(description="How many requests or sessions it rests on.")


class RollupAsked(Asked):
    """Which rollups."""

    scope: Literal["session", "variant", "experiment", "source"] | None = None
    scope_id: Text | None = Field(
        None, description="Id of the session, variant or experiment.", examples=["s-261120-190000-0a1b2c3d4e"]
    )
    metric: Text | None = Field(None, examples=["cost"])


def routes(store: Store) -> APIRouter:
    """A list, by scope and metric."""
    router = APIRouter()

    @router.get("")
    def list_rollups(asked: Annotated[RollupAsked, Query()]) -> Listed[Rollup]:
        """List rollups by scope, id and metric."""
        return store.page(ROLLUPS, asked, Rollup)

    return router
