"""Signing in and handing out tokens in a real browser: the way back, a secret shown once, a token that is revoked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from melete.settings import Settings
from web_at_hand import Lab

from .conftest import AXE, DESK, PHONE, violations, watched

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
SECRET = "a long secret"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """An empty lab that asks for a token."""
    home = tmp_path_factory.mktemp("home")
    made = Lab(Settings.of(home, SECRET))
    made.start(MELETE_TOKEN=SECRET)
    yield made
    made.stop()


def sign_in(tab: Any, secret: str) -> None:
    """Shows a token at the sign-in page."""
    tab.get_by_label("Token").fill(secret)
    with tab.expect_navigation():
        tab.keyboard.press("Enter")


def make_token(tab: Any, name: str, role: str) -> str:
    """Makes a token on the settings page; returns its secret."""
    tab.goto("/settings")
    tab.get_by_label("Name").fill(name)
    tab.get_by_label("Role").select_option(role)
    tab.get_by_role("button", name="Make it").click()
    shown = tab.locator(".made code")
    expect(shown).to_have_text(re.compile(r"^mlt_[\w-]{32}$"))
    return str(shown.inner_text())


def test_deep_link_leads_through_the_sign_in_page_to_where_it_points(browser: Any, guarded: Lab) -> None:
    with watched(browser, guarded.url, allowed=("401",)) as tab:
        tab.goto("/settings?action=sign-in.begin")
        assert "/login?next=" in tab.url
        sign_in(tab, "wrong")
        expect(tab.get_by_role("alert")).to_contain_text("That is not a token")
        sign_in(tab, SECRET)
        tab.wait_for_url("**/settings?action=sign-in.begin")
        expect(tab.get_by_role("group", name="Audit log")).to_contain_text("environment")


def test_new_token_is_copied_signs_another_browser_in_and_is_revoked_under_it(
    browser: Any, guarded: Lab
) -> None:
    with watched(browser, guarded.url) as tab:
        tab.goto("/")
        sign_in(tab, SECRET)
        secret = make_token(tab, "phone", "read")
        tab.locator(".made [data-copy]").click()
        assert tab.evaluate("navigator.clipboard.readText()") == secret
        expect(tab.locator("tr", has_text="phone").first).to_contain_text("read")
        with watched(browser, guarded.url, allowed=("401", "403", "WebSocket"), viewport=PHONE) as other:
            other.goto("/settings")
            sign_in(other, secret)
            expect(other.get_by_role("heading", name="Tokens and the audit log")).to_be_visible()
            tab.get_by_role("button", name="Revoke phone").click()
            tab.get_by_role("dialog").get_by_role("button", name="Revoke").click()
            tab.get_by_text("The token opens nothing any more.").wait_for()
            expect(tab.get_by_role("button", name="Revoke phone")).to_have_count(0, timeout=20_000)
            other.goto("/runs")
            assert "/login?next=%2Fruns" in other.url
        tab.reload()
        assert secret not in tab.content()


def test_signing_out_leads_to_the_sign_in_page_and_back_is_closed(browser: Any, guarded: Lab) -> None:
    with watched(browser, guarded.url) as tab:
        tab.goto("/settings")
        sign_in(tab, SECRET)
        tab.get_by_role("button", name="Sign out", exact=True).click()
        tab.wait_for_url("**/login")
        tab.goto("/runs")
        assert "/login" in tab.url


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; run tools/vendor.py")
@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", PHONE)])
def test_sign_in_and_settings_have_no_serious_violation_and_do_not_scroll_sideways(
    browser: Any, guarded: Lab, scheme: str, viewport: dict[str, int]
) -> None:
    options = {"color_scheme": scheme, "viewport": viewport, "bypass_csp": True, "reduced_motion": "reduce"}
    with watched(browser, guarded.url, **options) as tab:
        tab.goto("/settings")
        assert violations(tab) == []
        sign_in(tab, SECRET)
        make_token(tab, f"eye {scheme}", "operate")
        assert violations(tab) == []
        wide = tab.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide
