"""Who may come in: a key is looked up in our database for each request, so that a revoked one stops at once.

SQLite is read in place (some ten microseconds); PostgreSQL over one connection that is opened again when it breaks.
When the database is away, keys that were accepted in the last two minutes go on working and every other one gets 503.
Time is the wall clock, held from running backwards: setting the clock back does not bring an expired key to life.
Stdlib only, and psycopg where the database is PostgreSQL, because this runs inside LiteLLM's process.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from melete.gateway.issuers import Policy, key_hash

REMEMBERED_S = 120.0
REMEMBERED_KEYS = 10_000
WAIT_S = 2.0
KEY = re.compile(r"sk-[A-Za-z0-9_-]{16,200}")
OPEN_STATES = frozenset({"created", "live"})

CREDENTIAL = (
    "SELECT c.session_id, c.models, c.policy, c.expires_s, c.revoked_s, s.state, s.expires_s"
    " FROM credential c JOIN session s ON s.id = c.session_id WHERE c.key_hash = {}"
)
SPENT = "SELECT count(*), coalesce(sum(cost_usd), 0) FROM request WHERE session_id = {}"


class Refusal(Exception):
    """A request that is not let through: HTTP status, class of the error and what the client is told."""

    def __init__(self, status: int, error_class: str, message: str) -> None:
        self.status = status
        self.error_class = error_class
        self.message = message
        super().__init__(message)


class DatabaseAway(Exception):
    """The database cannot be asked at the moment."""


@dataclass(frozen=True)
class Admission:
    """Whose request it is and what its session may do; `expires_s` is in seconds since the epoch."""

    session: str
    key_hash: str
    models: tuple[str, ...]
    expires_s: float
    policy: Policy = field(default_factory=Policy)


@dataclass
class Spending:
    """What a session has used up so far, as far as this process knows."""

    requests: int = 0
    cost_usd: float = 0.0


class Database(Protocol):
    """Answers one statement with one parameter, `{}` in its text, by one row or None."""

    async def one(self, statement: str, value: str) -> tuple[Any, ...] | None:
        """The row.

        Raises:
            DatabaseAway: it cannot be asked at the moment.
        """
        ...


def open_database(url: str) -> Database:
    """The database of a URL as SQLAlchemy writes it: `sqlite:///path` or `postgresql://…`."""
    file = re.match(r"sqlite(?:\+\w+)?:///([^?]+)", url)
    if file is not None:
        return Sqlite(Path(file[1]))
    return Postgres(re.sub(r"^postgres(ql)?(\+psycopg)?://", "postgresql://", url))


class Sqlite:
    """A SQLite file, opened again when another file takes its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    async def one(self, statement: str, value: str) -> tuple[Any, ...] | None:
        try:
            stat = os.stat(self.path)
            if self._connection is None or self._file != (stat.st_dev, stat.st_ino):
                self._open((stat.st_dev, stat.st_ino))
            assert self._connection is not None
            row: tuple[Any, ...] | None = self._connection.execute(
                statement.replace("{}", "?"), (value,)
            ).fetchone()
            return row
        except (OSError, sqlite3.Error) as error:
            self._close()
            raise DatabaseAway(type(error).__name__) from error

    def _open(self, file: tuple[int, int]) -> None:
        self._close()
        self._connection = sqlite3.connect(
            self.path.absolute().as_uri() + "?mode=rw", uri=True, timeout=0.25, check_same_thread=False
        )
        self._connection.execute("PRAGMA query_only=1")
        self._file = file

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Postgres:
    """A PostgreSQL server over one connection; a question that takes more than two seconds counts as no answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: Any = None
        self._lock = asyncio.Lock()

    async def one(self, statement: str, value: str) -> tuple[Any, ...] | None:
        try:
            async with asyncio.timeout(WAIT_S), self._lock:
                return await self._ask(statement.replace("{}", "%s"), value)
        except Exception as error:  # a driver's errors are many, and each means the same here
            self._connection = None
            raise DatabaseAway(type(error).__name__) from error

    async def _ask(self, statement: str, value: str) -> tuple[Any, ...] | None:
        import psycopg

        for last in (False, True):
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await psycopg.AsyncConnection.connect(
                        self.url, autocommit=True, prepare_threshold=1
                    )
                cursor = await self._connection.execute(statement, (value,))
                row: tuple[Any, ...] | None = await cursor.fetchone()
                return row
            except psycopg.OperationalError:
                self._connection = None  # a server that was restarted is asked once more
                if last:
                    raise
        return None


class Clock:
    """Seconds since the epoch that never run backwards while this process lives."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._start = wall() - monotonic()

    def __call__(self) -> float:
        return max(self._wall(), self._start + self._monotonic())


class Keys:
    """Admits keys.

    Args:
        database: where credentials, sessions and requests are.
        now: seconds since the epoch.
        monotonic: seconds of a clock that is never set.
    """

    def __init__(
        self,
        database: Database,
        now: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database = database
        self.now = now or Clock()
        self._monotonic = monotonic
        self._seen: dict[str, tuple[Admission, float]] = {}
        self._spent: dict[str, Spending] = {}

    async def admit(self, key: str | None) -> Admission:
        """Whose key it is.

        Raises:
            Refusal: no key, an unknown, revoked or expired one, a session that is over, or no database to ask.
        """
        if not key:
            raise Refusal(
                401, "refused_session", "No key was sent. Start a session and use the key it shows."
            )
        if not KEY.fullmatch(key):
            raise Refusal(401, "refused_session", "This is not the key of a session.")
        digest = key_hash(key)
        try:
            row = await self.database.one(CREDENTIAL, digest)
        except DatabaseAway as error:
            admission = self._remembered(digest)
            if admission is None:
                raise Refusal(
                    503, "refused_session", "The gateway cannot reach its database. Try again in a moment."
                ) from error
        else:
            admission = self._of(digest, row)
        if admission.expires_s <= self.now():
            raise Refusal(401, "refused_session", "The key of this session has expired.")
        return admission

    async def spend(self, admission: Admission) -> Spending:
        """Counts one more request of a session against its limits.

        Raises:
            Refusal: the session has sent as many requests, or cost as much, as it may.
        """
        policy = admission.policy
        if policy.max_requests is None and policy.budget_usd is None:
            return Spending()
        spent = self._spent.get(admission.session)
        if spent is None:
            spent = self._spent[admission.session] = await self._spending(admission)
        if policy.max_requests is not None and spent.requests >= policy.max_requests:
            raise Refusal(
                429, "budget", f"This session has sent the {policy.max_requests} requests that it may."
            )
        if policy.budget_usd is not None and spent.cost_usd >= policy.budget_usd:
            raise Refusal(429, "budget", f"This session has spent the ${policy.budget_usd:g} that it may.")
        spent.requests += 1
        return spent

    async def _spending(self, admission: Admission) -> Spending:
        try:
            row = await self.database.one(SPENT, admission.session)
        except DatabaseAway as error:
            raise Refusal(503, "refused_session", "The gateway cannot reach its database.") from error
        return Spending(int(row[0]), float(row[1])) if row else Spending()

    def _of(self, digest: str, row: tuple[Any, ...] | None) -> Admission:
        if row is None:
            raise Refusal(401, "refused_session", "This key belongs to no session.")
        session, models, policy, expires_s, revoked_s, state, session_expires_s = row
        if revoked_s is not None or state not in OPEN_STATES:
            self._seen.pop(digest, None)
            raise Refusal(401, "refused_session", "The session of this key is over.")
        told = _json(policy)
        admission = Admission(
            session=session,
            key_hash=digest,
            models=tuple(_json(models)),
            expires_s=min(float(expires_s), float(session_expires_s or expires_s)),
            policy=Policy(
                content=told.get("content") is True,
                retention_days=float(told.get("retention_days") or Policy.retention_days),
                max_requests=told.get("max_requests"),
                budget_usd=told.get("budget_usd"),
            ),
        )
        if len(self._seen) >= REMEMBERED_KEYS:
            self._seen.clear()
        self._seen[digest] = (admission, self._monotonic())
        return admission

    def _remembered(self, digest: str) -> Admission | None:
        admission, seen_s = self._seen.get(digest, (None, 0.0))
        return admission if self._monotonic() - seen_s <= REMEMBERED_S else None


def _json(value: Any) -> Any:
    """SQLite keeps JSON as text, PostgreSQL's driver reads it."""
    return json.loads(value) if isinstance(value, (str, bytes)) else value
