"""Datasets in a real browser: an image opens large, an episode plays, rows are searched by keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from pictures_at_hand import add_episodes, add_pictures
from web_at_hand import HOSTILE, Lab

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def pictures(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Images with hostile captions, and episodes, in the lab."""
    folder = tmp_path_factory.mktemp("pictures")
    if not (lab.settings.datasets / "pictures").exists():
        add_pictures(lab.settings, folder, caption="number {} " + HOSTILE)
        add_episodes(lab.settings, folder)


def test_image_opens_large_and_arrows_lead_through_them(page: Any, pictures: None) -> None:
    page.goto("/datasets/pictures?tab=images")
    page.get_by_role("button", name="Show image 3 large").click()
    viewer = page.get_by_role("dialog", name="Image")
    shown = viewer.locator("img")
    expect(shown).to_have_attribute("src", "/api/v1/datasets/pictures/images/3")
    page.keyboard.press("ArrowRight")
    expect(shown).to_have_attribute("src", "/api/v1/datasets/pictures/images/4")
    assert shown.evaluate("async (image) => { await image.decode(); return image.naturalWidth; }") == 16
    page.keyboard.press("Escape")
    expect(viewer).not_to_be_visible()
    expect(page).to_have_title("pictures · Melete")


def test_episode_plays_to_its_last_frame(page: Any, pictures: None) -> None:
    page.goto("/datasets/moves?tab=episodes&episode=2")
    page.get_by_role("button", name="Play").click()
    page.locator("frame-player output", has_text="11").wait_for()
    page.locator("frame-player button[aria-pressed=false]").wait_for()
    assert page.locator("frame-player img").get_attribute("src").endswith("/images/17")


def test_rows_are_searched_and_the_address_keeps_it(page: Any, pictures: None) -> None:
    page.goto("/datasets/pictures?tab=rows")
    page.get_by_label("Search", exact=True).fill("number 31")
    page.keyboard.press("Enter")
    page.wait_for_url("**search=number+31**")
    expect(page.locator(".data-rows > li")).to_have_count(1)
    page.reload()
    expect(page.locator("#row-31")).to_be_visible()


def test_pages_have_no_serious_violation_in_either_theme_and_no_sideways_scroll(
    page: Any, pictures: None
) -> None:
    axe = Path(__file__).parents[3] / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("axe-core is not installed: npm ci")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for path in ("/datasets", "/datasets/pictures", "/datasets/pictures?tab=images", "/datasets/pictures?tab=rows",
                     "/datasets/moves?tab=episodes", "/datasets/moves?tab=episodes&episode=2"):  # fmt: skip
            page.goto(path)
            page.evaluate(axe.read_text(encoding="utf-8"))
            found = page.evaluate("axe.run().then((found) => found.violations)")
            bad = [
                (one["id"], one["nodes"][0]["html"][:200])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert bad == [], (path, theme)
    page.set_viewport_size({"width": 390, "height": 780})
    for path in ("/datasets", "/datasets/moves?tab=episodes&episode=2", "/datasets/pictures?tab=images"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
