"""Sessions and config entities in the store, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, insert, select

from melete.errors import SessionError, UnknownNameError
from melete.gateway import entities, sessions
from melete.records import SESSION_MOVES, SessionState
from melete.settings import Settings
from melete.store.database import connect
from melete.store.models import CredentialRow, VariantRow


@pytest.fixture
def connection(store: Settings) -> Iterator[Connection]:
    with connect(store.database) as opened:
        yield opened


def live(connection: Connection, **fields: object) -> str:
    session = sessions.open_session(connection, **fields)
    return sessions.move(connection, session.id, SessionState.LIVE).id


def lend(connection: Connection, session: str) -> None:
    values = {
        "key_hash": f"{session:0>64}",
        "session_id": session,
        "alias": session,
        "issuer": "embedded",
        "models": ["small"],
        "policy": {},
        "created_s": 1.0,
        "expires_s": 2.0,
    }
    connection.execute(insert(CredentialRow).values(values))


def test_open_session_is_found_by_its_id_and_by_its_beginning(connection: Connection) -> None:
    opened = sessions.open_session(connection, variant="v@1", metadata={"dirty": True}, attempt=3)
    assert sessions.get(connection, opened.id) == opened
    assert sessions.get(connection, opened.id[:-2]).attempt == 3
    assert (opened.state, opened.kind) == (SessionState.CREATED, "gateway")


def test_get_of_a_beginning_that_two_share_names_both(connection: Connection) -> None:
    first, second = sessions.open_many(connection, [{"id": "s-1-a"}, {"id": "s-1-b"}])
    with pytest.raises(UnknownNameError) as caught:
        sessions.get(connection, "s-1-")
    assert caught.value.known == [first.id, second.id]


@pytest.mark.parametrize("id", ["", "s-nothing", "%", "s-'; DROP TABLE session"])
def test_get_of_what_is_not_there_is_an_unknown_name(connection: Connection, id: str) -> None:
    sessions.open_session(connection)
    with pytest.raises(UnknownNameError):
        sessions.get(connection, id)


def test_ids_of_sessions_sort_by_age() -> None:
    assert sessions.new_id(1.0) < sessions.new_id(2.0) < sessions.new_id(90_000.0)


def test_life_of_a_session_sets_its_times_and_its_outcome(connection: Connection) -> None:
    id = sessions.open_session(connection, created_s=5.0, metadata={"host": "a"}).id
    assert sessions.move(connection, id, SessionState.LIVE, now_s=10.0).started_s == 10.0
    ended = sessions.move(
        connection,
        id,
        SessionState.FINALISED,
        now_s=20.0,
        solved=True,
        score=0.5,
        outcome_source="checker",
        metadata={"note": 1},
    )
    assert (ended.ended_s, ended.solved, ended.score, ended.outcome_source) == (20.0, True, 0.5, "checker")
    assert ended.metadata == {"host": "a", "note": 1}


@pytest.mark.parametrize("old", list(SessionState))
@pytest.mark.parametrize("new", list(SessionState))
def test_move_is_what_the_table_says(connection: Connection, old: SessionState, new: SessionState) -> None:
    id = sessions.open_session(connection, state=old).id
    if new in SESSION_MOVES[old]:
        assert sessions.move(connection, id, new).state is new
    else:
        with pytest.raises(SessionError):
            sessions.move(connection, id, new)
        assert sessions.get(connection, id).state is old


def test_finalising_twice_names_when_it_was_done_and_changes_nothing(connection: Connection) -> None:
    id = live(connection)
    first = sessions.move(connection, id, SessionState.FINALISED, now_s=0.0 + 86_400, solved=True)
    with pytest.raises(SessionError, match="finalised already, on 1970-01-02 00:00:00 UTC"):
        sessions.move(connection, id, SessionState.FINALISED, solved=False)
    assert sessions.get(connection, id) == first


@pytest.mark.parametrize("end", [SessionState.FINALISED, SessionState.ABORTED, SessionState.EXPIRED])
def test_end_of_a_session_revokes_its_credentials(connection: Connection, end: SessionState) -> None:
    id, other = live(connection), live(connection)
    lend(connection, id)
    lend(connection, other)
    sessions.move(connection, id, end, now_s=7.0)
    query = select(CredentialRow.session_id, CredentialRow.revoked_s)
    assert {row.session_id: row.revoked_s for row in connection.execute(query)} == {id: 7.0, other: None}


def test_expire_due_ends_only_what_is_over(connection: Connection) -> None:
    over, still = live(connection, expires_s=10.0), live(connection, expires_s=30.0)
    forever = live(connection)
    done = live(connection, expires_s=10.0)
    sessions.move(connection, done, SessionState.FINALISED)
    lend(connection, over)
    assert sessions.expire_due(connection, 20.0) == [over]
    assert sessions.expire_due(connection, 20.0) == []
    assert sessions.get(connection, over).ended_s == 10.0
    assert {sessions.get(connection, id).state for id in (still, forever)} == {SessionState.LIVE}
    assert connection.scalar(select(CredentialRow.revoked_s)) == 20.0


def test_list_filters_by_id_and_by_name_of_a_variant(connection: Connection) -> None:
    for variant in ("a@1", "a@2", "ab@1", None):
        sessions.open_session(connection, variant=variant)
    assert len(sessions.list_sessions(connection, variant="a")) == 2
    assert [s.variant for s in sessions.list_sessions(connection, variant="a@2")] == ["a@2"]
    assert sessions.list_sessions(connection, variant="a_") == []


def test_entity_is_kept_once_under_the_digest_of_its_document(connection: Connection) -> None:
    id = entities.record(connection, "variant", "before", {"model": "m", "n": [1, 2]})
    assert entities.record(connection, "variant", "before", {"n": [1, 2], "model": "m"}) == id
    other = entities.record(connection, "variant", "before", {"model": "m2"})
    assert other != id
    assert entities.name_of(id) == "before"
    assert entities.document(connection, "variant", id) == {"model": "m", "n": [1, 2]}
    assert entities.newest(connection, "variant", "before") == other
    assert len(connection.scalars(select(VariantRow.id)).all()) == 2


def test_entity_that_is_not_there_names_the_known_ones(connection: Connection) -> None:
    id = entities.record(connection, "task_card", "sum", {"prompt": "1 + 1"})
    with pytest.raises(UnknownNameError, match="task card") as caught:
        entities.document(connection, "task_card", "sum@000000000000")
    assert caught.value.known == [id]
