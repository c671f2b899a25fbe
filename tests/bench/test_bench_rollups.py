"""Rollups: every figure against one counted by hand, and the same again whenever they are computed."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stored_sessions
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from stored_sessions import START_S, play, variant

from melete import metrics as statistics
from melete.bench import metric as metrics
from melete.bench import rollups
from melete.bench.columns import LAYOUT, READ, Columns, pack, unpack
from melete.gateway.events import Event, event_id
from melete.gateway.ingest import ingest
from melete.records import SessionState
from melete.settings import Settings
from melete.store.database import connect
from postgres_at_hand import postgres, store  # noqa: F401

REQUESTS: list[dict[str, Any]] = [
    {"latency_ms": 400.0, "ttft_ms": 100.0, "tokens_in": 100, "tokens_cached": 40, "tokens_out": 31, "cost_usd": 0.002},
    {"latency_ms": 900.0, "ttft_ms": None, "tokens_in": 200, "tokens_cached": None, "tokens_out": 50,
     "cost_usd": 0.003},
    {"status": "error", "error_class": "rate_limit", "latency_ms": 5.0, "ttft_ms": None, "tokens_in": None,
     "tokens_cached": None, "tokens_out": None, "cost_usd": None, "cost_source": "none"},
    {"status": "client_abort", "error_class": "client_abort", "latency_ms": 300.0, "ttft_ms": 200.0, "tokens_in": 100,
     "tokens_cached": 0, "tokens_out": 3, "tokens_estimated": True, "cost_usd": 0.001},
]  # fmt: skip
EXPECTED = {
    "sessions": 1,
    "success": 1.0,
    "score": 0.75,
    "cost": 0.006,
    "cost_per_solved": 0.006,
    "requests": 4,
    "error_rate": 1 / 3,
    "errors.rate_limit": 1,
    "errors.client_abort": 1,
    "cache_hit_rate": 40 / 200,
    "gateway_cache_rate": 0.0,
    "tokens_in": 400,
    "tokens_cached": 40,
    "tokens_out": 84,
    "tokens_per_solved": 484,
    "latency.p50": 400.0,
    "latency.p95": 900.0,
    "ttft.p50": 100.0,
    "tokens_per_s.p50": 30 / 0.3,
    "model_time": 1.605,
    "time_per_task": 3.3,
    "tool_reliability": 0.8,
    "reported_tokens": 242 / 484,
}


def columns_of(home: Settings, **fields: Any) -> Columns:
    with connect(home.database) as connection:
        id = play(connection, variant(connection, "one"), "card", **fields)
        return rollups.load(connection, rollups.SESSIONS.c.id == id)


def test_finalise_gives_the_figures_counted_by_hand(home: Settings) -> None:
    with connect(home.database) as connection:
        reported = {"tool_calls": 5, "tool_calls_ok": 4, "tokens_in": 200, "tokens_out": 42}
        id = play(
            connection,
            variant(connection, "one"),
            "card",
            requests=REQUESTS,
            score=0.75,
            metadata={"self_reported": reported},
        )
        found = rollups.finalise(connection, id)
    assert {name: found[name] for name in EXPECTED} == pytest.approx(EXPECTED)


def test_session_without_requests_knows_no_latency_and_costs_nothing(home: Settings) -> None:
    with connect(home.database) as connection:
        id = play(connection, variant(connection, "one"), "card", requests=[], solved=True)
        found = rollups.finalise(connection, id)
    assert found == {"sessions": 1, "success": 1, "requests": 0, "cost_per_solved": 0, "tokens_per_solved": 0}


@pytest.mark.parametrize(
    "reported", ["text", ["list"], {"tool_calls": "5", "tool_calls_ok": float("inf")}, None]
)
def test_self_report_that_is_nonsense_counts_for_nothing(home: Settings, reported: Any) -> None:
    found = columns_of(home, metadata={"self_reported": reported if reported != {} else None})
    assert "tool_reliability" not in rollups.values(found)


def test_rollups_computed_again_are_the_same_bytes(store: Settings) -> None:  # noqa: F811
    def all_rows() -> list[Any]:
        order = (rollups.ROLLUPS.c.scope, rollups.ROLLUPS.c.scope_id, rollups.ROLLUPS.c.metric)
        return [tuple(row) for row in connection.execute(select(rollups.ROLLUPS).order_by(*order))]

    with connect(store.database) as connection:
        experiment, before, after = stored_sessions.experiment(connection, cards=4)
        scopes = (("experiment", experiment), ("variant", before), ("variant", after))
        for scope, id in scopes:
            rollups.refresh(connection, scope, id)  # type: ignore[arg-type]
        first = all_rows()
        connection.execute(delete(rollups.ROLLUPS))
        for scope, id in reversed(scopes):
            rollups.refresh(connection, scope, id)  # type: ignore[arg-type]
        assert all_rows() == first
    assert {row[0] for row in first} == {"session", "variant", "experiment"}


def test_variant_figures_are_those_of_its_sessions_together(home: Settings) -> None:
    with connect(home.database) as connection:
        own = variant(connection, "one")
        for number, cost in enumerate((0.5, 0.25, 0.25)):
            play(connection, own, f"card/{number}", solved=number > 0, requests=[{"cost_usd": cost}])
        found = rollups.refresh(connection, "variant", own)
    assert (found["sessions"], found["cost_per_solved"], found["success"]) == (3, 0.5, pytest.approx(2 / 3))


def test_sessions_that_did_not_finish_count_nowhere(home: Settings) -> None:
    with connect(home.database) as connection:
        own = variant(connection, "one")
        for state in SessionState:
            play(connection, own, f"card/{state}", state=state)
        assert rollups.refresh(connection, "variant", own)["sessions"] == 1


def test_session_that_is_computed_anew_drops_what_followed_from_it(home: Settings) -> None:
    with connect(home.database) as connection:
        experiment, before, after = stored_sessions.experiment(connection, cards=2)
        rollups.refresh_experiment(connection, [experiment])
        query = select(rollups.ROLLUPS.c.scope_id).where(rollups.ROLLUPS.c.scope != "session").distinct()
        assert set(connection.scalars(query)) == {experiment, before, after}
        new = play(connection, before, "support/9", experiment=experiment)
        rollups.finalise(connection, new)
        assert set(connection.scalars(query)) == {after}


def test_attempt_that_was_played_again_replaces_the_earlier_one(home: Settings) -> None:
    with connect(home.database) as connection:
        own = variant(connection, "one")
        later = play(connection, own, "card", created_s=START_S + 5)
        play(connection, own, "card", created_s=START_S)
        other = play(connection, own, "card", attempt=1)
        assert set(rollups.load(connection, rollups.SESSIONS.c.variant == own).ids) == {later, other}


def test_request_that_arrives_after_the_rollup_is_in_the_next_one(home: Settings) -> None:
    with connect(home.database) as connection:
        own = variant(connection, "one")
        id = play(connection, own, "card", requests=[{}])
        assert rollups.finalise(connection, id)["requests"] == 1
        fields = {"status": "ok", "latency_ms": 10.0, "endpoint": "chat"}
        request = "00000000-0000-4000-8000-000000000001"
        ingest(connection, [Event("end", event_id(request, "end"), request, id, START_S, "host:1:1", fields)])
        assert rollups.refresh(connection, "variant", own)["requests"] == 2


def test_request_of_a_status_class_and_price_that_nobody_knows_is_packed() -> None:
    row = dict.fromkeys(READ) | {
        "status": "error",
        "error_class": "from the future",
        "tokens_in": 2**60,
        "started_s": 1.0,
    }
    words, records = unpack(pack([row]))
    assert len(words) > 2
    assert len(records) == len(unpack(pack([row, row]))[1]) / 2


ROWS = st.lists(
    st.lists(st.one_of(st.none(), st.floats(0, 1e6), st.integers(0, 1000).map(float)), max_size=6), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_sums_and_medians_of_sessions_are_those_of_plain_python(latencies: list[list[float | None]]) -> None:
    rows = [
        {"id": f"s{i}", "task_card": f"c{i}", "attempt": 0, "solved": None, "score": None, "metadata": None}
        for i in range(len(latencies))
    ]
    blank = dict.fromkeys(READ) | {"status": "ok"}
    blobs = [pack([{**blank, "latency_ms": value} for value in values]) for values in latencies]
    found = Columns.of(rows, blobs)
    values = found.figure("latency_ms")
    for place, session in enumerate(latencies):
        known = sorted(value for value in session if value is not None)
        if known:
            assert found.total(values)[place] == pytest.approx(math.fsum(known))
            assert found.median(values)[place] == statistics.percentiles(known, (50,))["p50"]
            assert found.largest(values)[place] == known[-1]
        else:
            assert np.isnan(
                [found.total(values)[place], found.median(values)[place], found.largest(values)[place]]
            ).all()


def test_percentiles_are_exact_over_all_requests(home: Settings) -> None:
    draw = random.Random(3)
    latencies = [draw.expovariate(0.001) for _ in range(997)]
    with connect(home.database) as connection:
        own = variant(connection, "one")
        for at in range(0, len(latencies), 100):
            play(
                connection,
                own,
                f"card/{at}",
                requests=[{"latency_ms": value} for value in latencies[at : at + 100]],
            )
        found = rollups.refresh(connection, "variant", own)
    expected = statistics.percentiles(latencies, (50, 95, 99))
    assert {name: found[f"latency.{name}"] for name in expected} == expected


@pytest.mark.parametrize("name", metrics.names())
def test_metric_is_described_and_estimates_what_it_computes(home: Settings, name: str) -> None:
    metric = metrics.load(name)
    assert metric.title == metric.title.strip()
    assert metric.note.endswith(".")
    assert metric.unit in {"ms", "s", "USD", "tokens", "tokens/s", "share", "requests", "ratio", "score"}
    with connect(home.database) as connection:
        _, own, _ = stored_sessions.experiment(connection, cards=5, attempts=2)
        found = rollups.load(connection, rollups.SESSIONS.c.variant == own)
    estimates, values = metric.estimate(found), metric.values(found)
    assert estimates.keys() == values.keys()
    for figure, estimate in estimates.items():
        assert (estimate.value, estimate.count) == pytest.approx(values[figure])
        assert estimate.low <= estimate.value <= estimate.high


def test_metrics_have_places_of_their_own() -> None:
    orders = [metrics.load(name).order for name in metrics.names()]
    assert len(set(orders)) == len(orders)


def test_layout_is_the_only_rollup_with_columns(home: Settings, tmp_path: Path) -> None:
    with connect(home.database) as connection:
        rollups.finalise(connection, play(connection, variant(connection, "one"), "card"))
        query = select(rollups.ROLLUPS.c.metric).where(rollups.ROLLUPS.c.columns.is_not(None))
        assert connection.scalars(query).all() == [LAYOUT]
