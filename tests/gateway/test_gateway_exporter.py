"""Our page of metrics: what it says is what the database holds, and its labels stay few and of our own words."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lab_at_hand import BEGUN_S, fill, lab, lab_file, request_row  # noqa: F401
from melete.errors import ServerError
from melete.gateway import exporter
from melete.gateway.exporter import Figures
from melete.settings import Settings
from melete.store import database
from melete.store.models import RequestRow
from postgres_at_hand import postgres, store  # noqa: F401


@pytest.fixture
def engine(lab: Settings) -> Iterator[sqlalchemy.Engine]:  # noqa: F811
    """The lab's database."""
    opened = database.open_engine(lab.database)
    yield opened
    opened.dispose()


def values(figures: Figures, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Sorted labels to value of the samples of a name."""
    samples = [sample for family in figures.collect() for sample in family.samples]
    return {tuple(sorted(s.labels.items())): s.value for s in samples if s.name == name}


def total(figures: Figures, name: str) -> float:
    return sum(values(figures, name).values())


def add(engine: sqlalchemy.Engine, *rows: dict[str, object]) -> None:
    with engine.begin() as connection:
        connection.execute(sqlalchemy.insert(RequestRow), list(rows))


def test_page_counts_what_the_database_holds(engine: sqlalchemy.Engine) -> None:
    figures = Figures(engine, now=lambda: BEGUN_S + 1_000)
    requests = values(figures, "melete_requests_total")
    labels = {"model": "small", "provider": "openai", "variant": "plain"}
    assert requests[tuple(sorted({**labels, "status": "ok"}.items()))] == 24
    assert requests[tuple(sorted({**labels, "status": "error"}.items()))] == 6
    assert sum(requests.values()) == 61
    assert total(figures, "melete_cost_usd_total") == pytest.approx(0.061)
    assert total(figures, "melete_request_duration_seconds_count") == 61
    assert total(figures, "melete_time_to_first_token_seconds_count") == 49
    assert total(figures, "gen_ai_client_operation_duration_seconds_count") == 61
    assert total(figures, "melete_sessions") == 12


def test_histogram_counts_each_request_in_the_buckets_above_its_latency(engine: sqlalchemy.Engine) -> None:
    add(
        engine,
        request_row("s-x", BEGUN_S, latency_ms=250.0),
        request_row("s-y", BEGUN_S, latency_ms=400_000.0),
    )
    figures = Figures(engine, now=lambda: BEGUN_S)
    buckets = values(figures, "melete_request_duration_seconds_bucket")
    own = {dict(key)["le"]: value for key, value in buckets.items() if dict(key)["variant"] == "none"
           and dict(key)["provider"] == "openai"}  # fmt: skip
    assert (own["0.1"], own["0.25"], own["300.0"], own["+Inf"]) == (0, 1, 1, 2)


@pytest.mark.parametrize("age_s", [0.0, 400.0, 5_000.0, 100_000.0])
def test_page_is_the_same_whatever_is_counted_as_old(engine: sqlalchemy.Engine, age_s: float) -> None:
    whole = Figures(engine, now=lambda: BEGUN_S + 600)
    moved = Figures(engine, now=lambda: BEGUN_S + 600 + age_s)
    for name in ("melete_requests_total", "melete_tokens_total", "melete_request_duration_seconds_bucket"):
        assert values(moved, name) == values(whole, name)


def test_next_page_has_what_was_recorded_since(engine: sqlalchemy.Engine) -> None:
    clock = [BEGUN_S + 10_000]
    figures = Figures(engine, now=lambda: clock[0])
    before = total(figures, "melete_requests_total")
    add(engine, request_row("s-new", clock[0] - 5))
    assert total(figures, "melete_requests_total") == before  # served again within two seconds
    clock[0] += 3
    assert total(figures, "melete_requests_total") == before + 1


def test_request_recorded_long_after_its_time_is_counted_within_the_hour(engine: sqlalchemy.Engine) -> None:
    clock = [BEGUN_S + 10_000]
    figures = Figures(engine, now=lambda: clock[0])
    before = total(figures, "melete_requests_total")
    add(engine, request_row("s-late", BEGUN_S + 1))
    clock[0] += 3_600
    assert total(figures, "melete_requests_total") == before + 1


def test_clock_that_jumps_back_counts_nothing_twice(engine: sqlalchemy.Engine) -> None:
    clock = [BEGUN_S + 10_000]
    figures = Figures(engine, now=lambda: clock[0])
    before = total(figures, "melete_requests_total")
    clock[0] -= 9_800
    assert total(figures, "melete_requests_total") == before


def test_labels_are_capped_and_the_rest_is_other(engine: sqlalchemy.Engine) -> None:
    add(engine, *(request_row(f"s-{n}", BEGUN_S + n, model_asked=f"model {n}") for n in range(300)))
    figures = Figures(engine, now=lambda: BEGUN_S + 1_000)
    by_model: Counter[str] = Counter()
    for key, value in values(figures, "melete_requests_total").items():
        by_model[dict(key)["model"]] += int(value)
    assert len(by_model) == exporter.MOST_VALUES + 1
    assert sum(by_model.values()) == 361
    assert by_model["other"] == 361 - sum(count for name, count in by_model.items() if name != "other")
    assert total(figures, "melete_label_overflow_total") == 300 + 2 - exporter.MOST_VALUES


def test_page_shows_no_session_key_or_text_of_a_client(engine: sqlalchemy.Engine) -> None:
    canary = "SECRET-canary"
    add(
        engine,
        request_row("s-SECRET-canary", BEGUN_S, call_id=canary, client=canary, upstream_request_id=canary),
        request_row(None, BEGUN_S, status="refused", model_asked=canary),
    )
    registry = CollectorRegistry()
    registry.register(Figures(engine, now=lambda: BEGUN_S))
    page = generate_latest(registry).decode()
    assert "melete_requests_total" in page
    assert canary not in page
    assert "s-2" not in page


def test_page_is_one_that_prometheus_can_read(engine: sqlalchemy.Engine, lab: Settings) -> None:  # noqa: F811
    with exporter.serve(lab, 0) as page:
        families: list[Metric] = list(text_string_to_metric_families(httpx.get(page.url).text))
    assert {"melete_requests", "melete_tokens", "melete_cost_usd", "melete_sessions"} <= {
        f.name for f in families
    }
    names = {name for family in families for sample in family.samples for name in sample.labels}
    assert names <= {
        "variant", "model", "provider", "status", "error_class", "kind", "state", "outcome", "le", "label",
        "melete_variant", "gen_ai_request_model", "gen_ai_provider_name",
    }  # fmt: skip


def test_database_that_is_away_leaves_the_last_page_and_says_so(lab: Settings) -> None:  # noqa: F811
    clock = [BEGUN_S]
    engine = database.open_engine(lab.database)
    figures = Figures(engine, now=lambda: clock[0])
    before = total(figures, "melete_requests_total")
    away = sqlalchemy.create_engine("sqlite:////no/such/folder/melete.db")
    figures._engine = away
    clock[0] += 10
    assert total(figures, "melete_database_up") == 0
    assert total(figures, "melete_requests_total") == before
    engine.dispose()


def test_port_in_use_is_a_server_error(home: Settings) -> None:
    with exporter.serve(home, 0) as page, pytest.raises(ServerError, match=str(page.port)):
        exporter.serve(home, page.port)


@pytest.mark.slow
def test_metrics_command_serves_the_page_until_it_is_told_to_stop(home: Settings) -> None:
    command = [sys.executable, "-m", "melete", "gateway", "metrics", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url = child.stdout.readline().removeprefix("Metrics at ").strip()
        assert "melete_database_up 1.0" in httpx.get(url).text
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=20) == 0
