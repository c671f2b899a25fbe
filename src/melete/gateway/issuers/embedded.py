"""Credentials in our own database: the hook reads them for each request, so a revoked one stops at once.

The clear key leaves this function once and is written nowhere; the table holds its SHA-256.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import Engine

from melete.gateway import sessions
from melete.gateway.issuers import Credential, Policy, key_hash, new_key
from melete.gateway.issuers._rows import keep


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
            keep(connection, self.name, session, credential, models, policy or Policy())
        return credential

    def revoke(self, session: str) -> int:
        """Makes every credential of a session useless at once; how many still worked."""
        with self._engine.begin() as connection:
            return sessions.revoke(connection, [session], time.time())
