"""Life of a page: many tabs, a server that is started again, a cookie that runs out, a connection that is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from melete.settings import Settings
from web_at_hand import Lab

from .conftest import watched

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
AWAY = (
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "WebSocket connection",
    "ERR_INCOMPLETE",
    "Failed to fetch",
)
"""What Chromium's console says while there is no server."""


def empty_lab(folder: Path, token: str | None = None) -> Lab:
    """An empty home, for tests that end its server."""
    return Lab(Settings.of(folder, token))


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Lab]:
    """A server that the test may kill."""
    made = empty_lab(tmp_path / "home")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Lab]:
    """A server that asks for a token."""
    made = empty_lab(tmp_path / "home")
    made.start(MELETE_TOKEN="a long secret")
    yield made
    made.stop()


def moves(tab: Any) -> None:
    """Waits until the server's clock in a tab has moved."""
    clock = tab.locator("[data-live] b")
    expect(clock).to_have_text(re.compile(r"\d"), timeout=20_000)
    expect(clock).not_to_have_text(clock.inner_text(), timeout=20_000)


def sign_in(tab: Any) -> None:
    """Shows the token at the sign-in page."""
    tab.get_by_label("Token").fill("a long secret")
    tab.get_by_label("Token").press("Enter")
    tab.wait_for_selector("nav[aria-label=Pages]")


def test_ten_tabs_of_one_browser_are_all_live(page: Any) -> None:
    tabs = [page, *(page.context.new_page() for _ in range(9))]
    for tab in tabs:
        tab.goto("/ui-kit")
    for tab in tabs:
        moves(tab)


def test_server_restarted_under_a_half_filled_form_loses_nothing(browser: Any, mortal: Lab) -> None:
    with watched(browser, mortal.url, allowed=AWAY) as tab:
        tab.goto("/ui-kit")
        moves(tab)
        tab.get_by_role("textbox", name="Name").fill("half")
        mortal.stop()
        tab.get_by_text("The connection is lost.").wait_for()
        tab.get_by_role("textbox", name="Note").fill("written while it was away")
        tab.get_by_role("button", name="Send").click()
        tab.get_by_text("The server cannot be reached.").wait_for()
        mortal.start(port=int(mortal.url.rsplit(":", 1)[1]))
        tab.wait_for_selector("html[data-conn=live]")
        expect(tab.get_by_text("The connection is lost.")).not_to_be_visible()
        moves(tab)
        expect(tab.get_by_role("textbox", name="Name")).to_have_value("half")
        tab.get_by_role("button", name="Send").click()
        tab.locator("#k-sent", has_text="answered").wait_for()


def test_cookie_that_ran_out_in_a_form_asks_and_goes_on(browser: Any, guarded: Lab) -> None:
    with watched(browser, guarded.url, allowed=("401", "WebSocket")) as tab:
        tab.goto("/")
        sign_in(tab)
        tab.goto("/ui-kit")
        tab.get_by_role("textbox", name="Name").fill("half")
        tab.context.clear_cookies()
        tab.get_by_role("button", name="Send").click()
        dialog = tab.get_by_role("dialog", name="Sign in again")
        dialog.wait_for()
        dialog.get_by_label("Token").fill("wrong")
        dialog.get_by_role("button", name="Sign in").click()
        dialog.get_by_role("alert").wait_for()
        dialog.get_by_label("Token").fill("a long secret")
        dialog.get_by_role("button", name="Sign in").click()
        tab.locator("#k-sent", has_text="answered").wait_for()
        expect(tab.get_by_role("textbox", name="Name")).to_have_value("half")


def test_cookie_that_ran_out_under_the_socket_asks_once(browser: Any, guarded: Lab) -> None:
    with watched(browser, guarded.url, allowed=(*AWAY, "401", "403")) as tab:
        tab.goto("/")
        sign_in(tab)
        tab.goto("/ui-kit")
        moves(tab)
        tab.context.clear_cookies()
        guarded.stop()
        guarded.start(port=int(guarded.url.rsplit(":", 1)[1]), MELETE_TOKEN="a long secret")
        dialog = tab.get_by_role("dialog", name="Sign in again")
        dialog.wait_for()
        dialog.get_by_label("Token").fill("a long secret")
        dialog.get_by_role("button", name="Sign in").click()
        tab.wait_for_selector("html[data-conn=live]")
        moves(tab)


def test_page_without_anything_says_what_to_do_first(browser: Any, mortal: Lab) -> None:
    with watched(browser, mortal.url) as tab:
        tab.goto("/")
        expect(tab.get_by_role("heading", name="Welcome. What shall we practise?")).to_be_visible()
        expect(tab.get_by_role("link", name="New job").first).to_be_visible()


def test_refusal_is_said_with_the_servers_words(browser: Any, mortal: Lab) -> None:
    with watched(browser, mortal.url, allowed=("status of 404",)) as tab:
        tab.goto("/ui-kit")
        tab.get_by_role("button", name="What the server refuses").click()
        tab.locator(".toast", has_text="There is no page at /parts/ui-kit/none.").wait_for()
