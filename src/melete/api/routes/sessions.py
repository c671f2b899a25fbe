"""Sessions: one attempt at one task by one variant, with its outcome."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from melete.api.store import PLAIN, Asked, Listed, Seconds, Store, Text
from melete.gateway.listings import SESSIONS
from melete.records import SessionState

SessionId = Annotated[
    str,
    Path(
        max_length=60, pattern=PLAIN, description="A session's id.", examples=["s-261120-190000-0a1b2c3d4e"]
    ),
]
Kind = Literal["gateway", "rollout"]


class Session(BaseModel):
    """One session. Times are seconds since the epoch; entities are ids, `name@digest`."""

    id: str = Field(examples=["s-261120-190000-0a1b2c3d4e"])
    kind: str = Field(description="gateway (through the proxy) or rollout (played by our own agents).")
    state: SessionState
    experiment: str | None
    variant: str | None = Field(examples=["small@5f0c1d2e3a4b"])
    task_card: str | None
    attempt: int = Field(description="Repeat number, from 0.")
    harness_profile: str | None
    provider: str | None
    model: str | None = Field(description="The model name that is asked for.")
    created_s: float
    started_s: float | None
    ended_s: float | None
    expires_s: float | None
    first_request_s: float | None
    last_request_s: float | None
    solved: bool | None = Field(description="Null where nobody has said.")
    score: float | None
    outcome_source: str | None = Field(description="manual, checker or harness.")
    outcome_note: str | None
    metadata: dict[str, Any] = Field(
        description="Repository, commit, host, versions, what the harness said of itself."
    )
    content: bool = Field(description="Whether prompts and answers may be kept.")


class SessionAsked(Asked):
    """Which sessions."""

    kind: Kind | None = None
    state: SessionState | None = None
    experiment: Text | None = Field(None, description="Name (all its texts) or id.", examples=["trial"])
    variant: Text | None = Field(None, description="Name (all its texts) or id.", examples=["small"])
    task_card: Text | None = Field(
        None, description="Name (all its texts) or id.", examples=["customer_support/held_out-0-0"]
    )
    harness_profile: Text | None = Field(
        None, description="Name (all its texts) or id.", examples=["melete_agent"]
    )
    provider: Text | None = Field(None, description="Name (all its texts) or id.", examples=["local"])
    model: Text | None = Field(None, description="The model name that is asked for.", examples=["small"])
    attempt: int | None = Field(None, ge=0, le=1_000_000, examples=[0])
    solved: bool | None = None
    since_s: Seconds | None = Field(None, description="Created at or after this time.")
    until_s: Seconds | None = Field(None, description="Created before this time.")


def routes(store: Store) -> APIRouter:
    """A list, newest first, and one by its id."""
    router = APIRouter()

    @router.get("")
    def list_sessions(asked: Annotated[SessionAsked, Query()]) -> Listed[Session]:
        """List sessions, newest first."""
        return store.page(SESSIONS, asked, Session)

    @router.get("/{session_id}")
    def get_session(session_id: SessionId) -> Session:
        """One session."""
        return store.one(SESSIONS, {"id": session_id}, Session)

    return router
