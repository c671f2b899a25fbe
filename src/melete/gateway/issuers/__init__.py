"""Issuers: who makes the credential of a session and takes it back; one file an issuer, its name is its id.

A credential is a key of the form `sk-…` that is shown once and kept only as its SHA-256. It is bound to one session, a
list of models and a time, and dies when the session is finalised. `embedded` keeps it in our own database, where the
hook reads it for each request; `litellm` asks a LiteLLM with a database of its own for a virtual key.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Policy:
    """What the holder of a credential may use up, and what of its traffic is kept.

    Attributes:
        content: whether prompts and answers are kept, redacted; off unless the experiment says so.
        retention_days: after how many days kept content is deleted.
        max_requests: how many requests the session may send; None for no limit.
        budget_usd: how much the session may cost; None for no limit.
    """

    content: bool = False
    retention_days: float = 14.0
    max_requests: int | None = None
    budget_usd: float | None = None

    def document(self) -> dict[str, Any]:
        """The policy as the credential table keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class Credential:
    """A key as its issuer hands it out; the clear key is in no other place and not in `repr`.

    Attributes:
        key: `sk-…`, to be shown once.
        key_hash: SHA-256 of the whole key in hexadecimal, which is what is stored.
        alias: name that may be shown and logged; the session's id.
        expires_s: when it stops working, in seconds since the epoch.
    """

    key: str = field(repr=False)
    key_hash: str
    alias: str
    expires_s: float


class Issuer(Protocol):
    """Makes and revokes credentials of sessions."""

    def issue(
        self, session: str, models: Sequence[str], expires_s: float, policy: Policy | None = None
    ) -> Credential:
        """A new credential for a session that exists.

        Args:
            session: id of the session, whose row is there already.
            models: public names that it may ask for; none means none.
            expires_s: when it stops working, in seconds since the epoch.
            policy: limits and what is kept; no limits and no content by default.

        Raises:
            SessionError: there is no such session, or it is over.
        """
        ...

    def revoke(self, session: str) -> int:
        """Makes every credential of a session useless at once; how many still worked."""
        ...


def new_key() -> str:
    """A fresh key with 256 random bits; LiteLLM hides keys in its logs only when they start with `sk-`."""
    return f"sk-{secrets.token_urlsafe(32)}"


def key_hash(key: str) -> str:
    """SHA-256 of a whole key in hexadecimal, as LiteLLM computes it too."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
