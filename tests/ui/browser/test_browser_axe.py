"""Accessibility: axe-core finds nothing serious on any page, in both themes, at the width of a desk and of a phone."""

from __future__ import annotations

from typing import Any

import pytest

from web_at_hand import Lab, pages_of

from .conftest import AXE, DESK, PHONE, violations, watched

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; run tools/vendor.py"),
]


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", DESK), ("light", PHONE)])
def test_no_page_has_a_serious_violation(
    browser: Any, lab: Lab, scheme: str, viewport: dict[str, int]
) -> None:
    found: dict[str, list[str]] = {}
    options = {"color_scheme": scheme, "viewport": viewport, "bypass_csp": True, "reduced_motion": "reduce"}
    with watched(browser, lab.url, **options) as tab:
        for path in pages_of(lab.url).values():
            tab.goto(path)
            tab.wait_for_load_state("load")
            if problems := violations(tab):
                found[path] = problems
    assert found == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dialogs_have_no_serious_violation(browser: Any, lab: Lab, scheme: str) -> None:
    with watched(browser, lab.url, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce") as tab:
        tab.goto("/ui-kit")
        tab.keyboard.press("Control+k")
        tab.locator("#found [role=option]").first.wait_for()
        problems = violations(tab)
        tab.keyboard.press("Escape")
        tab.get_by_role("button", name="Keyboard shortcuts").click()
        problems += violations(tab)
        tab.keyboard.press("Escape")
        tab.get_by_role("button", name="Danger").click()
        problems += violations(tab)
    assert problems == []
