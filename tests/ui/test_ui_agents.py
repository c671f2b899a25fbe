"""Agents' pages, asked in process: scenarios, what practice changed, episodes and their filters, hostile traces."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from markupsafe import escape
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from melete.actions.trace import TraceWriter
from melete.api.whole import mounts
from melete.serve import deployment
from melete.settings import Settings
from practice_at_hand import SCENARIO, TASKS, fill_practice

SCRIPT = "<script>alert(1)</script>"
OwnScenario = Callable[[str, str], TestClient]
AWAY = """\"\"\"A shop whose data is elsewhere.\"\"\"

from melete.agents.scenarios.customer_support import CustomerSupport


class FarAway(CustomerSupport):
    name = "far_away"

    def unavailable(self):
        return "Its <data> is not at hand."


SCENARIO = FarAway
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home for all tests of this file."""
    return Settings.of(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def run(settings: Settings) -> str:
    """A run of practice in it."""
    return fill_practice(settings)


@pytest.fixture(scope="module")
def site(settings: Settings, run: str) -> Iterator[TestClient]:
    """Pages and API, without a gate."""
    app = Starlette(routes=[Mount(path, one) for path, one in mounts(settings).items()])
    with TestClient(app) as client:
        yield client


@pytest.fixture
def own(home: Settings, monkeypatch: pytest.MonkeyPatch) -> OwnScenario:
    """Writes a scenario of the user's own into an empty home, and gives the site over it."""

    def written(name: str, text: str) -> TestClient:
        monkeypatch.setenv("MELETE_HOME", str(home.home))
        folder = home.home / "scenarios"
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(text)
        return TestClient(Starlette(routes=[Mount(path, one) for path, one in mounts(home).items()]))

    return written


def page(site: TestClient, path: str, status: int = 200) -> str:
    answer = site.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


def episodes(site: TestClient, run: str, **asked: Any) -> list[dict[str, Any]]:
    """What the API lists."""
    found: list[dict[str, Any]] = site.get(f"/api/v1/runs/{run}/episodes", params=asked).json()["data"]
    return found


def test_agents_page_has_a_card_for_each_scenario(site: TestClient) -> None:
    shown = page(site, "/agents")
    for one in site.get("/api/v1/scenarios").json()["data"]:
        assert f'<a href="/agents/{one["name"]}">' in shown


def test_scenario_that_cannot_be_played_says_why_and_offers_no_practice(own: OwnScenario) -> None:
    site = own("far_away", AWAY)
    (card,) = re.findall(
        r'<li class="card scenario">(?:(?!</li>).)*far_away.*?</li>', page(site, "/agents"), re.S
    )
    assert "not playable here" in card
    assert "Its &lt;data&gt; is not at hand." in card
    shown = page(site, "/agents/far_away")
    assert "It cannot be played here" in shown
    assert "process=agents.train" not in shown


def test_agents_page_without_runs_says_what_to_do_first(home: Settings) -> None:
    app = Starlette(routes=[Mount(path, one) for path, one in mounts(home).items()])
    shown = page(TestClient(app), "/agents")
    assert "Nobody has practised yet" in shown
    assert "melete agents train" in shown


def test_agents_page_lists_runs_with_what_they_proved(site: TestClient, run: str) -> None:
    (row,) = re.findall(
        rf'<tr>\s*<th scope="row"><a href="/agents/runs/{run}".*?</tr>', page(site, "/agents"), re.S
    )
    before, after = (
        site.get(f"/api/v1/runs/{run}").json()["result"][when][0] for when in ("before", "after")
    )
    for measured in (before, after):
        assert f"{100 * measured['reliability'][0]:.1f} %" in row
        assert f"{100 * measured['success'][0]:.1f} %" in row


def test_scenario_page_tells_its_terms(site: TestClient) -> None:
    terms = site.get(f"/api/v1/scenarios/{SCENARIO}").json()
    about = page(site, f"/agents/{SCENARIO}")
    assert escape(terms["system_prompt"]) in about
    assert all(escape(one["description"]) in about for one in terms["criteria"])
    assert f"/jobs/new?process=agents.train&amp;scenario={SCENARIO}" in about
    assert "allow list" in about
    tools = page(site, f"/agents/{SCENARIO}?tab=tools")
    assert all(tool["function"]["name"] in tools for tool in terms["tools"])
    tasks = page(site, f"/agents/{SCENARIO}?tab=tasks&split=unseen")
    asked = site.get(f"/api/v1/scenarios/{SCENARIO}/tasks", params={"split": "unseen", "limit": 20}).json()[
        "data"
    ]
    assert all(f">{task['id']}<" in tasks for task in asked)
    assert run_names(page(site, f"/agents/{SCENARIO}?tab=runs")) == ["practice"]


def run_names(shown: str) -> list[str]:
    """Names of the runs in a table."""
    return re.findall(r'<a href="/agents/runs/[^"]+">([^<]+)</a>', shown)


@pytest.mark.parametrize(
    "path", ["/agents/nothing", "/agents/runs/nothing", "/agents/runs/{run}/episodes/after-x:9"]
)
def test_page_of_what_is_not_there_is_404_with_what_is_known(site: TestClient, run: str, path: str) -> None:
    shown = page(site, path.format(run=run), 404)
    assert 'role="alert"' in shown
    assert "There is no" in shown


def test_own_scenario_that_is_broken_is_one_card_with_its_error(own: OwnScenario) -> None:
    shown = page(own("half_done", '"""Half of a scenario <b>."""\n\nSCENARIO = 3\n'), "/agents")
    (card,) = re.findall(r'<li class="card scenario warn">.*?</li>', shown, re.S)
    assert "half_done" in card
    assert 'class="problem"' in card
    assert "<b>" not in card
    assert SCENARIO in shown


def test_run_page_shows_before_and_after_with_intervals_in_words_and_drawn(
    site: TestClient, run: str
) -> None:
    shown = page(site, f"/agents/runs/{run}")
    proof = site.get(f"/api/v1/runs/{run}/proof").json()
    for row in proof["rows"]:
        for rate in (row["success"], row["reliability"]):
            assert f"<b>{100 * rate['value']:.1f} %</b>" in shown
            assert f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f}" in shown
    drawn = re.findall(
        r'role="img" aria-label="Tool reliability on held_out: before [\d.]+ %, after ([\d.]+ %)"', shown
    )
    assert drawn == ["100.0 %"]
    assert all(escape(one["sentence"]) in shown for one in proof["differences"])
    assert f'<melete-chart runs="{run}"' in shown


def test_episodes_are_filtered_by_the_address_and_paged_with_their_filters(
    site: TestClient, run: str
) -> None:
    def shown(query: str) -> list[str]:
        text = page(site, f"/agents/runs/{run}?tab=episodes{query}")
        return [
            html.unescape(one)
            for one in re.findall(rf'<th scope="row"><a href="/agents/runs/{run}/episodes/([^"]+)"', text)
        ]

    def listed(**asked: Any) -> list[str]:
        return [one["id"].replace(":", "%3A") for one in episodes(site, run, limit=30, **asked)]

    assert shown("&phase=before&failed=true") == listed(phase="before", failed=True)
    assert shown("&solved=false&split=unseen") == listed(solved=False, split="unseen")
    text = page(site, f"/agents/runs/{run}?tab=episodes&solved=true")
    (older,) = re.findall(r'class="pager"><a class="plain" href="([^"]+)"', text)
    assert "solved=true" in older
    page(site, html.unescape(older))
    assert f"<b>{2 * TASKS}</b>" in text


def test_no_match_says_so_and_a_wrong_filter_is_the_pages_error(site: TestClient, run: str) -> None:
    assert "No episode matches" in page(site, f"/agents/runs/{run}?tab=episodes&task=none")
    assert "step" in page(site, f"/agents/runs/{run}?tab=episodes&step=many", 400)


def test_episode_page_offers_other_tries_of_its_task_and_puts_one_beside(site: TestClient, run: str) -> None:
    before = episodes(site, run, phase="before", split="held_out")[0]
    (after,) = episodes(site, run, phase="after", task=before["task"])
    path = f"/agents/runs/{run}/episodes/{before['id']}"
    alone = page(site, path)
    assert alone.count("<episode-player") == 1
    (other,) = re.findall(r'class="chip" href="([^"]+beside=[^"]+)"', alone)
    both = page(site, html.unescape(other))
    sources = re.findall(r'<episode-player src="([^"]+)"', both)
    assert [site.get(source).json()["id"] for source in sources] == [before["id"], after["id"]]


def test_hostile_traces_are_text_on_every_page(site: TestClient, settings: Settings) -> None:
    own = fill_practice(settings, tasks=1, name=SCRIPT)
    with TraceWriter(settings.runs / own / "traces" / "rollouts.jsonl") as trace:
        tool = {"type": "tool", "name": SCRIPT, "arguments": {SCRIPT: "x" * 10_000_000}}
        trace.write(
            step=1, episode=SCRIPT, observation=SCRIPT, proposed=tool, task=SCRIPT, split=SCRIPT, reward=1.0
        )
    while not site.get(f"/api/v1/runs/{own}/episodes").json()["complete"]:
        pass
    (one,) = episodes(site, own, name=SCRIPT)
    began_s = time.process_time()
    for path in (
        f"/agents/runs/{own}?tab=episodes",
        f"/agents/runs/{own}",
        f"/agents/runs/{own}/episodes/{one['id']}",
        "/agents",
    ):
        shown = page(site, path)
        assert SCRIPT not in shown
        assert len(shown) < 300_000
    assert html.escape(SCRIPT) in page(site, f"/agents/runs/{own}?tab=episodes")
    assert time.process_time() - began_s < 3.0


def test_run_without_an_exam_says_what_to_do(site: TestClient, settings: Settings) -> None:
    own = fill_practice(settings, tasks=1, name="bare")
    folder = settings.runs / own
    for file in (folder / "traces").glob("*.jsonl"):
        file.unlink()
    (folder / "run.json").write_text(
        re.sub(r'"result": \{.*?\n \}', '"result": {}', (folder / "run.json").read_text(), flags=re.S)
    )
    assert "Nothing measured yet" in page(site, f"/agents/runs/{own}")
    assert "No episodes" in page(site, f"/agents/runs/{own}?tab=episodes")


def test_deployed_agent_shows_what_it_did(site: TestClient, settings: Settings) -> None:
    guard = {"name": "open", "version": "1", "rules": []}
    deployment.write(settings, deployment.Deployment("till", "1.0", "echo", "", "", tools=(), guard=guard))
    deployment.activate(settings, "till", "1.0")
    with TraceWriter(deployment.root(settings) / "till" / "traces" / "v1.0.jsonl") as trace:
        trace.write(
            step=1, episode="ab12", observation="Hello?", proposed={"type": "message", "text": "Yes."}
        )
    assert 'href="/agents/deployed/till"' in page(site, "/agents")
    (path,) = re.findall(
        r'href="(/agents/deployed/till/episodes/[^"]+)"', page(site, "/agents/deployed/till")
    )
    (source,) = re.findall(r'<episode-player src="([^"]+)"', page(site, html.unescape(path)))
    assert site.get(source).json()["data"][0]["proposed_text"] == "says: Yes."
