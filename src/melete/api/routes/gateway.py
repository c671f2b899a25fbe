"""Gateway: whether the proxy that sessions send their requests through is up, and where."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from melete.api.clean import text
from melete.api.store import Store
from melete.gateway import state as states


class Gateway(BaseModel):
    """The gateway of this home, as its supervisor tells it; never a key."""

    up: bool = Field(description="Whether requests are answered now.")
    state: str = Field(description="starting, up, restarting, stopping, down or failed.", examples=["up"])
    url: str | None = Field(description="Address for clients on this machine.")
    since_s: float | None
    version: str | None = Field(description="Of LiteLLM.")
    models: list[str] = Field(description="Model names that may be asked for.")
    providers: list[str]
    restarts: int
    trouble: str | None = Field(description="What is wrong, where something is.")


class GatewayAsked(BaseModel):
    """Nothing can be asked of it."""

    model_config = ConfigDict(extra="forbid")


def routes(store: Store) -> APIRouter:
    """One answer."""
    router = APIRouter()

    @router.get("")
    def get_gateway(asked: Annotated[GatewayAsked, Query()]) -> Gateway:
        """Whether the gateway is up; one whose process is gone is down, whatever its file says."""
        known = states.alive(store.settings)
        if known is None:
            return Gateway(
                up=False, state="down", url=None, since_s=None, version=None, models=[], providers=[], restarts=0,
                trouble=None,
            )  # fmt: skip
        return Gateway(
            up=known.state == "up",
            state=known.state,
            url=known.url,
            since_s=known.started_s,
            version=known.version,
            models=[text(name, 200) for name in known.models[:1_000]],
            providers=[text(name, 200) for name in list(known.providers)[:200]],
            restarts=known.restarts,
            trouble=text(known.trouble, 1_000) if known.trouble else None,
        )

    return router
