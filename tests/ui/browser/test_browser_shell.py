"""The shell in Chromium: navigation, keyboard, palette, theme, a phone's width."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def test_home_is_live(page: Any) -> None:
    page.goto("/")
    page.wait_for_selector("html[data-conn=live]")
    assert page.get_by_role("heading", level=1).inner_text() == "Home"
