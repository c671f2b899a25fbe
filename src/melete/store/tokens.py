"""Named tokens and the sign-ins of browsers: made, looked up by hash, revoked; the secrets themselves are never kept.

A token is `mlt_` and 32 random characters (192 bits), shown once when it is made. A sign-in lasts 14 days from its last
use and belongs to the token it was made with: whoever revokes the token ends its sign-ins. Times of use are written
once a minute at most, and not being able to write them stops nobody.
"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from melete.errors import ConfigError, UnknownNameError
from melete.store import audit
from melete.store.models import AccessTokenRow, SignInRow, table

PREFIX = "mlt_"
SHOWN = 8
"""Characters of a token that its row keeps in clear."""
DAY_S = 86_400.0
SIGN_IN_S = 14 * DAY_S
MOST_SIGN_INS = 1_000
WRITTEN_EVERY_S = 60.0
COMMAND = "command"
"""Who makes and revokes tokens on the command line."""
LINK = "link"
"""In place of a token's hash: signed in by the link that the server shows on the terminal it was started from."""
TOKEN = table(AccessTokenRow)
SIGN_IN = table(SignInRow)


@dataclass(frozen=True)
class Token:
    """A named token, without its secret. Times are seconds since the epoch.

    Args:
        id: of the token.
        name: unique among those that are not revoked.
        role: what it opens; see `melete.access.Role`.
        prefix: its first characters.
        created_s: when it was made.
        created_by: name of the token that made it; `command` for the command line.
        last_used_s: to a minute; None if it never was.
        expires_s: None for never.
        revoked_s: None if it is not.
    """

    id: str
    name: str
    role: str
    prefix: str
    created_s: float
    created_by: str
    last_used_s: float | None
    expires_s: float | None
    revoked_s: float | None

    def live(self, now_s: float) -> bool:
        """Whether it opens anything now."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)


@dataclass(frozen=True)
class SignIn:
    """A browser that has signed in.

    Args:
        id: of the sign-in; not what its cookie holds.
        token_hash: of the token it was made with, or `LINK`.
        created_s: when.
        last_seen_s: to a minute.
        expires_s: unless it is used before.
        address: from where.
        browser: what it called itself.
    """

    id: str
    token_hash: str
    created_s: float
    last_seen_s: float
    expires_s: float
    address: str
    browser: str


def hashed(secret: str) -> str:
    """What is kept of a secret. Secrets of ours have 192 random bits, so a quick hash gives nothing away."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def make(
    connection: Connection, name: str, role: str, *, by: str, now_s: float, days: float | None = None
) -> tuple[Token, str]:
    """Makes a token.

    Args:
        connection: a transaction.
        name: 1 to 80 printable characters, not in use by a token that is not revoked.
        role: what it opens.
        by: who makes it.
        now_s: seconds since the epoch.
        days: after which it ends; None is never.

    Returns:
        The token, and its secret, which is known to nobody else from now on.

    Raises:
        ConfigError: a name that is none or taken, or a number of days that is not above 0.
    """
    if not name.strip() or len(name) > 80 or not name.isprintable():
        raise ConfigError(
            f"{name[:100]!r} is not a name for a token.", allowed="Allowed: 1 to 80 printable characters."
        )
    if days is not None and not 0 < days <= 36_500:
        raise ConfigError(f"days is {days:g}.", allowed="Allowed: above 0, at most 36500.")
    secret = PREFIX + secrets.token_urlsafe(24)
    expires_s = now_s + days * DAY_S if days is not None else None
    found = Token(
        secrets.token_hex(8), name.strip(), role, secret[:SHOWN], now_s, by[:80], None, expires_s, None
    )
    connection.execute(
        update(TOKEN)
        .where(TOKEN.c.name == found.name, TOKEN.c.revoked_s.is_(None), TOKEN.c.expires_s <= now_s)
        .values(revoked_s=now_s)
    )
    try:
        with connection.begin_nested():
            connection.execute(
                insert(TOKEN).values(
                    id=found.id,
                    name=found.name,
                    role=str(role),
                    token_hash=hashed(secret),
                    prefix=found.prefix,
                    created_s=now_s,
                    created_by=found.created_by,
                    expires_s=expires_s,
                )
            )
    except IntegrityError as error:
        raise ConfigError(
            f"There is a token named {found.name!r} already.",
            next_step=f"Choose another name, or end that one: melete token revoke {found.name!r}",
        ) from error
    return found, secret


def listed(connection: Connection, *, revoked: bool = False) -> list[Token]:
    """All tokens by name; with `revoked`, those that are no longer good too."""
    query = select(TOKEN).order_by(TOKEN.c.name, TOKEN.c.created_s)
    return [
        _token(row)
        for row in connection.execute(query if revoked else query.where(TOKEN.c.revoked_s.is_(None)))
    ]


def names_by_hash(connection: Connection) -> dict[str, str]:
    """Hash to name of the tokens that are not revoked, and of the link."""
    query = select(TOKEN.c.token_hash, TOKEN.c.name).where(TOKEN.c.revoked_s.is_(None))
    return {LINK: "terminal", **{row.token_hash: row.name for row in connection.execute(query)}}


def any_live(connection: Connection, now_s: float) -> bool:
    """Whether any token opens anything now."""
    return any(token.live(now_s) for token in listed(connection))


def named(connection: Connection, name: str) -> Token:
    """The token of a name or an id that is not revoked.

    Raises:
        UnknownNameError: there is none.
    """
    known = listed(connection)
    for token in known:
        if name in (token.name, token.id):
            return token
    raise UnknownNameError("token", name, [token.name for token in known])


def revoke(connection: Connection, token: Token, now_s: float) -> int:
    """Ends a token and the sign-ins that were made with it.

    Returns:
        How many browsers are signed out by this.
    """
    where = TOKEN.c.id == token.id
    token_hash = connection.execute(select(TOKEN.c.token_hash).where(where)).scalar_one()
    connection.execute(update(TOKEN).where(where).values(revoked_s=now_s))
    return connection.execute(delete(SIGN_IN).where(SIGN_IN.c.token_hash == token_hash)).rowcount


def write_down(connection: Connection, action: str, name: str, now_s: float) -> None:
    """Adds what the command line did with a token to the audit log."""
    entry = audit.Entry(now_s, COMMAND, "admin", COMMAND, "", "", "", 0, action, name)
    audit.write(connection, entry)


def by_hash(connection: Connection, token_hash: str) -> Token | None:
    """The token of a hash, also one that is revoked or has ended."""
    row = connection.execute(select(TOKEN).where(TOKEN.c.token_hash == token_hash)).first()
    return None if row is None else _token(row)


def used(connection: Connection, token: Token, now_s: float) -> None:
    """Writes down that a token was used now, once a minute at most."""
    if token.last_used_s is None or token.last_used_s <= now_s - WRITTEN_EVERY_S:
        with suppress(SQLAlchemyError), connection.begin_nested():
            connection.execute(update(TOKEN).where(TOKEN.c.id == token.id).values(last_used_s=now_s))


def begin(
    connection: Connection,
    token_hash: str,
    *,
    address: str,
    browser: str,
    now_s: float,
    most: int = MOST_SIGN_INS,
) -> tuple[SignIn, str]:
    """Signs a browser in; of too many sign-ins those that were not used for longest end.

    Returns:
        The sign-in, and what its cookie is to hold.
    """
    connection.execute(delete(SIGN_IN).where(SIGN_IN.c.expires_s <= now_s))
    oldest = select(SIGN_IN.c.id).order_by(SIGN_IN.c.last_seen_s.desc()).offset(most - 1).limit(most)
    connection.execute(delete(SIGN_IN).where(SIGN_IN.c.id.in_(oldest)))
    cookie = secrets.token_urlsafe(32)
    browser = "".join(letter for letter in browser if letter.isprintable())[:200]
    found = SignIn(secrets.token_hex(8), token_hash, now_s, now_s, now_s + SIGN_IN_S, address[:60], browser)
    connection.execute(insert(SIGN_IN).values(**found.__dict__, cookie_hash=hashed(cookie)))
    return found, cookie


def signed_in(connection: Connection, cookie: str, now_s: float) -> SignIn | None:
    """The sign-in of a cookie, which lasts longer by this; None if there is none or it has ended.

    Whether its token is still good is for the caller to look at.
    """
    row = connection.execute(select(SIGN_IN).where(SIGN_IN.c.cookie_hash == hashed(cookie))).first()
    if row is None or row.expires_s <= now_s:
        return None
    if row.last_seen_s <= now_s - WRITTEN_EVERY_S:
        with suppress(SQLAlchemyError), connection.begin_nested():
            connection.execute(
                update(SIGN_IN)
                .where(SIGN_IN.c.id == row.id)
                .values(last_seen_s=now_s, expires_s=now_s + SIGN_IN_S)
            )
    return _sign_in(row)


def sign_ins(connection: Connection, now_s: float) -> list[SignIn]:
    """All that have not ended, the one used last first."""
    query = select(SIGN_IN).where(SIGN_IN.c.expires_s > now_s).order_by(SIGN_IN.c.last_seen_s.desc())
    return [_sign_in(row) for row in connection.execute(query)]


def sign_out(connection: Connection, sign_in_id: str) -> bool:
    """Ends a sign-in; False if there is none of that id."""
    return connection.execute(delete(SIGN_IN).where(SIGN_IN.c.id == sign_in_id)).rowcount > 0


def _token(row: Row[tuple[object, ...]]) -> Token:
    found = dict(row._mapping)
    del found["token_hash"]
    return Token(**found)


def _sign_in(row: Row[tuple[object, ...]]) -> SignIn:
    found = dict(row._mapping)
    del found["cookie_hash"]
    return SignIn(**found)
