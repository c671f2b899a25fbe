"""Episodes of a run: what agents proposed, what the guard made of it, what was done, answered and rewarded."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from melete.api import episodes, here
from melete.api.episode_records import EpisodeDetail, EpisodePage
from melete.api.episodes import EpisodeAsked, EpisodeId, StepAsked
from melete.api.here import RunId
from melete.api.store import Store


def routes(store: Store) -> APIRouter:
    """A list, newest first, and one with its steps."""
    router = APIRouter()

    @router.get("")
    def list_run_episodes(run_id: RunId, asked: Annotated[EpisodeAsked, Query()]) -> EpisodePage:
        """List episodes of a run that practised or evaluated agents, the one that was begun last first."""
        path, _ = here.opened(store, run_id)
        return episodes.listed(path / "traces", asked, of=run_id)

    @router.get("/{episode_id}")
    def get_run_episode(
        run_id: RunId,
        episode_id: EpisodeId,
        asked: Annotated[StepAsked, Query()],
    ) -> EpisodeDetail:
        """One episode, step by step; at most 16 MB of its trace are read for one answer."""
        path, _ = here.opened(store, run_id)
        return episodes.one(path / "traces", episode_id, asked)

    return router
