"""The report in a real browser: no request leaves the file, no script fails, the pointer reads a curve."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from melete.jobs.execute import Options, execute
from melete.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")


@pytest.fixture
def page() -> Iterator[Page]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 390, "height": 800})
        browser.close()


def test_report_reads_under_the_pointer_fits_a_phone_and_asks_nobody(home: Settings, page: Page) -> None:
    record = execute("trial.count", {"steps": 200}, Options(home))
    report: Path = home.runs / record.id / "report.html"
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
    page.goto(report.as_uri())
    chart = page.get_by_role("img", name="loss over steps")
    chart.hover()
    assert "loss" in (chart.locator(".hover text").text_content() or "")
    assert chart.locator(".hover").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert failed == []
    assert asked == [report.as_uri()]
