"""The routes of a kind of config entity: every text that was ever in force, under `name@digest`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from melete.api.store import PLAIN, Asked, Listed, Seconds, Store, Text
from melete.gateway.listings import entity

EntityId = Annotated[
    str,
    Path(max_length=200, pattern=PLAIN, description="An id, `name@digest`.", examples=["small@5f0c1d2e3a4b"]),
]


class Entity(BaseModel):
    """One text of a config file; a changed file is another entity of the same name."""

    id: str = Field(
        description="`name@digest`, which is what sessions refer to.", examples=["small@5f0c1d2e3a4b"]
    )
    name: str = Field(examples=["small"])
    digest: str = Field(description="sha256 of the canonical document.")
    created_s: float = Field(description="When it was first in force, seconds since the epoch.")
    document: dict[str, Any] = Field(description="What the file says; secrets by reference only.")


class EntityAsked(Asked):
    """Which entities."""

    name: Text | None = Field(None, description="Only texts of this name.", examples=["small"])
    since_s: Seconds | None = Field(None, description="First in force at or after this time.")
    until_s: Seconds | None = Field(None, description="First in force before this time.")


def entity_routes(store: Store, kind: str, router: APIRouter | None = None) -> APIRouter:
    """A list, newest first, and one by its id.

    Args:
        store: what is read.
        kind: provider, harness_profile, variant, experiment or task_card.
        router: has routes of its own, which are looked at first.
    """
    router, listing = router or APIRouter(), entity(kind)

    @router.get("", name=f"list_{kind}s", summary=f"List {kind.replace('_', ' ')}s, newest first")
    def list_entities(asked: Annotated[EntityAsked, Query()]) -> Listed[Entity]:
        return store.page(listing, asked, Entity)

    @router.get("/{entity_id:path}", name=f"get_{kind}", summary=f"One {kind.replace('_', ' ')}")
    def one_entity(entity_id: EntityId) -> Entity:
        return store.one(listing, {"id": entity_id}, Entity)

    return router
