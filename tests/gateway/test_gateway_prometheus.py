"""Counters read from Prometheus: their growth as a pure function, and read back from a real server that scraped us."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from lab_at_hand import fill, request_row
from melete.errors import ConfigError, StorageError
from melete.gateway import exporter, reconcile
from melete.gateway.collectors import prometheus as counters
from melete.gateway.collectors.prometheus import Reading, growth
from melete.settings import Settings
from melete.store import database
from melete.store.models import MetricRollupRow, RequestRow, SpendLogRow
from prometheus_at_hand import prometheus

STEPS = st.lists(st.integers(0, 50), min_size=1, max_size=30)


@given(STEPS, st.sets(st.integers(1, 29)))
def test_growth_over_restarts_is_the_sum_of_what_was_counted(steps: list[int], restarts: set[int]) -> None:
    samples, value, counted = [], 0, 0
    for at, step in enumerate(steps):
        # A restart is seen only where the new value is below the old one.
        if at in restarts and step < value:
            value = 0
        value += step
        counted += step
        samples.append((float(at), float(value)))
    assert growth(samples, 0.0, born=True) == counted


@given(STEPS, st.integers(0, 30))
def test_growth_counts_nothing_from_before_the_window(steps: list[int], since: int) -> None:
    total = 0
    samples = [(float(at), float(total := total + step)) for at, step in enumerate(steps)]
    before = sum(steps[: min(since, len(steps))])
    assert growth(samples, float(since), born=True) == total - before


def test_growth_of_a_series_from_the_first_scrape_on_begins_at_its_value() -> None:
    assert growth([(1.0, 500.0), (2.0, 503.0)], 0.0, born=False) == 3.0


@pytest.mark.parametrize(
    ("url", "window"), [("file:///etc/passwd", (0.0, 1.0)), ("http://127.0.0.1:1", (1.0, 1.0))]
)
def test_url_or_window_that_makes_no_sense_is_a_config_error(url: str, window: tuple[float, float]) -> None:
    with pytest.raises(ConfigError):
        counters.read(url, *window)


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server that answers everything with the same body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://user:hunter2@127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'{"status": "error", "error": "no"}', b'{"status": "success", "data": {}}'],
)
def test_server_that_is_no_prometheus_is_a_storage_error_without_its_password(body: bytes) -> None:
    with answering(body) as url, pytest.raises(StorageError, match="cannot be read") as caught:
        counters.read(url, 0.0)
    assert "hunter2" not in str(caught.value)
    assert url.rpartition("@")[2].split("/")[0] in str(caught.value)


def test_readings_are_kept_beside_ours_and_replace_the_earlier_ones(home: Settings) -> None:
    with database.connect(home.database) as connection:
        fill(connection)
        ours = connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(MetricRollupRow))
        for value in (5.0, 7.0):
            counters.keep(connection, [Reading("exporter", "variant", "plain", "requests", value, 3)])
        query = sqlalchemy.select(MetricRollupRow).where(MetricRollupRow.scope == "source")
        (row,) = connection.execute(query.with_only_columns(*MetricRollupRow.__table__.columns)).mappings()
        assert (row["scope_id"], row["metric"], row["value"], row["count"]) == (
            "exporter/variant/plain", "requests", 7.0, 3,
        )  # fmt: skip
        total = connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(MetricRollupRow))
        assert total == ours + 1


def test_reconcile_compares_each_witness_with_what_it_can_have_seen(home: Settings) -> None:
    with database.connect(home.database) as connection:
        made = fill(connection, begun_s=1_000.0)
        rollout = request_row(made["plain"][0], 1_500.0, source="rollout")
        both = request_row(made["plain"][0], 1_501.0, source="hook,spend_logs")
        connection.execute(sqlalchemy.insert(RequestRow), [rollout, both])
        readings = [
            Reading("exporter", "variant", "plain", "requests", 32.0, 9),
            Reading("exporter", "variant", "careful", "requests", 28.0, 9),
            Reading("litellm", "model", "small", "requests", 61.0, 9),
            Reading("litellm", "model", "stranger", "requests", 2.0, 9),
            Reading("litellm", "model", "small", "cost_usd", 1.0, 9),
        ]
        lines = reconcile.reconcile(connection, readings, 0.0, 2_000.0)
    found = {(line.source, line.name): (line.ours, line.seen, line.difference) for line in lines}
    assert found["hook", "plain"] == (32, 31, 0)
    assert found["exporter", "plain"] == (32, 32, 0)
    assert found["exporter", "careful"] == (30, 28, -2)
    assert found["litellm", "small"] == (62, 61, 0)
    assert found["litellm", "stranger"] == (0, 2, 2)
    assert ("spend_logs", "plain") not in found  # no log was read
    by_name = {(line.source, line.name): line.sentence for line in lines}
    assert "agrees: 31 requests of variant plain (without 1 rollout" in by_name["hook", "plain"]
    assert "counted 2 fewer than our 30" in by_name["exporter", "careful"]
    assert "without a session of ours" in by_name["litellm", "stranger"]


def test_reconcile_with_all_three_witnesses_counts_each_request_once(home: Settings) -> None:
    with database.connect(home.database) as connection:
        made = fill(connection, begun_s=1_000.0)
        connection.execute(sqlalchemy.update(RequestRow).values(source="hook,spend_logs"))
        late = sqlalchemy.select(RequestRow.id).where(RequestRow.session_id == made["careful"][0]).limit(3)
        connection.execute(
            sqlalchemy.update(RequestRow)
            .where(RequestRow.id.in_(late.scalar_subquery()))
            .values(source="hook")
        )
        alone = request_row(made["plain"][0], 1_400.0, source="spend_logs")
        connection.execute(sqlalchemy.insert(RequestRow), [alone])
        log = {
            "origin": "o",
            "id": "1",
            "started_s": 1.0,
            "ended_s": 2.0,
            "fields": {},
            "request_id": alone["id"],
        }
        connection.execute(sqlalchemy.insert(SpendLogRow), [log])
        readings = [
            Reading("exporter", "variant", "plain", "requests", 31.0, 9),
            Reading("litellm", "model", "small", "requests", 61.0, 9),
        ]
        lines = reconcile.reconcile(connection, readings, 0.0, 2_000.0)
    found = {(line.source, line.name): (line.ours, line.seen, line.difference) for line in lines}
    assert found["hook", "plain"] == (31, 30, -1)
    assert found["spend_logs", "plain"] == (31, 31, 0)
    assert found["spend_logs", "careful"] == (30, 27, -3)
    assert found["spend_logs", "none"] == (1, 1, 1)  # refused before LiteLLM, and yet in its log
    assert found["exporter", "plain"] == (31, 31, 0)
    assert found["litellm", "small"] == (61, 61, 0)


def test_reconcile_command_shows_each_witness(
    home: Settings, call: Callable[..., tuple[int, str, str]]
) -> None:
    with database.connect(home.database) as connection:
        fill(connection, begun_s=time.time() - 3_000)
    code, out, _ = call("bench", "reconcile")
    assert code == 0
    assert out.splitlines()[1].split()[1:4] == ["careful", "hook", "30"]


@pytest.mark.slow
def test_real_prometheus_gives_back_what_our_page_counted(home: Settings) -> None:
    begun_s = time.time()
    with database.connect(home.database) as connection:
        fill(connection, begun_s=begun_s - 3_000)
    with exporter.serve(home, 0) as page, prometheus({"melete": (page.url, None)}) as server:
        assert server.wait_for('up{job="melete"}', 1) == 1
        server.wait_for("sum(melete_requests_total)", 61)
        with database.connect(home.database) as connection:
            session = connection.scalar(sqlalchemy.text("SELECT min(id) FROM session"))
            rows = [request_row(session, time.time() - 1 + n / 10) for n in range(5)]
            rows += [request_row(None, time.time() - 1, model_asked=None)]
            connection.execute(sqlalchemy.insert(RequestRow), rows)
        server.wait_for("sum(melete_requests_total)", 67)
        readings = counters.read(server.url, begun_s)
    found = {(r.name, r.figure): r.value for r in readings if r.source == "exporter"}
    assert found["plain", "requests"] == 5  # of 35: the others were counted before the first scrape
    assert found["careful", "requests"] == 0
    assert found["none", "requests"] == 1
    assert found["plain", "tokens_in"] == 500
    assert found["plain", "cost_usd"] == pytest.approx(0.005)
