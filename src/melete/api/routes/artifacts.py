"""Artifacts: files that were kept of a session or an experiment, with their checksums."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from melete.api.store import PLAIN, Asked, Listed, Store, Text
from melete.gateway.listings import ARTIFACTS

ArtifactId = Annotated[
    str,
    Path(
        max_length=60,
        pattern=PLAIN,
        description="An artifact's id.",
        examples=["report.html-75aaddc8c97fbc9ee48866e0"],
    ),
]


class Artifact(BaseModel):
    """One file: what it is and where, not what is in it."""

    id: str
    session_id: str | None
    experiment: str | None
    kind: str = Field(examples=["report.html"])
    path: str
    sha256: str
    bytes: int
    created_s: float = Field(description="Seconds since the epoch.")


class ArtifactAsked(Asked):
    """Which artifacts."""

    session: Text | None = Field(None, description="A session's id.", examples=["s-261120-190000-0a1b2c3d4e"])
    experiment: Text | None = Field(None, description="Name (all its texts) or id.", examples=["trial"])
    kind: Text | None = Field(None, examples=["report.html"])


def routes(store: Store) -> APIRouter:
    """A list, newest first, and one by its id."""
    router = APIRouter()

    @router.get("")
    def list_artifacts(asked: Annotated[ArtifactAsked, Query()]) -> Listed[Artifact]:
        """List artifacts, newest first."""
        return store.page(ARTIFACTS, asked, Artifact)

    @router.get("/{artifact_id}")
    def get_artifact(artifact_id: ArtifactId) -> Artifact:
        """One artifact."""
        return store.one(ARTIFACTS, {"id": artifact_id}, Artifact)

    return router
