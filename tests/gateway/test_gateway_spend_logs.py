"""LiteLLM's own log as a second witness: its true schema, rows made by LiteLLM itself, and nothing counted twice."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from spend_log_table import insert, litellm_database
from sqlalchemy import Engine, select, text
from told import forget, history, rows, told_of

from melete.errors import ConfigError, StorageError
from melete.gateway import matching, sessions
from melete.gateway.collectors import spend_logs
from melete.gateway.events import Event
from melete.gateway.ingest import ingest
from melete.records import SessionState
from melete.settings import Settings
from melete.store import database
from melete.store.models import CredentialRow, RequestRow, SpendLogRow

SESSIONS = [f"s-{number}" for number in range(3)]
KEY = {session: hashlib.sha256(session.encode()).hexdigest() for session in SESSIONS}
REQUESTS = RequestRow.__table__
CANARY = "SECRET-canary-7731"


def row_like(request: str, session: str, started_s: float, **changed: Any) -> dict[str, Any]:
    """A row as the collector's query gives it."""
    row: dict[str, Any] = {
        "request_id": f"chatcmpl-{request}",
        "call_type": "acompletion",
        "api_key": KEY.get(session, "0" * 64),
        "spend": 0.002,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "model": "openai/small",
        "model_id": "dep-small",
        "model_group": "small",
        "custom_llm_provider": "openai",
        "cache_hit": "False",
        "status": "success",
        "litellm_call_id": request,
        "started_s": started_s + 0.01,
        "ended_s": started_s + 0.49,
        "first_chunk_s": started_s + 0.49,
        "told_status": "success",
        "retries": "0",
        "first_model_group": None,
        "overhead_ms": "4.5",
        "exception": None,
        "code": None,
        "cached": "40",
        "cache_write": None,
        "reasoning": "5",
    }
    return {**row, **changed}


def logs_of(events: list[Event], share: float, seed: int) -> list[dict[str, Any]]:
    """Rows that LiteLLM would write of a history, as far as it wrote them at all."""
    chance = random.Random(seed)
    begun = {event.request: event for event in events if event.kind in ("begin", "end") and event.session}
    told = [row_like(event.request, event.session or "", event.time_s) for event in begun.values()]
    return [row for row in told if chance.random() < share]


def lend(engine: Engine, session: str, key_hash: str) -> None:
    values = {"session_id": session, "alias": session, "issuer": "embedded", "models": [], "policy": {}}
    with engine.begin() as connection:
        told = {**values, "key_hash": key_hash, "created_s": 1.0, "expires_s": 2.0}
        connection.execute(sqlalchemy.insert(CredentialRow).values(told))


@pytest.fixture
def engine(store: Settings) -> Iterator[Engine]:
    """A store with three live sessions, each with a credential."""
    with database.opened(store.database) as opened:
        with opened.begin() as connection:
            opening = [{"id": id, "created_s": 1.0, "state": SessionState.LIVE} for id in SESSIONS]
            sessions.open_many(connection, opening)
        for session in SESSIONS:
            lend(opened, session, KEY[session])
        yield opened


def told(engine: Engine, *steps: list[Event] | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tells events of the hook and rows of the log, in the order of the steps; returns the requests."""
    for step in steps:
        with engine.begin() as connection:
            if step and isinstance(step[0], Event):
                ingest(connection, [one for one in step if isinstance(one, Event)])
            else:
                spend_logs.keep(connection, "o", [one for one in step if isinstance(one, dict)])
    with engine.connect() as connection:
        query = select(REQUESTS).order_by(REQUESTS.c.started_s, REQUESTS.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


def test_request_that_both_saw_is_one_row_with_the_gaps_of_the_hook_filled(engine: Engine) -> None:
    (row,) = told(engine, told_of("ok", "r", "s-0", 1000.0), [row_like("r", "s-0", 1000.0)])
    assert (row["id"], row["source"], row["cost_usd"], row["cost_source"]) == (
        "r",
        "hook,spend_logs",
        0.001,
        "config",
    )
    assert (row["tokens_reasoning"], row["overhead_ms"], row["model_answered"]) == (5, 4.5, "openai/small")


def test_request_that_only_the_log_saw_is_a_row_of_its_own(engine: Engine) -> None:
    (row,) = told(engine, [row_like("r", "s-0", 1000.0)])
    assert (row["source"], row["session_id"], row["status"]) == ("spend_logs", "s-0", "ok")
    assert (row["tokens_in"], row["tokens_cached"], row["cost_usd"], row["attempts"]) == (100, 40, 0.002, 1)
    assert row["latency_ms"] == pytest.approx(480.0)


def test_log_that_came_first_gives_way_to_the_hook(engine: Engine) -> None:
    (row,) = told(engine, [row_like("r", "s-0", 1000.0)], told_of("ok", "r", "s-0", 1000.0))
    assert (row["id"], row["source"]) == ("r", "hook,spend_logs")


def test_rows_of_other_keys_are_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        read = spend_logs.keep(connection, "o", [row_like("r", "somebody else", 1000.0)])
    assert (read.new, read.foreign, told(engine)) == (0, 1, [])


def test_call_id_that_a_client_used_twice_joins_each_to_its_own(engine: Engine) -> None:
    events = [
        *told_of("ok", "a", "s-0", 1000.0, call_id="same"),
        *told_of("ok", "b", "s-0", 1010.0, call_id="same"),
    ]
    logs = [
        row_like("same", "s-0", 1010.0, request_id="y", overhead_ms="2"),
        row_like("same", "s-0", 1000.0, request_id="x", overhead_ms="1"),
    ]
    assert [(row["id"], row["overhead_ms"]) for row in told(engine, events, logs)] == [("a", 1.0), ("b", 2.0)]


def test_call_id_of_another_session_joins_nothing(engine: Engine) -> None:
    found = told(engine, told_of("ok", "r", "s-0", 1000.0), [row_like("r", "s-1", 1000.0)])
    assert sorted((row["session_id"], row["source"]) for row in found) == [
        ("s-0", "hook"),
        ("s-1", "spend_logs"),
    ]


def test_failed_try_before_the_answer_is_no_request_of_its_own(engine: Engine) -> None:
    failure = row_like(
        "r", "s-0", 1000.0, request_id="r", status="failure", told_status="failure", ended_s=1000.1
    )
    (row,) = told(engine, told_of("retried", "r", "s-0", 1000.0), [failure, row_like("r", "s-0", 1000.2)])
    assert (row["source"], row["status"], row["overhead_ms"]) == ("hook,spend_logs", "ok", 4.5)


def test_interrupted_request_is_joined_by_model_and_time(engine: Engine) -> None:
    from melete.gateway.ingest import close_interrupted

    told(engine, told_of("open", "r", "s-0", 1000.0))
    with engine.begin() as connection:
        close_interrupted(connection, ["host:1:2"])
    (row,) = told(engine, [row_like("call", "s-0", 1000.0)])
    assert (row["id"], row["status"], row["source"], row["tokens_in"]) == (
        "r",
        "interrupted",
        "hook,spend_logs",
        100,
    )


@pytest.mark.parametrize(
    ("changed", "status", "error_class"),
    [
        ({}, "ok", None),
        ({"cache_hit": "True"}, "cache_hit", None),
        ({"told_status": "failure", "exception": "RateLimitError", "code": "429"}, "error", "rate_limit"),
        (
            {"status": "failure", "exception": "ContextWindowExceededError", "code": "400"},
            "error",
            "context_window",
        ),
        (
            {"status": "failure", "exception": "InternalServerError", "code": "server_error"},
            "error",
            "provider_error",
        ),
        ({"exception": "ClientDisconnected", "code": "499"}, "client_abort", "client_abort"),
    ],
)
def test_row_of_the_log_is_told_in_our_words(
    changed: dict[str, Any], status: str, error_class: str | None
) -> None:
    row = spend_logs.row_of(row_like("r", "s-0", 1000.0, **changed))
    assert (row["status"], row.get("error_class")) == (status, error_class)


def test_row_of_a_clock_that_was_set_back_has_no_negative_duration() -> None:
    row = spend_logs.row_of(row_like("r", "s-0", 1000.0, ended_s=900.0))
    assert row["latency_ms"] == 0
    assert "first_chunk_ms" not in row


@hypothesis_settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_both_witnesses_in_any_order_and_twice_give_the_same_rows(
    engine: Engine, seed: int, share: float
) -> None:
    events = history(seed, 27, SESSIONS)
    logs = logs_of(events, share, seed)
    told(engine, events, logs)
    with engine.begin() as connection:
        expected = rows(connection)
        forget(connection)
    chance = random.Random(seed)
    steps: list[Any] = [[event] for event in events] + [[log] for log in logs]
    for step in [*chance.sample(steps, len(steps)), *chance.sample(steps, len(steps))]:
        told(engine, step)
    with engine.begin() as connection:
        assert rows(connection) == expected
        forget(connection)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 20)), max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 20)), max_size=12),
)
def test_pairs_use_each_log_row_and_each_request_at_most_once(
    asked: list[tuple[int, float]], logged: list[tuple[int, float]]
) -> None:
    requests = [
        {"id": f"r{n}", "call_id": f"c{call}", "model_asked": "m", "started_s": at_s, "ended_s": at_s + 1}
        for n, (call, at_s) in enumerate(asked)
    ]
    logs = [
        {
            "origin": "o",
            "id": f"l{n}",
            "call_id": f"c{call}",
            "started_s": at_s,
            "ended_s": at_s + 1,
            "fields": {},
        }
        for n, (call, at_s) in enumerate(logged)
    ]
    found = matching.pairs(requests, logs)
    assert len(set(found.witness.values())) == len(found.witness)
    assert not set(found.witness) & set(found.retries)
    shuffled = matching.pairs(requests[::-1], logs[::-1])
    assert shuffled == found


@pytest.fixture
def litellm() -> Iterator[Engine]:
    """A PostgreSQL database with LiteLLM's tables."""
    with litellm_database() as found:
        yield found


def payload_like(request: str, session: str, started_s: float) -> dict[str, Any]:
    def moment(at_s: float) -> str:
        return datetime.fromtimestamp(at_s, UTC).isoformat()

    return {
        "request_id": f"chatcmpl-{request}",
        "call_type": "acompletion",
        "api_key": KEY.get(session, "f" * 64),
        "spend": 0.002,
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "total_tokens": 12,
        "startTime": moment(started_s),
        "endTime": moment(started_s + 0.5),
        "model": "openai/small",
        "model_group": "small",
        "litellm_call_id": request,
        "status": "success",
        "metadata": f'{{"user_agent": "{CANARY}"}}',
        "messages": f'{{"content": "{CANARY}"}}',
    }


@pytest.mark.postgres
def test_log_in_its_true_schema_is_read_page_by_page_and_once(engine: Engine, litellm: Engine) -> None:
    for number in range(7):
        insert(litellm, payload_like(f"r{number}", SESSIONS[number % 3], 1000.0 + number // 2))
    insert(litellm, payload_like("other", "somebody else", 1001.0))
    first = spend_logs.collect_into(engine, litellm, page=2)
    again = spend_logs.collect_into(engine, litellm, page=2)
    assert (first.new, first.foreign) == (7, 1)
    assert (again.new, again.known, again.foreign) == (0, 7, 1)
    assert sorted(row["call_id"] for row in told(engine)) == [f"r{n}" for n in range(7)]


@pytest.mark.postgres
def test_row_that_was_written_late_is_still_read(engine: Engine, litellm: Engine) -> None:
    insert(litellm, payload_like("new", "s-0", 5000.0))
    spend_logs.collect_into(engine, litellm)
    insert(litellm, payload_like("long", "s-0", 3000.0))
    assert spend_logs.collect_into(engine, litellm).new == 1
    insert(litellm, payload_like("too long ago", "s-0", 100.0))
    assert spend_logs.collect_into(engine, litellm).new == 0


@pytest.mark.postgres
def test_role_that_may_only_read_is_enough_and_no_text_of_the_row_crosses(
    store: Settings, engine: Engine, litellm: Engine
) -> None:
    insert(litellm, payload_like("r", "s-0", 1000.0))
    with litellm.begin() as connection:
        connection.execute(text('CREATE ROLE reader LOGIN; GRANT SELECT ON "LiteLLM_SpendLogs" TO reader'))
    url = litellm.url.set(username="reader", drivername="postgresql").render_as_string()
    assert spend_logs.collect(store, url).new == 1
    with engine.connect() as connection:
        kept = repr(connection.execute(select(SpendLogRow.__table__)).all()) + repr(rows(connection))
    assert CANARY not in kept


@pytest.mark.postgres
def test_database_without_litellms_tables_is_one_message(store: Settings, postgres: str) -> None:
    with pytest.raises(StorageError, match=r"LiteLLM's log at .* cannot be read"):
        spend_logs.collect(store, postgres)


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://user@host/name", "nonsense"])
def test_url_that_is_not_postgresql_is_a_config_error(home: Settings, url: str) -> None:
    with pytest.raises(ConfigError, match="LiteLLM keeps its log in PostgreSQL"):
        spend_logs.collect(home, url)
