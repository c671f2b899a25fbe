"""Jobs in Chromium: made by keyboard from examples and forms, carried out by a real worker, stopped, tried again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from jobs.queue_at_hand import started_worker
from melete.jobs.queue import opened
from melete.jobs.states import Job
from melete.settings import Settings
from web_at_hand import HOSTILE, Lab

from .conftest import new_lab, watched

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser-work"), pytest.mark.slow]
COUNTED = """\
name: counted
processes:
  - process: trial.count
    name: counting
    config: {steps: STEPS, hold_s: 0.02, save_every: 5, loud: true}
"""
MOST_TABS = 80


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server and a worker on a home of their own."""
    made = new_lab(tmp_path_factory.mktemp("jobs"), train=False)
    made.start()
    with started_worker(made.settings):
        yield made
    made.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Lab]:
    """A server that asks for a token."""
    home = tmp_path / "home"
    made = Lab(Settings.of(home))
    made.start(MELETE_TOKEN="a long secret")
    yield made
    made.stop()


@pytest.fixture
def tab(browser: Any, own: Lab) -> Iterator[Any]:
    """A tab on it."""
    with watched(browser, own.url, allowed=("ERR_CONNECTION_REFUSED", "status of 400")) as made:
        yield made


def tabs_to(tab: Any, wanted: str) -> None:
    """Presses Tab until an element that fits a selector has the focus."""
    for _ in range(MOST_TABS):
        if tab.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
            return
        tab.keyboard.press("Tab")
    raise AssertionError(f"{wanted} cannot be reached by keyboard")


def text_of(tab: Any) -> str:
    """What stands in the editor."""
    return str(tab.locator("#text").input_value())


def text_holds(tab: Any, part: str) -> None:
    """Waits until something stands in the editor."""
    tab.wait_for_function("part => document.querySelector('#text').value.includes(part)", arg=part)


def option(tab: Any, key: str, step: int = 0) -> Any:
    """The field of an option."""
    return tab.locator(f"#f-processes-{step}-config-{key}")


def submitted(lab: Lab, text: str) -> Job:
    """A job in the queue."""
    with opened(lab.settings) as queue:
        return queue.submit_text(text)


def reaches(tab: Any, state: str) -> None:
    """Waits until the page of a job shows a state, without being loaded again."""
    tab.locator(f"[data-job][data-state={state}]").wait_for(timeout=90_000)


def begun(tab: Any, path: str) -> None:
    """Opens a form and waits until the server has answered to it."""
    tab.goto(path)
    tab.locator("job-form[data-ok]").wait_for()


def test_job_is_made_from_a_process_by_keyboard_alone_and_a_worker_carries_it_out(tab: Any, own: Lab) -> None:
    tab.goto("/jobs")
    tab.wait_for_selector("html[data-conn=live]")
    tab.keyboard.press("c")
    tab.wait_for_url("**/jobs/new")
    tabs_to(tab, "#q")
    tab.keyboard.type("llm.tokenizer bytes")
    tab.locator("#choices .pick").first.wait_for(state="detached")
    tabs_to(tab, "a[href='/jobs/new?process=llm.tokenizer']")
    tab.keyboard.press("Enter")
    tab.locator("job-form[data-ok]").wait_for()
    for key, value in (
        ("data", "stdlib"),
        ("vocab_size", "300"),
        ("max_chars", "20000"),
        ("eval_chars", "2000"),
    ):
        tabs_to(tab, f"#f-processes-0-config-{key}")
        tab.keyboard.press("Control+a")
        tab.keyboard.type(value)
        text_holds(tab, f"{key}: {value}")
    expect(tab.locator("#commands")).to_contain_text("melete llm tokenizer --data stdlib --vocab-size 300")
    tab.keyboard.press("Control+Enter")
    tab.wait_for_url("**/jobs/2*")
    reaches(tab, "succeeded")
    expect(tab.locator(".toast").last).to_contain_text("tokenizer: succeeded")
    tab.get_by_role("link", name="Run", exact=True).click()
    tab.wait_for_url("**/runs/*tokenizer*")


def test_job_is_made_from_an_example_with_few_batches(tab: Any) -> None:
    tab.goto("/jobs/new")
    tab.get_by_role("link", name="first-steps").click()
    tab.locator("job-form[data-ok]").wait_for()
    expect(tab.locator(".step-form")).to_have_count(3)
    assert tab.locator("#form-options-1").get_attribute("open") is None
    tab.get_by_label("Move words up").click()
    tab.locator("#form-step-1", has_text="2 · words").wait_for()
    expect(tab.locator(".problems")).to_contain_text("no earlier process is named 'base'")
    tab.get_by_label("Move words down").click()
    tab.locator("job-form[data-ok]").wait_for()
    tab.get_by_label("Limit batches").fill("2")
    option(tab, "max_chars").fill("20000")
    text_holds(tab, "max_chars: 20000")
    tab.get_by_role("button", name="Submit").click()
    tab.wait_for_url("**/jobs/2*")
    expect(tab.locator(".step")).to_have_count(3)
    reaches(tab, "succeeded")


def test_form_and_text_follow_each_other_and_undo_reaches_over_both(tab: Any) -> None:
    begun(tab, "/jobs/new?process=trial.count")
    option(tab, "steps").fill("7")
    text_holds(tab, "steps: 7")
    assert "changed" in tab.locator("#f-processes-0-config-steps-field").get_attribute("class")
    tab.locator("#text").fill(text_of(tab).replace("steps: 7", "steps: 8"))
    tab.wait_for_function("() => document.querySelector('#f-processes-0-config-steps').value === '8'")
    tab.locator("#text").press("Control+z")
    tab.wait_for_function("() => document.querySelector('#f-processes-0-config-steps').value === '7'")
    tab.locator("#text").press("Control+z")
    tab.wait_for_function("() => document.querySelector('#f-processes-0-config-steps').value === '5'")
    tab.locator("#text").press("Control+Shift+z")
    text_holds(tab, "steps: 7")
    tab.get_by_label("Reset steps").click()
    tab.wait_for_function("() => !document.querySelector('#text').value.includes('config')")


def test_wrong_value_is_marked_in_both_and_keeps_the_caret_where_one_types(tab: Any) -> None:
    begun(tab, "/jobs/new?process=trial.count")
    tab.get_by_text("more options").click()
    rate = option(tab, "rate")
    rate.fill("-0.5")
    tab.locator("#f-processes-0-config-rate-problem").wait_for()
    tab.locator("yaml-editor .wrong", has_text="rate: -0.5").wait_for()
    expect(rate).to_be_focused()
    expect(rate).to_have_attribute("aria-invalid", "true")
    rate.press("Home")
    rate.press("Delete")
    tab.locator("job-form[data-ok]").wait_for()
    tab.get_by_role("button", name="Submit").wait_for()
    expect(rate).to_have_value("0.5")


def test_broken_text_leaves_the_form_and_survives_a_reload(tab: Any) -> None:
    begun(tab, "/jobs/new?process=trial.count")
    option(tab, "steps").fill("9")
    text_holds(tab, "steps: 9")
    broken = text_of(tab) + "  - [not closed\n"
    tab.locator("#text").fill(broken)
    tab.get_by_text("This text cannot be shown as a form").wait_for()
    expect(option(tab, "steps")).to_have_value("9")
    expect(option(tab, "steps")).to_be_disabled()
    tab.locator("yaml-editor .wrong").wait_for()
    expect(tab.locator(".problems")).to_contain_text("not YAML")
    tab.get_by_role("button", name="Submit").click()
    tab.locator(".toast.bad", has_text="not YAML").wait_for()
    tab.reload()
    tab.get_by_text("Your draft is back").wait_for()
    assert text_of(tab) == broken
    tab.locator("#text").fill(broken.replace("  - [not closed\n", ""))
    tab.locator("job-form[data-ok]").wait_for()
    expect(option(tab, "steps")).to_have_value("9")
    tab.get_by_role("button", name="Start over").click()
    tab.wait_for_function("() => !document.querySelector('#text').value.includes('9')")


def test_half_filled_form_lives_through_a_restart_of_the_server(tab: Any, own: Lab) -> None:
    begun(tab, "/jobs/new?process=trial.count")
    option(tab, "steps").fill("11")
    text_holds(tab, "steps: 11")
    own.stop()
    option(tab, "steps").fill("12")
    tab.get_by_text("The server cannot be reached").wait_for()
    own.start(port=int(own.url.rsplit(":", 1)[1]))
    text_holds(tab, "steps: 12")
    tab.locator("job-form[data-ok]").wait_for()


def test_form_goes_on_after_a_sign_in_that_has_run_out(browser: Any, guarded: Lab) -> None:
    with watched(browser, guarded.url, allowed=("status of 401",)) as tab:
        tab.goto("/jobs/new?process=trial.count")
        tab.get_by_label("Token").fill("a long secret")
        tab.get_by_role("button", name="Sign in").click()
        begun(tab, "/jobs/new?process=trial.count")
        tab.context.clear_cookies()
        option(tab, "steps").fill("13")
        dialog = tab.get_by_role("dialog", name="Sign in again")
        dialog.get_by_label("Token").fill("a long secret")
        dialog.get_by_role("button", name="Sign in").click()
        text_holds(tab, "steps: 13")
        expect(option(tab, "steps")).to_have_value("13")


def test_job_is_stopped_with_a_checkpoint_and_goes_on_from_it(tab: Any, own: Lab) -> None:
    job = submitted(own, COUNTED.replace("STEPS", "600"))
    tab.goto(f"/jobs/{job.id}")
    tab.locator(".step progress").wait_for(timeout=60_000)
    tab.get_by_role("log").get_by_text(re.compile(r"^step \d+$")).first.wait_for()
    tab.keyboard.press("s")
    tab.get_by_role("dialog").get_by_role("button", name="Stop").press("Enter")
    reaches(tab, "stopped")
    tab.keyboard.press("r")
    reaches(tab, "succeeded")
    run = own.get(f"/jobs/{job.id}")["steps"][0]["run"]
    assert own.get(f"/runs/{run}")["resumed"] == 1
    assert own.get(f"/checkpoints?run={run}")["data"]


def test_job_is_tried_again_with_a_changed_option(tab: Any, own: Lab) -> None:
    job = submitted(own, COUNTED.replace("STEPS", "4"))
    tab.goto(f"/jobs/{job.id}")
    reaches(tab, "succeeded")
    first = own.get(f"/jobs/{job.id}")["steps"][0]["run"]
    tab.get_by_label("Retry counting with a change").click()
    dialog = tab.get_by_role("dialog", name="Retry with changes")
    expect(dialog.locator("#f-config-steps")).to_have_value("4")
    dialog.locator("#f-config-steps").fill("0")
    dialog.get_by_role("button", name="Retry").click()
    dialog.locator("#f-config-steps-problem").wait_for()
    dialog.locator("#f-config-steps").fill("6")
    dialog.get_by_role("button", name="Retry").click()
    dialog.wait_for(state="hidden")
    reaches(tab, "succeeded")
    step = own.get(f"/jobs/{job.id}")["steps"][0]
    assert step["config"]["steps"] == 6
    assert step["run"] != first


def test_clone_begins_with_the_text_of_the_job(tab: Any, own: Lab) -> None:
    job = submitted(own, COUNTED.replace("STEPS", "3"))
    tab.goto(f"/jobs/{job.id}")
    tab.get_by_role("link", name="Clone").click()
    tab.locator("job-form[data-ok]").wait_for()
    assert text_of(tab) == COUNTED.replace("STEPS", "3")


def test_hostile_text_of_a_job_runs_no_script(tab: Any, own: Lab) -> None:
    odd = COUNTED.replace("counted", "odd").replace("STEPS", f"9, fail_at: 1, words: ['{HOSTILE}']")
    job = submitted(own, f"# {HOSTILE}\n{odd}")
    for path in (f"/jobs/{job.id}", "/jobs", f"/jobs/new?job={job.id}", "/jobs/new?q=%3Cscript%3E"):
        tab.goto(path)
        tab.wait_for_load_state("networkidle")
        assert tab.title() not in ("ran", "run")
    tab.goto(f"/jobs/{job.id}")
    reaches(tab, "failed")
    tab.get_by_role("log").get_by_text("<script>").first.wait_for()
    expect(tab).to_have_title("odd · Melete")


def test_phone_shows_form_and_text_without_scrolling_sideways(browser: Any, own: Lab) -> None:
    with watched(browser, own.url, viewport={"width": 390, "height": 780}) as phone:
        for path in ("/jobs", "/jobs/new", "/jobs/new?example=first-steps"):
            phone.goto(path)
            phone.wait_for_selector("main h1")
            assert phone.evaluate("document.documentElement.scrollWidth") <= 390
