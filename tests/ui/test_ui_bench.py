"""Bench's pages and what they need of the API: experiments, sessions so far, requests, comparisons, the gateway."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from markupsafe import escape
from sqlalchemy import insert
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from lab_at_hand import REQUESTS_PER_SESSION, fill, request_row
from melete.api.whole import mounts
from melete.gateway import entities, sessions, state
from melete.records import SessionState
from melete.settings import Settings
from melete.store import database
from melete.store.models import RequestRow

SCRIPT = "<script>alert(1)</script>"


def site_of(settings: Settings) -> TestClient:
    """Pages and API, without a gate."""
    return TestClient(Starlette(routes=[Mount(path, one) for path, one in mounts(settings).items()]))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with the lab in its store."""
    home = tmp_path_factory.mktemp("home")
    made = Settings.of(home)
    with database.connect(made.database) as connection:
        fill(connection)
    return made


@pytest.fixture(scope="module")
def site(settings: Settings) -> Iterator[TestClient]:
    """Pages and API over it."""
    with site_of(settings) as client:
        yield client


def page(site: TestClient, path: str, status: int = 200) -> str:
    answer = site.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


def get(site: TestClient, path: str, **asked: Any) -> Any:
    answer = site.get(f"/api/v1{path}", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_bench_of_an_empty_home_says_what_to_do_first(home: Settings) -> None:
    shown = page(site_of(home), "/bench")
    assert "No experiment yet" in shown
    for command in ("melete bench init", "melete gateway up", "melete bench run first_steps"):
        assert command in shown
    assert "No session yet" in page(site_of(home), "/bench/sessions")
    assert "None was in force yet" in page(site_of(home), "/bench/texts/variants")


def test_progress_of_an_experiment_counts_its_sessions(site: TestClient) -> None:
    (experiment,) = get(site, "/experiments")["data"]
    progress = get(site, f"/experiments/{experiment['id']}/progress")
    assert (progress["sessions"], progress["states"]) == (12, {"finalised": 12})
    by_name = {one["name"]: one for one in progress["variants"]}
    assert {(one["solved"], one["failed"]) for one in by_name.values()} == {(3, 3)}
    assert set(by_name) == {"plain", "careful"}
    assert site.get("/api/v1/experiments/none@0/progress").status_code == 404


def test_traffic_sums_the_requests_of_sessions(site: TestClient) -> None:
    (session,) = get(site, "/sessions", limit=1)["data"]
    (row,) = get(site, "/traffic", sessions=session["id"])["data"]
    assert (row["requests"], row["failed"]) == (REQUESTS_PER_SESSION, 1)
    assert (row["tokens_in"], row["tokens_out"]) == (500, 100)
    assert row["cost_usd"] == pytest.approx(0.005)
    (nothing,) = get(site, "/traffic", sessions="s-none")["data"]
    assert (nothing["requests"], nothing["tokens_in"]) == (0, None)


def test_gateway_is_up_only_while_its_supervisor_lives(home: Settings) -> None:
    site = site_of(home)
    assert get(site, "/gateway")["state"] == "down"
    told = state.State("up", 1, "127.0.0.1", 4000, "0", time.time(), "1.0", ("small",), {"openai": "0"})
    state.write(home, told)
    assert not get(site, "/gateway")["up"]  # the file alone is no life
    with state.claim(home) as held:  # type: ignore[union-attr]
        assert held is not None
        found = get(site, "/gateway")
        assert (found["up"], found["url"], found["models"]) == (True, "http://127.0.0.1:4000", ["small"])
        state.write(home, replace(told, trouble="no key"))
        shown = page(site, "/parts/bench/now")
        assert "http://127.0.0.1:4000" in shown
        assert "no key" in shown
    assert "melete gateway up" in page(site, "/bench")


def test_live_session_is_shown_with_what_it_has_sent(settings: Settings, site: TestClient) -> None:
    with database.connect(settings.database) as connection:
        opened = sessions.open_session(connection, state="live", model="small", started_s=time.time())
        rows = [
            request_row(opened.id, time.time(), tokens_in=7),
            request_row(opened.id, time.time() + 1, status="error"),
        ]
        connection.execute(insert(RequestRow), rows)
    (row,) = re.findall(rf"<tr>(?:(?!</tr>).)*{opened.id}.*?</tr>", page(site, "/parts/bench/now"), re.S)
    assert '2 <span class="problem">1 failed' in row
    assert "107, 40" in row
    assert f'data-live="/parts/bench/sessions/{opened.id}"' in page(site, f"/bench/sessions/{opened.id}")
    with database.connect(settings.database) as connection:
        sessions.move(connection, opened.id, SessionState.ABORTED)


def test_experiments_and_sessions_lead_to_each_other(site: TestClient) -> None:
    bench = page(site, "/bench")
    (path,) = set(re.findall(r'href="(/bench/experiments/trial%40[^"]+)"', bench))
    experiment = page(site, path)
    assert "12 finalised" in bench
    assert f'data-href="{path}"' in page(site, "/parts/palette?q=trial")
    (session, *_) = re.findall(r'href="(/bench/sessions/s-[^"]+)"', experiment)
    shown = page(site, session)
    assert shown.count('href="/bench/requests/') == REQUESTS_PER_SESSION
    assert "rate_limit" in shown
    assert "400 ms" not in shown  # each has a latency of its own
    assert path in shown
    (request, *_) = re.findall(r'href="(/bench/requests/[^"]+)"', shown)
    assert page(site, request).count('<li class="card"><h3>') == 2


def test_sessions_are_filtered_by_the_address(site: TestClient) -> None:
    shown = page(site, "/bench/sessions?variant=plain&solved=true")
    wanted = [one["id"] for one in get(site, "/sessions", variant="plain", solved=True)["data"]]
    assert re.findall(r'href="/bench/sessions/(s-[^"]+)"', shown) == wanted
    assert "No session matches" in page(site, "/bench/sessions?model=none")
    assert "state" in page(site, "/bench/sessions?state=asleep", 400)


def test_comparison_tells_differences_with_intervals_in_words(site: TestClient) -> None:
    shown = page(site, "/parts/bench/report?before=plain&after=careful")
    report = get(site, "/comparisons", before="plain", after="careful")
    (found,) = report["comparisons"]
    assert f"On {found['task_cards']} task cards" in shown
    for row in found["differences"]:
        assert escape(f"{report['metrics'][row['metric']]['compared']}: {row['sentence']}.") in shown
    success = next(row for row in found["differences"] if row["metric"] == "success")
    assert f"{100 * success['before']:.1f} %" in shown
    assert 'hx-get="/parts/bench/report?before=plain&amp;after=careful"' in page(
        site, "/bench/compare?before=plain&after=careful"
    )


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("before=plain&after=nobody", "nobody"),
        ("before=plain&after=plain", "same variant"),
        ("before=plain", "needs two variants or an experiment"),
        ("experiment=none", "none"),
    ],
)
def test_comparison_that_cannot_be_made_says_why(site: TestClient, query: str, says: str) -> None:
    shown = page(site, f"/parts/bench/report?{query}")
    assert 'role="alert"' in shown
    assert says in shown


def test_texts_that_were_in_force_are_shown_and_an_unknown_kind_is_404(site: TestClient) -> None:
    assert ">careful</a>" in page(site, "/bench/texts/variants")
    (one,) = get(site, "/variants", name="careful")["data"]
    assert "&#34;model&#34;: &#34;small&#34;" in page(site, f"/bench/texts/variants/{one['id']}")
    page(site, "/bench/texts/secrets", 404)
    assert "There is no" in page(site, "/bench/texts/variants/none@0", 404)


def test_hostile_names_and_documents_are_text(home: Settings) -> None:
    with database.connect(home.database) as connection:
        made = {
            kind: entities.record(
                connection, kind, SCRIPT, {"name": SCRIPT, "description": SCRIPT, "x": "y" * 1_000_000}
            )
            for kind in ("variant", "experiment", "task_card")
        }
        opened = sessions.open_session(
            connection, state="finalised", **made, model=SCRIPT, started_s=1.0, outcome_note=SCRIPT, solved=True,
            metadata={SCRIPT: SCRIPT, "run": SCRIPT, "episode": SCRIPT},
        )  # fmt: skip
        connection.execute(
            insert(RequestRow), [request_row(opened.id, 2.0, error_class=SCRIPT, model_answered=SCRIPT)]
        )
    site = site_of(home)
    for path in (
        "/bench",
        "/bench/sessions",
        f"/bench/sessions/{opened.id}",
        "/bench/texts/variants",
        "/bench/compare",
    ):
        shown = page(site, path)
        assert SCRIPT not in shown, path
        assert html.escape(SCRIPT) in shown, path
    for link in re.findall(
        r'href="(/bench/(?:experiments|texts/variants)/[^"]+)"',
        page(site, "/bench") + page(site, "/bench/texts/variants"),
    ):
        assert SCRIPT not in page(site, html.unescape(link))
