"""The audit log: who changed what, and who tried to; for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from melete.api.store import Asked, Listed, Seconds, Store, Text
from melete.gateway.queries import Listing
from melete.store.audit import AUDIT

ENTRIES = Listing(
    "audit entry",
    AUDIT,
    ("id",),
    {
        "who": lambda _, value: AUDIT.c.who == value,
        "action": lambda _, value: AUDIT.c.action == value,
        "since_s": lambda _, value: AUDIT.c.time_s >= value,
        "until_s": lambda _, value: AUDIT.c.time_s < value,
    },
    most_scanned=20_000,
)


class AuditEntry(BaseModel):
    """One change that somebody made or tried to make, or a sign-in."""

    id: int
    time_s: float = Field(description="Seconds since the epoch.")
    who: str = Field(description="Name of the token; empty where nobody was recognised.", examples=["laptop"])
    role: str
    via: str = Field(description="`bearer`, `cookie`, `local` or `command`.")
    address: str
    method: str
    path: str
    status: int = Field(description="HTTP status of the answer; 0 for the command line.")
    action: str = Field(examples=["job.stop"])
    target: str = Field(description="Id of what was changed; empty if there is none.")


class AuditAsked(Asked):
    """Which entries."""

    who: Text | None = Field(None, description="Name of a token.", examples=["laptop"])
    action: Text | None = Field(None, examples=["job.stop"])
    since_s: Seconds | None = None
    until_s: Seconds | None = None


def routes(store: Store) -> APIRouter:
    """A list, newest first."""
    router = APIRouter()

    @router.get("")
    def list_audit(asked: Annotated[AuditAsked, Query()]) -> Listed[AuditEntry]:
        """List changes and sign-ins, newest first."""
        return store.page(ENTRIES, asked, AuditEntry)

    return router
