"""Credentials in our own database: the hook reads them for each request, so a revoked one stops at once.

The clear key leaves this function once and is written nowhere; the table holds its SHA-256.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Engine, Table, select, update

from melete.errors import SessionError, UnknownNameError
from melete.gateway.issuers import Credential, Policy, key_hash, new_key
from melete.store.models import CredentialRow, SessionRow

SESSIONS: Table = SessionRow.__table__  # type: ignore[assignment]
CREDENTIALS: Table = CredentialRow.__table__  # type: ignore[assignment]
OPEN_STATES = ("created", "live")


class EmbeddedIssuer:
    """Issues into the database of an engine."""

    name = "embedded"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def issue(
        self, session: str, models: Sequence[str], expires_s: float, policy: Policy | None = None
    ) -> Credential:
        """A new credential for a session; see `Issuer.issue`.

        Raises:
            UnknownNameError: there is no such session.
            SessionError: it is over.
        """
        key = new_key()
        credential = Credential(key, key_hash(key), session, expires_s)
        with self._engine.begin() as connection:
            state = connection.scalar(select(SESSIONS.c.state).where(SESSIONS.c.id == session))
            if state is None:
                raise UnknownNameError(
                    "session", session, [], next_step="A session is opened before its key."
                )
            if state not in OPEN_STATES:
                raise SessionError(
                    f"The session {session} is {state}, so it gets no key.",
                    next_step="Start a new one with: melete bench session start",
                )
            connection.execute(
                CREDENTIALS.insert().values(
                    key_hash=credential.key_hash,
                    session_id=session,
                    alias=credential.alias,
                    issuer=self.name,
                    models=list(models),
                    policy=(policy or Policy()).document(),
                    created_s=time.time(),
                    expires_s=expires_s,
                )
            )
        return credential

    def revoke(self, session: str) -> int:
        """Makes every credential of a session useless at once; how many still worked."""
        alive = (CREDENTIALS.c.session_id == session) & CREDENTIALS.c.revoked_s.is_(None)
        with self._engine.begin() as connection:
            return connection.execute(update(CREDENTIALS).where(alive).values(revoked_s=time.time())).rowcount
