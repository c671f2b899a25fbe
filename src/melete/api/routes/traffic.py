"""Traffic: requests, tokens and cost of sessions so far, also of those that still run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import case, func, select

from melete.api.store import PLAIN, Listed, Store
from melete.gateway.listings import REQUEST, SESSION

MOST = 100


class Traffic(BaseModel):
    """What the requests of one session add up to; sums are null where no request tells."""

    session_id: str = Field(examples=["s-261120-190000-0a1b2c3d4e"])
    requests: int
    failed: int = Field(description="Those whose status is neither ok nor a hit of the gateway's cache.")
    tokens_in: int | None
    tokens_cached: int | None
    tokens_out: int | None
    cost_usd: float | None = Field(description="Of the requests that have a price.")
    first_s: float | None
    last_s: float | None


class TrafficAsked(BaseModel):
    """Of which sessions."""

    model_config = ConfigDict(extra="forbid")

    sessions: str | None = Field(
        None,
        max_length=7_000,
        pattern=PLAIN,
        description=f"Ids joined by commas, {MOST} at most; else the newest 20.",
        examples=["s-261120-190000-0a1b2c3d4e"],
    )


def routes(store: Store) -> APIRouter:
    """A list, without pages."""
    router = APIRouter()

    @router.get("")
    def list_traffic(asked: Annotated[TrafficAsked, Query()]) -> Listed[Traffic]:
        """Traffic of some sessions; one that has sent nothing has a row of zeros."""
        good = REQUEST.c.status.in_(("ok", "cache_hit"))
        with store.read() as connection:
            ids = list(dict.fromkeys(filter(None, (asked.sessions or "").split(","))))[:MOST]
            if asked.sessions is None:
                ids = list(
                    connection.scalars(select(SESSION.c.id).order_by(SESSION.c.created_s.desc()).limit(20))
                )
            summed = (
                select(
                    REQUEST.c.session_id,
                    func.count().label("requests"),
                    func.sum(case((good, 0), else_=1)).label("failed"),
                    *(
                        func.sum(REQUEST.c[name]).label(name)
                        for name in ("tokens_in", "tokens_cached", "tokens_out")
                    ),
                    func.sum(REQUEST.c.cost_usd).label("cost_usd"),
                    func.min(REQUEST.c.started_s).label("first_s"),
                    func.max(REQUEST.c.started_s).label("last_s"),
                )
                .where(REQUEST.c.session_id.in_(ids))
                .group_by(REQUEST.c.session_id)
            )
            found = {row["session_id"]: dict(row) for row in connection.execute(summed).mappings()}
        nothing = {"requests": 0, "failed": 0, **dict.fromkeys(list(Traffic.model_fields)[3:])}
        data = [Traffic.model_validate({**nothing, "session_id": one, **found.get(one, {})}) for one in ids]
        return Listed[Traffic](object="list", data=data, next_cursor=None)

    return router
