"""Keys are looked up for each request, on both kinds of database; what is remembered while one is away is little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from melete.errors import SessionError, UnknownNameError
from melete.gateway import sessions
from melete.gateway.hook_keys import REMEMBERED_S, Admission, Clock, Keys, Refusal, open_database
from melete.gateway.issuers import Policy, key_hash
from melete.gateway.issuers.embedded import EmbeddedIssuer
from melete.records import SessionState
from melete.settings import Settings
from melete.store import database
from postgres_at_hand import empty, server


class Desk:
    """A store with sessions, an issuer, and the keys that the hook would admit; `seconds` is every clock."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.engine = engine
        self.issuer = EmbeddedIssuer(engine)
        self.seconds = time.time()
        database_ = open_database(settings.database)
        self.keys = Keys(database_, now=lambda: self.seconds, monotonic=lambda: self.seconds)
        self._loop = asyncio.Runner()

    def session(self, expires_in_s: float = 100.0) -> str:
        with self.engine.begin() as connection:
            return sessions.open_session(connection, expires_s=self.seconds + expires_in_s).id

    def issue(self, session: str, expires_in_s: float = 100.0, policy: Policy | None = None) -> str:
        return self.issuer.issue(session, ["small"], self.seconds + expires_in_s, policy).key

    def admit(self, key: str | None) -> Admission:
        return self._loop.run(self.keys.admit(key))

    def spend(self, admission: Admission) -> None:
        self._loop.run(self.keys.spend(admission))

    def refusal(self, key: str | None) -> int:
        with pytest.raises(Refusal) as refused:
            self.admit(key)
        return refused.value.status

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def desk(store: Settings) -> Iterator[Desk]:
    with database.opened(store.database) as engine:
        found = Desk(store, engine)
        yield found
        found.close()


def test_key_of_an_open_session_is_admitted_with_its_models(desk: Desk) -> None:
    session = desk.session()
    admission = desk.admit(desk.issue(session, policy=Policy(content=True, max_requests=3)))
    assert (admission.session, admission.models) == (session, ("small",))
    policy = admission.policy
    assert (policy.content, policy.max_requests, policy.budget_usd) == (True, 3, None)


@pytest.mark.parametrize("key", [None, "", "sk-short", "sk-" + "a" * 43, "x" * 50, "sk-" + "é" * 43])
def test_key_that_was_never_issued_is_refused(desk: Desk, key: str | None) -> None:
    assert desk.refusal(key) == 401


def test_revoked_key_is_refused_at_once(desk: Desk) -> None:
    session = desk.session()
    key = desk.issue(session)
    desk.admit(key)
    assert desk.issuer.revoke(session) == 1
    assert desk.refusal(key) == 401
    assert desk.issuer.revoke(session) == 0


@pytest.mark.parametrize("state", [SessionState.FINALISED, SessionState.ABORTED, SessionState.EXPIRED])
def test_key_of_a_session_that_is_over_is_refused(desk: Desk, state: SessionState) -> None:
    session = desk.session()
    key = desk.issue(session)
    with desk.engine.begin() as connection:
        sessions.move(connection, session, SessionState.LIVE)
    desk.admit(key)
    with desk.engine.begin() as connection:
        sessions.move(connection, session, state)
    assert desk.refusal(key) == 401


@pytest.mark.parametrize(("key_s", "session_s"), [(10.0, 100.0), (100.0, 10.0)])
def test_key_works_until_it_or_its_session_expires(desk: Desk, key_s: float, session_s: float) -> None:
    key = desk.issue(desk.session(session_s), key_s)
    desk.seconds += 9.9
    desk.admit(key)
    desk.seconds += 0.1
    assert desk.refusal(key) == 401


def test_key_of_another_session_still_works_when_one_is_revoked(desk: Desk) -> None:
    first, second = desk.session(), desk.session()
    desk.issue(first)
    key = desk.issue(second)
    desk.issuer.revoke(first)
    assert desk.admit(key).session == second


def test_session_that_is_over_gets_no_key(desk: Desk) -> None:
    session = desk.session()
    with desk.engine.begin() as connection:
        sessions.move(connection, session, SessionState.ABORTED)
    with pytest.raises(SessionError, match="aborted"):
        desk.issue(session)


def test_session_that_does_not_exist_gets_no_key(desk: Desk) -> None:
    with pytest.raises(UnknownNameError):
        desk.issue("s-none")


def test_clear_key_stands_in_no_column(desk: Desk) -> None:
    session = desk.session()
    credential = desk.issuer.issue(session, ["small"], desk.seconds + 9)
    with desk.engine.begin() as connection:
        rows = [tuple(row) for row in connection.exec_driver_sql("SELECT * FROM credential")]
    assert credential.key not in str(rows)
    assert credential.key not in repr(credential)
    assert key_hash(credential.key) in str(rows)


def test_requests_are_counted_up_to_the_limit(desk: Desk) -> None:
    admission = desk.admit(desk.issue(desk.session(), policy=Policy(max_requests=2)))
    desk.spend(admission)
    desk.spend(admission)
    with pytest.raises(Refusal) as refused:
        desk.spend(admission)
    assert (refused.value.status, refused.value.error_class) == (429, "budget")


def away(desk: Desk, path: Path) -> None:
    """Takes a SQLite database away, as a disk that is unmounted does."""
    path.rename(path.with_suffix(".away"))


def test_known_key_works_two_minutes_without_the_database_and_others_do_not(home: Settings) -> None:
    with database.opened(home.database) as engine:
        desk = Desk(home, engine)
        known, unknown = (desk.issue(desk.session(1e6), 1e6) for _ in range(2))
        desk.admit(known)
    away(desk, home.home / "melete.db")
    assert desk.refusal(unknown) == 503
    desk.seconds += REMEMBERED_S - 1
    desk.admit(known)
    desk.seconds += 2
    assert desk.refusal(known) == 503
    (home.home / "melete.away").rename(home.home / "melete.db")
    desk.admit(known)
    desk.admit(unknown)
    desk.close()


def test_revoked_key_is_not_remembered_while_the_database_is_away(home: Settings) -> None:
    with database.opened(home.database) as engine:
        desk = Desk(home, engine)
        session = desk.session()
        key = desk.issue(session)
        desk.admit(key)
        desk.issuer.revoke(session)
        desk.refusal(key)
    away(desk, home.home / "melete.db")
    assert desk.refusal(key) == 503
    desk.close()


def test_database_that_is_no_database_admits_nobody(tmp_path: Path, home: Settings) -> None:
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"this is no database " * 400)
    with asyncio.Runner() as runner, pytest.raises(Refusal) as refused:
        runner.run(Keys(open_database(f"sqlite:///{bad}")).admit("sk-" + "a" * 43))
    assert refused.value.status == 503


@pytest.mark.postgres
@pytest.mark.slow
def test_postgres_that_is_stopped_and_started_is_asked_again(home: Settings) -> None:
    with server() as running:
        empty(running.url)
        with database.opened(running.url) as engine:
            desk = Desk(replace(home, database=running.url), engine)
            known, unknown = (desk.issue(desk.session()) for _ in range(2))
            desk.admit(known)
            running.stop()
            assert desk.refusal(unknown) == 503
            desk.admit(known)
            running.start()
            desk.admit(unknown)
            desk.close()


def test_clock_that_is_set_back_brings_no_time_back() -> None:
    wall, monotonic = [1000.0], [50.0]
    clock = Clock(lambda: wall[0], lambda: monotonic[0])
    wall[0], monotonic[0] = 200.0, 60.0
    assert clock() == 1010.0
    wall[0] = 5000.0
    assert clock() == 5000.0
