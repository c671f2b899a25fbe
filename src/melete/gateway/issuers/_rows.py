"""Rows of the credential table, which every issuer keeps alike: a session that is open, a hash, never the key."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Connection, select

from melete.errors import SessionError, UnknownNameError
from melete.gateway.issuers import Credential, Policy
from melete.gateway.sessions import CREDENTIALS, OPEN, SESSIONS


def keep(
    connection: Connection,
    issuer: str,
    session: str,
    given: Credential,
    models: Sequence[str],
    policy: Policy,
) -> None:
    """Keeps a credential of a session that is open.

    Raises:
        UnknownNameError: there is no such session.
        SessionError: it is over.
    """
    state = connection.scalar(select(SESSIONS.c.state).where(SESSIONS.c.id == session))
    if state is None:
        raise UnknownNameError("session", session, [], next_step="A session is opened before its key.")
    if state not in OPEN:
        raise SessionError(
            f"The session {session} is {state}, so it gets no key.",
            next_step="Start a new one with: melete bench session start",
        )
    row = {
        "key_hash": given.key_hash,
        "session_id": session,
        "alias": given.alias,
        "issuer": issuer,
        "models": list(models),
        "policy": policy.document(),
        "created_s": time.time(),
        "expires_s": given.expires_s,
    }
    connection.execute(CREDENTIALS.insert().values(row))
