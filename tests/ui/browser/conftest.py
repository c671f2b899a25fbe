"""Headless Chromium on a real server with real runs; a page fails its test on any error and on any foreign request.

    def test_something(page: Any, lab: Lab) -> None:
        page.goto("/runs")

A path is taken below the lab's address. Where Chromium is not installed the tests skip and say so.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from melete.settings import Settings
from trial_runs import started_run
from web_at_hand import Lab, fill

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parents[3] / "node_modules" / "axe-core" / "axe.min.js"
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 780}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server on a home with real runs, a job, data and sessions; shared, so tests change only what they made."""
    folder = tmp_path_factory.mktemp("lab")
    made = new_lab(folder)
    made.start()
    yield made
    made.stop()


def new_lab(folder: Path, *, train: bool = True) -> Lab:
    """A filled home whose server is not started yet, for tests that stop it or change much."""
    settings = Settings.of(folder / "home")
    settings.home.mkdir()
    return Lab(settings, fill(settings, folder, train=train))


@pytest.fixture
def busy_lab(lab: Lab) -> Iterator[tuple[Lab, str]]:
    """The lab, and the id of a real run that writes figures all the while the test looks."""
    with started_run(lab.settings, "--steps", "1000000", "--hold-s", "0.05", "--name", "busy") as (
        child,
        path,
    ):
        # What the child says goes to a pipe; somebody has to read it.
        threading.Thread(target=lambda: child.stdout and child.stdout.read(), daemon=True).start()
        yield lab, path.name


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, for one file: as long as it is there, nothing else in this process can have an event loop."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api")
    playwright.expect.set_options(timeout=20_000)
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def watched(browser: Any, url: str, *, allowed: tuple[str, ...] = (), **options: Any) -> Iterator[Any]:
    """A tab in a fresh profile, whose errors and requests to other hosts fail the test.

    Args:
        browser: Chromium.
        url: of the server; paths are taken below it, and nothing else may be asked.
        allowed: parts of messages of the console that this test provokes.
        options: of the browser's context, such as `viewport` or `color_scheme`.
    """
    context = browser.new_context(**{"viewport": DESK, "base_url": url, **options})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    wrong: list[str] = []
    at_home = (url, url.replace("http", "ws", 1), "data:", "blob:")

    def watch(tab: Any) -> None:
        tab.on(
            "console",
            lambda said: wrong.append(f"{said.text} {said.location}") if said.type == "error" else None,
        )
        tab.on("pageerror", lambda error: wrong.append(str(error)))

    context.on("page", watch)
    context.on("request", lambda asked: None if asked.url.startswith(at_home) else wrong.append(asked.url))
    tab = context.new_page()
    yield tab
    context.close()
    assert [text for text in wrong if not any(part in text for part in allowed)] == []


@pytest.fixture
def page(browser: Any, lab: Lab) -> Iterator[Any]:
    """A tab on the lab, at the width of a desk."""
    with watched(browser, lab.url) as tab:
        yield tab


@pytest.fixture
def phone(browser: Any, lab: Lab) -> Iterator[Any]:
    """A tab on the lab, at the width of a phone."""
    with watched(browser, lab.url, viewport=PHONE, has_touch=True) as tab:
        yield tab


def violations(tab: Any) -> list[str]:
    """What axe-core finds that is serious or critical, one line each; the tab must bypass the policy of the page."""
    if not tab.evaluate("'axe' in window"):
        tab.add_script_tag(path=AXE)
    found = tab.evaluate("axe.run().then((result) => result.violations)")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
