"""LiteLLM's own page of metrics has the names that we read, and a Prometheus that scrapes it agrees with our rows."""

from __future__ import annotations

import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from gateway_at_hand import AtHand, Lent, at_hand
from melete.gateway import config, exporter, reconcile
from melete.gateway.collectors import prometheus as counters
from melete.gateway.config import scrape_key
from melete.store import database
from melete.store.models import SessionRow
from prometheus_at_hand import prometheus

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]
CALLS = 4


def call(hand: AtHand, lent: Lent, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    answer = httpx.post(f"{hand.url}/v1/chat/completions", headers=lent.headers, json=body, timeout=60)
    assert answer.status_code == 200, answer.text


def test_page_of_litellm_has_the_metrics_that_we_read_with_bounded_labels() -> None:
    hand = at_hand()
    lent = hand.session()
    call(hand, lent, "echo")
    hand.requests(lent.id, 1)
    headers = {"Authorization": f"Bearer {scrape_key(hand.settings)}"}
    page = httpx.get(f"{hand.url}/metrics/", headers=headers, timeout=30)
    assert page.status_code == 200
    samples = [s for family in text_string_to_metric_families(page.text) for s in family.samples]
    names = {sample.name for sample in samples}
    # A label that LiteLLM does not know for one metric makes all of them vanish without an error.
    wanted = {counter.series for counter in counters.COUNTERS if counter.source == "litellm"}
    assert wanted <= names
    kept = {name for group in config.LABELS for name in group["metrics"]}
    labels = {name for s in samples if any(s.name.startswith(one) for one in kept) for name in s.labels}
    assert labels <= {
        "requested_model",
        "status_code",
        "exception_status",
        "exception_class",
        "model_group",
        "le",
    }
    assert lent.id not in page.text
    assert lent.key not in page.text


def test_words_of_a_client_reach_neither_page() -> None:
    hand = at_hand()
    lent = hand.session()
    canary = "SECRET-canary-on-a-page"
    said = [{"role": "user", "content": canary}]
    tools = [
        {
            "type": "function",
            "function": {"name": "f", "description": canary, "parameters": {"type": "object"}},
        }
    ]
    named = {
        "x-litellm-tags": canary,
        "x-litellm-call-id": canary,
        "User-Agent": canary,
        "x-litellm-end-user-id": canary,
    }
    for body in (
        {"model": canary, "messages": said},
        {"model": "echo", "messages": said, "tools": tools, "user": canary, "metadata": {"tags": [canary]}},
        {"model": "echo", "messages": said, "fallbacks": [canary], canary: canary},
    ):
        for headers in (lent.headers, {**lent.headers, **named}, {"Authorization": f"Bearer sk-{canary}"}):
            httpx.post(f"{hand.url}/v1/chat/completions", headers=headers, json=body, timeout=60)
            httpx.post(f"{hand.url}/v1/{canary}", headers=headers, json=body, timeout=60)
    call(hand, lent, "echo")
    hand.requests(lent.id, 2)
    scrape = {"Authorization": f"Bearer {scrape_key(hand.settings)}"}
    time.sleep(exporter.FRESH_S)  # a page this young is served again
    pages = [
        httpx.get(f"{hand.url}/metrics/", headers=scrape, timeout=30).text,
        httpx.get(str(hand.gateway.metrics_url), timeout=30).text,
    ]
    for page in pages:
        assert 'model="echo"' in page
        assert "canary" not in page.lower()


@pytest.mark.parametrize("token", [None, "session", "wrong"])
def test_page_of_litellm_is_refused_without_the_scrape_key(token: str | None) -> None:
    hand = at_hand()
    key = hand.session().key if token == "session" else token
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    assert httpx.get(f"{hand.url}/metrics/", headers=headers, timeout=30).status_code in (401, 403)


def test_prometheus_that_scrapes_litellm_and_us_agrees_with_our_rows() -> None:
    hand = at_hand()
    pages = {
        "litellm": (f"{hand.url}/metrics/", scrape_key(hand.settings)),
        "melete": (str(hand.gateway.metrics_url), None),
    }
    with prometheus(pages) as server:
        server.wait_for("sum(up)", 2)
        since_s = time.time()
        lent = hand.session()
        with database.connect(hand.settings.database) as connection:
            connection.execute(update(SessionRow).where(SessionRow.id == lent.id).values(variant="witness@0"))
        for model in ("echo", "echo-messages"):
            for _ in range(CALLS):
                call(hand, lent, model)
        rows = hand.requests(lent.id, 2 * CALLS)
        assert len(rows) == 2 * CALLS
        wanted = {
            ("litellm", "echo"): CALLS,
            ("litellm", "echo-messages"): CALLS,
            ("exporter", "witness"): 2 * CALLS,
        }
        deadline = time.monotonic() + 30
        while True:
            readings = counters.read(server.url, since_s)
            found = {(r.source, r.name): r.value for r in readings if r.figure == "requests"}
            if wanted.items() <= found.items() or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        with database.connect(hand.settings.database) as connection:
            lines = reconcile.reconcile(connection, readings, since_s, time.time())
    by_witness = {(line.source, line.name): line for line in lines}
    for model in ("echo", "echo-messages"):
        assert by_witness["litellm", model].difference == 0, by_witness["litellm", model].sentence
        tokens = {(r.name, r.figure): r.value for r in readings if r.source == "litellm"}
        ours = [row for row in rows if row["model_asked"] == model]
        assert tokens[model, "tokens_in"] == sum(row["tokens_in"] for row in ours)
        assert tokens[model, "tokens_out"] == sum(row["tokens_out"] for row in ours)
    for witness in ("hook", "exporter"):
        assert by_witness[witness, "witness"].seen == 2 * CALLS
        assert by_witness[witness, "witness"].difference == 0
