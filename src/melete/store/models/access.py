"""Who may use the lab, and what they changed: named tokens, sign-ins of browsers, the audit log.

Of a token and of a sign-in only the sha256 is kept; the secret is shown once. A sign-in names the hash of the token
that it was made with and is worth nothing without it. The audit log holds no bodies and no secrets.
"""

from __future__ import annotations

from sqlalchemy import Float, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from melete.store.models._model import Model


class AccessTokenRow(Model):
    """A named token; a name is free again when its token is revoked."""

    __tablename__ = "access_token"
    __table_args__ = (
        Index(
            "access_token_by_name",
            "name",
            unique=True,
            sqlite_where=text("revoked_s IS NULL"),
            postgresql_where=text("revoked_s IS NULL"),
        ),
        Index("access_token_by_hash", "token_hash", unique=True),
    )

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    role: Mapped[str] = mapped_column(String(10), doc="see melete.access.Role")
    token_hash: Mapped[str] = mapped_column(String(64), doc="sha256 hex of the whole mlt_… token")
    prefix: Mapped[str] = mapped_column(String(12), doc="its first characters, to recognise it by")
    created_s: Mapped[float] = mapped_column(Float(53))
    created_by: Mapped[str] = mapped_column(String(80))
    last_used_s: Mapped[float | None] = mapped_column(Float(53), doc="written once a minute at most")
    expires_s: Mapped[float | None] = mapped_column(Float(53))
    revoked_s: Mapped[float | None] = mapped_column(Float(53))


class SignInRow(Model):
    """A browser that has signed in, known by the hash of its cookie."""

    __tablename__ = "access_sign_in"
    __table_args__ = (
        Index("access_sign_in_by_hash", "cookie_hash", unique=True),
        Index("access_sign_in_by_token", "token_hash"),
    )

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    cookie_hash: Mapped[str] = mapped_column(String(64))
    token_hash: Mapped[str] = mapped_column(String(64), doc="of the token, of MELETE_TOKEN, or `link`")
    created_s: Mapped[float] = mapped_column(Float(53))
    last_seen_s: Mapped[float] = mapped_column(Float(53), doc="written once a minute at most")
    expires_s: Mapped[float] = mapped_column(Float(53))
    address: Mapped[str] = mapped_column(String(60))
    browser: Mapped[str] = mapped_column(String(200), doc="what it calls itself")


class AuditRow(Model):
    """One change that somebody made or tried to make, or a sign-in."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_by_action", "action", "id"), Index("audit_by_who", "who", "id"))

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    time_s: Mapped[float] = mapped_column(Float(53))
    who: Mapped[str] = mapped_column(String(80))
    role: Mapped[str] = mapped_column(String(10), doc="empty where nobody was recognised")
    via: Mapped[str] = mapped_column(String(10))
    address: Mapped[str] = mapped_column(String(60))
    method: Mapped[str] = mapped_column(String(10))
    path: Mapped[str] = mapped_column(Text, doc="without the query, cut")
    status: Mapped[int] = mapped_column(Integer)
    action: Mapped[str] = mapped_column(String(60), doc="in words, such as job.stop")
    target: Mapped[str] = mapped_column(String(200), doc="id of what was changed; empty if there is none")
