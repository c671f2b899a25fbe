"""Tokens: who may use this lab, and the browsers that have signed in; for admins."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from melete.access import Role, who_of
from melete.api import paging
from melete.api.store import PLAIN, Asked, Listed, Store
from melete.errors import UnknownNameError
from melete.store import tokens

TokenId = Annotated[
    str, Path(max_length=80, pattern=PLAIN, description="A token's id or name.", examples=["laptop"])
]
SignInId = Annotated[
    str,
    Path(
        max_length=20, pattern=r"^[0-9a-f]+$", description="Id of a sign-in.", examples=["9d2f4e61a7c0b835"]
    ),
]


class AccessToken(BaseModel):
    """A named token, without its secret. Times are seconds since the epoch."""

    id: str = Field(examples=["5f0c9a1be27d4430"])
    name: str = Field(examples=["laptop"])
    role: Role
    prefix: str = Field(description="Its first characters.", examples=["mlt_Xk2a"])
    created_s: float
    created_by: str = Field(description="Name of the token that made it.")
    last_used_s: float | None = Field(description="To a minute.")
    expires_s: float | None


class NewToken(BaseModel):
    """What a token is to be."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "laptop", "role": "read"}]}
    )

    name: str = Field(min_length=1, max_length=80, pattern=PLAIN)
    role: Role
    days: float | None = Field(None, gt=0, le=36_500, description="Days until it ends; null is never.")


class MadeToken(AccessToken):
    """A new token. The secret is in this answer and nowhere else."""

    token: str = Field(description="The secret.", examples=["mlt_…"])


class BrowserSignIn(BaseModel):
    """A browser that has signed in. Times are seconds since the epoch."""

    id: str = Field(examples=["9d2f4e61a7c0b835"])
    token: str = Field(description="Name of the token that it signed in with; `environment` is MELETE_TOKEN.")
    created_s: float
    last_seen_s: float = Field(description="To a minute.")
    expires_s: float = Field(description="Unless it is used before.")
    address: str
    browser: str = Field(description="What it calls itself.")


def routes(store: Store) -> APIRouter:
    """Lists, making one, ending one."""
    router = APIRouter()

    @router.get("")
    def list_tokens(asked: Annotated[Asked, Query()]) -> Listed[AccessToken]:
        """List the tokens that have not been revoked, by name."""
        with store.read() as connection:
            found = [AccessToken(**token.__dict__) for token in tokens.listed(connection)]
        return paging.page(found, lambda one: one.name, of="tokens", limit=asked.limit, cursor=asked.cursor)

    @router.post("", status_code=201)
    def create_token(wanted: NewToken, request: Request) -> MadeToken:
        """Make a token; its secret is shown this once."""
        request.state.changed = wanted.name
        with store.keep() as connection:
            made, secret = tokens.make(
                connection,
                wanted.name,
                wanted.role,
                by=who_of(request.scope).name,
                now_s=time.time(),
                days=wanted.days,
            )
        return MadeToken(**made.__dict__, token=secret)

    @router.get("/sign-ins")
    def list_sign_ins(asked: Annotated[Asked, Query()]) -> Listed[BrowserSignIn]:
        """List the browsers that have signed in and are not signed out."""
        with store.read() as connection:
            names = tokens.names_by_hash(connection)
            found = [
                BrowserSignIn(**{**one.__dict__, "token": names.get(one.token_hash, "environment")})
                for one in tokens.sign_ins(connection, time.time())
            ]
        return paging.page(found, lambda one: one.id, of="sign-ins", limit=asked.limit, cursor=asked.cursor)

    @router.delete("/sign-ins/{sign_in_id}", status_code=204)
    def end_sign_in(sign_in_id: SignInId) -> Response:
        """Sign a browser out."""
        with store.keep() as connection:
            if not tokens.sign_out(connection, sign_in_id):
                known = [one.id for one in tokens.sign_ins(connection, time.time())]
                raise UnknownNameError("sign-in", sign_in_id, known)
        return Response(status_code=204)

    @router.delete("/{token_id}", status_code=204)
    def revoke_token(token_id: TokenId) -> Response:
        """Revoke a token; browsers that signed in with it are signed out."""
        with store.keep() as connection:
            tokens.revoke(connection, tokens.named(connection, token_id), time.time())
        return Response(status_code=204)

    return router
