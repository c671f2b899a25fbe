"""Which secrets open the lab: `MELETE_TOKEN`, the named tokens of the database, cookies of signed-in browsers.

What the database says is believed for one second, so that a busy page costs it one question a second, and a revoked
token opens nothing a second later. While the database is away, `MELETE_TOKEN` works on. Methods that ask the database
block and are for a thread; the gate calls them so.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from melete.access import Role, Via, Who
from melete.errors import StorageError
from melete.store import audit, database, tokens

BELIEVED_S = 1.0
MOST_BELIEVED = 1_024
LINK_S = 15 * 60.0
ENVIRONMENT = "environment"
TERMINAL = "terminal"


class Keyring:
    """Looks secrets up.

    Args:
        token: `MELETE_TOKEN`; None if it is not set.
        url: of the database with the named tokens; None knows none, and signs no browser in.
        clock: seconds since the epoch.
    """

    def __init__(self, token: str | None, url: str | None, clock: Callable[[], float]) -> None:
        self.token = token
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._believed: dict[str, tuple[Who | None, float]] = {}
        self._turn = 0
        self._asks: tuple[bool, float] = (False, 0.0)
        self._link: tuple[str, float] | None = None

    @property
    def named(self) -> bool:
        """Whether there can be named tokens, and so sign-ins and an audit log."""
        return self._url is not None

    def believed(self, secret: str, via: Via) -> tuple[bool, Who | None]:
        """Whether a secret was looked up just now, and whose it was; asks nobody, and knows `MELETE_TOKEN`."""
        if via == "bearer" and not secret.startswith(tokens.PREFIX) and self.is_environment(secret):
            return True, Who(ENVIRONMENT, Role.ADMIN, via)
        found = self._believed.get(f"{via}:{tokens.hashed(secret)}")
        if found is None or found[1] <= self._clock():
            return False, None
        return True, found[0]

    def look_up(self, secret: str, via: Via) -> Who | None:
        """Whose a token or the cookie of a sign-in is; None if it opens nothing.

        Raises:
            StorageError: the database cannot be asked.
        """
        if not self.named:
            return Who(ENVIRONMENT, Role.ADMIN, via) if self.is_environment(secret) else None
        turn = self._turn
        with self._connected() as connection:
            who = self._whose_cookie(connection, secret) if via == "cookie" else None
            if via == "bearer":
                who = self._whose(connection, tokens.hashed(secret), via)
        with self._lock:
            if len(self._believed) >= MOST_BELIEVED:
                self._believed.clear()
            if turn == self._turn:  # what was read before a change is not believed after it
                self._believed[f"{via}:{tokens.hashed(secret)}"] = (who, self._clock() + BELIEVED_S)
        return who

    def forget(self) -> None:
        """Believes nothing any more: tokens or sign-ins have just been changed."""
        with self._lock:
            self._believed.clear()
            self._turn += 1
            self._asks = (self._asks[0], 0.0)

    def is_environment(self, secret: str) -> bool:
        """Whether a secret is `MELETE_TOKEN`; takes a time that does not tell where it differs."""
        return self.token is not None and same(secret, self.token)

    def asks(self) -> bool | None:
        """Whether a token is asked for on this machine too; None if the database has to be asked first."""
        if self.token is not None:
            return True
        if not self.named:
            return False
        found, until_s = self._asks
        return found if self._clock() < until_s else None

    def look_whether_it_asks(self) -> bool:
        """Asks the database whether any token has been made.

        Raises:
            StorageError: the database cannot be asked.
        """
        with self._connected() as connection:
            found = tokens.any_live(connection, self._clock())
        self._asks = (found, self._clock() + BELIEVED_S)
        return found

    def new_link(self) -> str:
        """A secret that signs one browser in, once, within 15 minutes."""
        code = secrets.token_urlsafe(24)
        self._link = (code, self._clock() + LINK_S)
        return code

    def sign_in(self, secret: str, address: str, browser: str) -> tuple[Who, str] | None:
        """Signs a browser in with a token, or with the link; None if the secret is wrong.

        Returns:
            Who it is, and what the cookie is to hold.

        Raises:
            StorageError: the database cannot be asked.
        """
        with self._connected() as connection:
            if self._takes_link(secret):
                who, token_hash = Who(TERMINAL, Role.ADMIN, "cookie"), tokens.LINK
            else:
                token_hash = tokens.hashed(secret)
                found = self._whose(connection, token_hash, "cookie")
                if found is None:
                    return None
                who = found
            _, cookie = tokens.begin(
                connection, token_hash, address=address, browser=browser, now_s=self._clock()
            )
        return who, cookie

    def sign_out(self, cookie: str) -> None:
        """Ends the sign-in of a cookie.

        Raises:
            StorageError: the database cannot be asked.
        """
        with self._connected() as connection:
            found = tokens.signed_in(connection, cookie, self._clock())
            if found is not None:
                tokens.sign_out(connection, found.id)
        self.forget()

    def write(self, entry: audit.Entry) -> None:
        """Adds to the audit log.

        Raises:
            StorageError: the database cannot be written.
        """
        with self._connected() as connection:
            audit.write(connection, entry)

    def _whose_cookie(self, connection: Connection, cookie: str) -> Who | None:
        found = tokens.signed_in(connection, cookie, self._clock())
        if found is None:
            return None
        if found.token_hash == tokens.LINK:
            return Who(TERMINAL, Role.ADMIN, "cookie")
        return self._whose(connection, found.token_hash, "cookie")

    def _whose(self, connection: Connection, token_hash: str, via: Via) -> Who | None:
        """Whose token has a hash. A named token is only ever what its row says, even as `MELETE_TOKEN`."""
        token = tokens.by_hash(connection, token_hash)
        if token is None:
            known = self.token is not None and same(token_hash, tokens.hashed(self.token))
            return Who(ENVIRONMENT, Role.ADMIN, via) if known else None
        if not token.live(self._clock()):
            return None
        tokens.used(connection, token, self._clock())
        return Who(token.name, Role(token.role), via, token.id)

    def _takes_link(self, secret: str) -> bool:
        with self._lock:
            if self._link is None or not same(secret, self._link[0]):
                return False
            good = self._clock() < self._link[1]
            self._link = None
            return good

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        assert self._url is not None, "a keyring without a database was asked for a named token"
        try:
            with self._lock:
                if self._engine is None:
                    with database.connect(self._url):
                        pass  # brings the schema to the newest revision
                    self._engine = database.open_engine(self._url)
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StorageError(
                f"The database cannot be asked who may pass ({type(error).__name__}).",
                next_step="Try again in a moment; MELETE_TOKEN, if it is set, works meanwhile.",
            ) from error


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))
