"""Agents and bench in a real browser: the player by keyboard and by address, two tries side by side, hostile steps."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from playwright.sync_api import expect
from sqlalchemy import insert

from lab_at_hand import request_row
from melete.actions.trace import TraceWriter
from melete.gateway import sessions
from melete.records import SessionState
from melete.store import database
from melete.store.models import RequestRow
from practice_at_hand import fill_practice
from web_at_hand import HOSTILE, Lab

from .conftest import AXE, DESK, PHONE, violations, watched

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-work")]
SCENARIO = "/agents/customer_support"
PATHS = (
    "/agents", SCENARIO, f"{SCENARIO}?tab=tools", f"{SCENARIO}?tab=tasks", f"{SCENARIO}?tab=runs",
    "/agents/runs/{run}", "/agents/runs/{run}?tab=episodes", "{player}", "{player}?beside={other}", "/bench",
    "/bench/sessions", "/bench/compare?before=plain&after=careful", "/bench/texts/variants",
    "/bench/experiments/{experiment}", "/bench/sessions/{session}",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(lab: Lab) -> str:
    """A run of practice in the lab, whose episodes were really played."""
    return fill_practice(lab.settings, name="played")


def episode(lab: Lab, run: str, **asked: str) -> dict[str, Any]:
    """The newest episode of a run of at least three steps."""
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    found = lab.get(f"/runs/{run}/episodes?limit=100&{query}")["data"]
    return next(one for one in found if one["steps"] >= 3)


def player(run: str, one: dict[str, Any]) -> str:
    return f"/agents/runs/{run}/episodes/{one['id']}"


def shows_step(tab: Any, step: int | str, place: int = 0) -> None:
    """Waits until a player shows this step (or a pattern of steps), as `2 / 5`."""
    shown = tab.locator("episode-player [data-part=at]").nth(place)
    expect(shown).to_have_text(re.compile(rf"^{step} / \d+$"))


def test_player_steps_by_keyboard_and_keeps_the_step_in_the_address(page: Any, lab: Lab, run: str) -> None:
    one = episode(lab, run, phase="before", stopped="true")
    page.goto(player(run, one))
    page.locator("episode-player[data-ready]").wait_for()
    steps = lab.get(f"/runs/{run}/episodes/{one['id']}")["data"]
    expect(page.locator("episode-player [data-part=at]")).to_have_text(f"1 / {len(steps)}")
    page.keyboard.press("ArrowRight")
    shows_step(page, 2)
    page.wait_for_url("**#step=2")
    page.keyboard.press("End")
    shows_step(page, len(steps))
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**#step={len(steps)}")
    page.keyboard.press("Home")
    shows_step(page, 1)


def test_deep_link_shows_its_step_with_verdict_reasons_and_result(page: Any, lab: Lab, run: str) -> None:
    one = episode(lab, run, phase="before", stopped="true")
    steps = lab.get(f"/runs/{run}/episodes/{one['id']}")["data"]
    place = next(step["index"] for step in steps if step["verdict"] == "refuse")
    page.goto(f"{player(run, one)}#step={place + 1}")
    panels = page.locator("episode-player .step")
    panels.get_by_text(steps[place]["reasons"][0]).wait_for()
    said = panels.inner_text()
    assert "refused" in said
    assert steps[place]["proposed"]["name"] in said
    assert "Nothing was executed." in said
    expect(page.locator("episode-player .timeline [aria-current=step]")).to_have_attribute(
        "data-step", str(place)
    )


def test_space_plays_and_pauses_and_the_conversation_shows_all_steps(page: Any, lab: Lab, run: str) -> None:
    one = episode(lab, run, phase="before")
    page.goto(player(run, one))
    page.locator("episode-player[data-ready]").wait_for()
    page.keyboard.press(" ")
    page.get_by_role("button", name="Pause").wait_for()
    shows_step(page, r"([2-9]|\d\d)")  # it goes on while one looks
    page.keyboard.press(" ")
    page.get_by_role("button", name="Play").wait_for()
    page.get_by_role("button", name="Conversation").click()
    expect(page.locator(".conversation .turn")).to_have_count(one["steps"])
    expect(page.locator(".conversation .turn[aria-current]")).to_have_count(1)


def test_two_tries_of_a_task_go_side_by_side(page: Any, lab: Lab, run: str) -> None:
    before = episode(lab, run, phase="before", failed="true")
    page.goto(player(run, before))
    page.get_by_role("link", name="After: solved").click()
    page.locator("episode-player[data-ready]").nth(1).wait_for()
    page.keyboard.press("ArrowRight")
    shows_step(page, 2, 0)
    shows_step(page, 2, 1)


def test_hostile_steps_run_no_script_and_ten_megabytes_are_shown_in_part(page: Any, lab: Lab) -> None:
    run = fill_practice(lab.settings, tasks=1, name=HOSTILE)
    tool = {
        "type": "tool",
        "name": HOSTILE,
        "arguments": {HOSTILE: HOSTILE + "x" * 10_000_000},
        "id": HOSTILE,
    }
    with TraceWriter(lab.settings.runs / run / "traces" / "rollouts.jsonl") as trace:
        trace.write(
            step=1, episode="hostile", observation=HOSTILE, model_output=HOSTILE, proposed=tool, verdict="clamp",
            reasons=[HOSTILE], rule=HOSTILE, result=f'{{"a": "{HOSTILE[:5]}"}}', reward=1.0, task=HOSTILE,
            executed={**tool, "arguments": {HOSTILE: 1}}, solved=True, criteria={HOSTILE: False},
        )  # fmt: skip
        trace.write(step=2, episode="hostile", observation={"image": "../../../" + HOSTILE}, proposed=None)
    while not lab.get(f"/runs/{run}/episodes")["complete"]:
        pass
    (one,) = lab.get(f"/runs/{run}/episodes?name=hostile")["data"]
    began_s = time.monotonic()
    page.goto(player(run, one))
    page.locator("episode-player[data-ready]").wait_for()
    assert time.monotonic() - began_s < 20
    panels = page.locator("episode-player .step")
    assert panels.get_by_text(HOSTILE, exact=True).count() >= 2
    expect(panels).to_contain_text("parts of it are left out")
    page.get_by_role("button", name="Conversation").click()
    for path in (f"/agents/runs/{run}", f"/agents/runs/{run}?tab=episodes", "/agents"):
        page.goto(path)
    expect(page.locator("script:not([src])")).to_have_count(0)
    expect(page).to_have_title("Agents · Melete")


def test_live_session_appears_on_bench_and_its_requests_count_up(page: Any, lab: Lab) -> None:
    page.goto("/bench")
    page.locator("html[data-conn=live]").wait_for()
    with database.connect(lab.settings.database) as connection:
        opened = sessions.open_session(connection, state="live", model="small", started_s=time.time())
    row = page.locator("tr", has_text=opened.id)
    row.wait_for()
    with database.connect(lab.settings.database) as connection:
        connection.execute(insert(RequestRow), [request_row(opened.id, time.time() + n) for n in range(3)])
    row.get_by_text("300, 60").wait_for()
    with database.connect(lab.settings.database) as connection:
        sessions.move(connection, opened.id, SessionState.ABORTED)
    row.wait_for(state="detached")


def test_comparison_is_shown_once_it_is_made(page: Any) -> None:
    page.goto("/bench")
    page.get_by_role("link", name="Compare", exact=True).last.click()
    page.get_by_label("Before").fill("plain")
    page.get_by_label("After").fill("careful")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("heading", name="careful against plain").wait_for()
    assert page.url.endswith("/bench/compare?before=plain&after=careful&experiment=")


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; run tools/vendor.py")
@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", DESK), ("light", PHONE)])
def test_pages_have_no_serious_violation_and_do_not_scroll_sideways(
    browser: Any, lab: Lab, run: str, scheme: str, viewport: dict[str, int]
) -> None:
    before = episode(lab, run, phase="before")
    after = lab.get(f"/runs/{run}/episodes?phase=after&task={before['task']}")["data"][0]
    names = {
        "run": run, "player": player(run, before), "other": after["id"],
        "experiment": lab.get("/experiments?name=trial")["data"][0]["id"],
        "session": lab.get("/sessions?kind=gateway&variant=plain")["data"][0]["id"],
    }  # fmt: skip
    found: dict[str, list[str]] = {}
    options = {"color_scheme": scheme, "viewport": viewport, "bypass_csp": True, "reduced_motion": "reduce"}
    with watched(browser, lab.url, **options) as tab:
        for path in PATHS:
            tab.goto(path.format(**names))
            tab.wait_for_load_state("networkidle")
            problems = violations(tab)
            if tab.evaluate("document.documentElement.scrollWidth") > viewport["width"]:
                problems.append("it scrolls sideways")
            if problems:
                found[path] = problems
    assert found == {}
