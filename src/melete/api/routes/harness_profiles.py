"""Harness profiles: how each harness is told of the gateway."""

from __future__ import annotations

from fastapi import APIRouter

from melete.api.entity import entity_routes
from melete.api.store import Store


def routes(store: Store) -> APIRouter:
    """A list and one of it."""
    return entity_routes(store, "harness_profile")
