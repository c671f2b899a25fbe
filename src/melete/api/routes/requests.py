"""Requests: every call of a model that passed the gateway or a rollout, one row each, and the events behind it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, field_validator

from melete.api.store import PLAIN, Asked, Listed, Seconds, Store, Text
from melete.gateway.listings import EVENTS, REQUESTS

RequestId = Annotated[
    str,
    Path(
        max_length=60, pattern=PLAIN, description="A request's id.", examples=["s-261120-190000-0a1b2c3d4e.0"]
    ),
]
Status = Literal["ok", "error", "client_abort", "cache_hit", "interrupted", "refused"]
Endpoint = Literal["chat", "responses", "messages"]


class Request(BaseModel):
    """One call of a model. Times are seconds since the epoch, durations milliseconds; null is not known."""

    id: str = Field(description="Made by our hook or recorder, never by a client.")
    session_id: str | None = Field(description="Null for refused traffic without a session.")
    source: str = Field(
        description="Who saw it: hook, rollout, spend_logs; joined by commas.", examples=["hook"]
    )
    call_id: str | None = Field(description="LiteLLM's id, which a client can set.")
    endpoint: str | None = Field(examples=["chat"])
    stream: bool | None
    model_asked: str | None
    model_answered: str | None
    deployment: str | None
    provider: str | None
    status: str = Field(examples=["ok"])
    error_class: str | None = Field(examples=["rate_limit"])
    http_status: int | None
    attempts: int
    started_s: float
    ended_s: float | None
    latency_ms: float | None
    ttft_ms: float | None = Field(description="To the first content token.")
    first_chunk_ms: float | None
    gap_p50_ms: float | None = Field(description="Between content chunks.")
    gap_p95_ms: float | None
    gap_max_ms: float | None
    tokens_in: int | None
    tokens_cached: int | None = Field(description="Of tokens_in, read from the provider's cache.")
    tokens_cache_write: int | None
    tokens_out: int | None
    tokens_reasoning: int | None = Field(description="Of tokens_out.")
    tokens_estimated: bool | None
    cost_usd: float | None
    cost_source: str | None = Field(description="Where the price comes from.")
    upstream_request_id: str | None
    overhead_ms: float | None = Field(description="Time that the gateway itself took.")
    tool_calls: int | None
    finish_reason: str | None
    changed: list[str] | None = Field(description="Parameters of the client that were stripped.")
    client: str | None


class RequestAsked(Asked):
    """Which requests."""

    session: Text | None = Field(None, description="A session's id.", examples=["s-261120-190000-0a1b2c3d4e"])
    variant: Text | None = Field(None, description="Name (all its texts) or id.", examples=["small"])
    experiment: Text | None = Field(None, description="Name (all its texts) or id.", examples=["trial"])
    model: Text | None = Field(None, description="The model name that was asked for.", examples=["small"])
    provider: Text | None = Field(None, examples=["local"])
    endpoint: Endpoint | None = None
    stream: bool | None = None
    status: Status | None = None
    error_class: Text | None = Field(None, examples=["rate_limit"])
    since_s: Seconds | None = Field(None, description="Began at or after this time.")
    until_s: Seconds | None = Field(None, description="Began before this time.")


class Event(BaseModel):
    """One thing that a source said of a request."""

    request_id: str
    id: str
    kind: str = Field(description="begin, attempt, end or refused.", examples=["end"])
    session_id: str | None
    time_s: float
    writer: str = Field(description="host:pid:start time of the process that wrote it.")
    fields: dict[str, Any] = Field(description="Allow-listed figures and words; never a prompt or an answer.")

    @field_validator("fields", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value


class EventAsked(Asked):
    """Which events: all of the request."""


def routes(store: Store) -> APIRouter:
    """A list, newest first, one by its id, and its events."""
    router = APIRouter()

    @router.get("")
    def list_requests(asked: Annotated[RequestAsked, Query()]) -> Listed[Request]:
        """List requests, newest first; at most 20,000 are looked through for one page."""
        return store.page(REQUESTS, asked, Request)

    @router.get("/{request_id}")
    def get_request(request_id: RequestId) -> Request:
        """One request."""
        return store.one(REQUESTS, {"id": request_id}, Request)

    @router.get("/{request_id}/events")
    def list_request_events(request_id: RequestId, asked: Annotated[EventAsked, Query()]) -> Listed[Event]:
        """What the sources said of a request, oldest first."""
        return store.page(EVENTS, asked, Event, request=request_id)

    return router
