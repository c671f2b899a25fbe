"""The shell in Chromium: navigation, keyboard, palette, theme, dialogs, forms that are kept, a phone's width."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from trial_runs import started_run
from web_at_hand import HOSTILE, Lab, pages_of

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def paper(page: Any) -> str:
    """The colour of the page."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


def at(page: Any, path: str) -> None:
    """Opens a page and waits until it is live."""
    page.goto(path)
    page.wait_for_selector("html[data-conn=live]")


def test_home_shows_results_and_the_queue(page: Any, lab: Lab) -> None:
    at(page, "/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Home")
    newest = lab.get("/runs?state=succeeded&limit=1")["data"][0]
    expect(page.get_by_role("link", name=newest["name"], exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="two-steps")).to_be_visible()


def test_home_shows_a_running_run_with_its_progress(page: Any, busy_lab: tuple[Lab, str]) -> None:
    _, run = busy_lab
    at(page, "/")
    card = page.locator(f"#run-{run}")
    card.wait_for()
    expect(card.locator("progress")).to_have_attribute("value", re.compile(r"0\.000[1-9]"), timeout=20_000)
    under = card.locator(".under")
    expect(under).not_to_have_text(under.inner_text(), timeout=20_000)
    expect(card).to_contain_text("of 1\u202f000\u202f000 steps")


def test_two_keys_go_to_a_page_and_question_mark_lists_them(page: Any) -> None:
    at(page, "/")
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url("**/runs")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_contain_text("Home")
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()


def test_slash_goes_to_the_search_and_keys_are_text_there(page: Any) -> None:
    page.goto("/search")
    page.locator("main").click()
    page.keyboard.press("/")
    page.keyboard.type("g h?")
    expect(page.get_by_label("Id or name")).to_have_value("g h?")


def test_palette_finds_a_run_by_name_and_goes_there_by_keyboard(page: Any, lab: Lab) -> None:
    at(page, "/")
    page.keyboard.press("Control+k")
    box = page.get_by_role("combobox", name="Search runs")
    box.wait_for()
    page.keyboard.type("second")
    page.get_by_role("option", name="second").first.wait_for()
    expect(page.get_by_role("option", selected=True)).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/runs/{lab.made['second']}")


def test_palette_is_a_combobox_whose_arrows_move(page: Any) -> None:
    at(page, "/")
    page.get_by_role("button", name="Search and commands").click()
    page.get_by_role("option").first.wait_for()
    box = page.get_by_role("combobox", name="Search runs")
    first = box.get_attribute("aria-activedescendant")
    page.keyboard.press("ArrowDown")
    expect(box).not_to_have_attribute("aria-activedescendant", first)
    page.keyboard.press("ArrowUp")
    expect(box).to_have_attribute("aria-activedescendant", first)
    page.keyboard.press("Escape")
    expect(box).not_to_be_visible()


def test_theme_is_chosen_kept_and_given_back_to_the_system(page: Any) -> None:
    at(page, "/")
    light = paper(page)
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = paper(page)
    assert dark != light
    page.reload()
    assert paper(page) == dark
    page.keyboard.press("Control+k")
    page.keyboard.type("follow the system")
    page.get_by_role("option", name="Theme: follow the system").click()
    assert paper(page) == light
    page.emulate_media(color_scheme="dark")
    assert paper(page) == dark


def test_dangerous_button_asks_first(page: Any) -> None:
    at(page, "/ui-kit")
    page.get_by_role("button", name="Danger").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("The server has answered.")).to_have_count(0)
    page.get_by_role("button", name="Danger").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    page.get_by_text("The server has answered.").wait_for()


def test_command_is_copied(page: Any) -> None:
    at(page, "/ui-kit")
    page.get_by_role("button", name="Copy the command").click()
    page.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "melete run examples/demo.yaml"


def test_live_part_and_ages_grow_by_themselves(page: Any) -> None:
    at(page, "/ui-kit")
    expect(page.locator("[data-live] b")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"), timeout=20_000)
    age = page.locator(".fine time").first
    expect(age).not_to_have_text(age.inner_text(), timeout=20_000)


def test_markdown_is_shown(page: Any) -> None:
    at(page, "/ui-kit")
    page.locator("mark-down strong", has_text="bold").wait_for()


def test_form_that_is_kept_survives_a_reload_until_it_is_sent(page: Any) -> None:
    at(page, "/ui-kit")
    page.get_by_role("textbox", name="Name").fill("half")
    page.get_by_label("Shape").select_option("steep")
    page.get_by_label("Say each step").check()
    page.reload()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("half")
    expect(page.get_by_label("Shape")).to_have_value("steep")
    expect(page.get_by_label("Say each step")).to_be_checked()
    page.get_by_role("button", name="Send").click()
    page.locator("#k-sent", has_text="answered").wait_for()
    page.reload()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("")


def test_page_that_comes_back_from_the_cache_is_live_again(page: Any) -> None:
    at(page, "/ui-kit")
    page.goto("/search")
    page.go_back()
    page.wait_for_selector("html[data-conn=live]")
    clock = page.locator("[data-live] b")
    expect(clock).not_to_have_text(clock.inner_text(), timeout=20_000)


def test_no_page_scrolls_sideways_on_a_phone(phone: Any, lab: Lab) -> None:
    with started_run(lab.settings, "--hold-s", "60", "--name", "killed") as (_, folder):
        lost = f"/runs/{folder.name}"
    wide = []
    for path in [lost, *pages_of(lab.url).values()]:
        phone.goto(path)
        phone.wait_for_load_state("load")
        if phone.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path)
    assert wide == []


def test_menu_opens_on_a_phone(phone: Any) -> None:
    at(phone, "/")
    link = phone.get_by_role("navigation", name="Pages").get_by_role("link", name="Runs")
    expect(link).not_to_be_visible()
    phone.get_by_role("button", name="Menu").click()
    link.click()
    phone.wait_for_url("**/runs")


def test_hostile_names_run_nothing_on_any_page(page: Any, lab: Lab) -> None:
    ran = []
    hostile = lab.made["hostile"]
    runs = [path.replace(lab.made["first"], hostile) for path in pages_of(lab.url).values()]
    more = [f"/runs/{hostile}", f"/search?q={HOSTILE[:20]}", "/search?q=onerror"]
    tabs = [f"/runs/{hostile}?tab={tab}" for tab in ("log", "samples", "config", "files", "lineage")]
    for path in [*runs, *more, *tabs]:
        page.goto(path)
        page.wait_for_load_state("load")
        if page.title() in ("run", "ran") or page.locator("img[src=x]").count():
            ran.append(path)
    page.goto("/runs")
    page.keyboard.press("Control+k")
    page.keyboard.type("onerror")
    page.get_by_role("option", name="onerror").first.wait_for()
    assert page.title() not in ("run", "ran")
    assert ran == []
