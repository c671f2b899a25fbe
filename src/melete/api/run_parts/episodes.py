"""Episodes of a run: what agents proposed, what the guard made of it, what was done, answered and rewarded."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from melete.api import episodes, here
from melete.api.episode_records import EpisodeDetail, EpisodePage
from melete.api.episodes import EpisodeId, StepAsked
from melete.api.here import RunId
from melete.api.store import Asked, Store, Text


class EpisodeAsked(Asked):
    """Which episodes."""

    phase: Text | None = Field(None, description="before, after, now or practice.", examples=["after"])
    decoding: Literal["free", "greedy", "schema"] | None = None
    split: Text | None = Field(None, examples=["held_out"])
    task: Text | None = Field(None, description="A task's id.", examples=["held_out-0"])
    name: Text | None = Field(None, description="What its run called it.", examples=["held_out-0"])
    step: int | None = Field(None, ge=0, lt=10**9, description="Of practice.")
    solved: bool | None = None
    failed: bool | None = Field(
        None, description="Only those with a call that failed, or only those without."
    )
    stopped: bool | None = Field(
        None, description="Only those in which the guard stopped an action, or the others."
    )


def routes(store: Store) -> APIRouter:
    """A list, newest first, and one with its steps."""
    router = APIRouter()

    @router.get("")
    def list_run_episodes(run_id: RunId, asked: Annotated[EpisodeAsked, Query()]) -> EpisodePage:
        """List episodes of a run that practised or evaluated agents, the one that was begun last first."""
        path, _ = here.opened(store, run_id)
        wanted = asked.model_dump(exclude={"limit", "cursor"}, exclude_none=True)
        return episodes.listed(path / "traces", wanted, of=run_id, limit=asked.limit, cursor=asked.cursor)

    @router.get("/{episode_id}")
    def get_run_episode(
        run_id: RunId,
        episode_id: Annotated[EpisodeId, Path(description="An episode's id.", examples=["after-held_out:0"])],
        asked: Annotated[StepAsked, Query()],
    ) -> EpisodeDetail:
        """One episode, step by step; at most 16 MB of its trace are read for one answer."""
        path, _ = here.opened(store, run_id)
        return episodes.one(path / "traces", episode_id, limit=asked.limit, cursor=asked.cursor)

    return router
