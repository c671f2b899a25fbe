"""The pages of models in Chromium: from a trained run to a deployed agent that answers, and back a version."""

from __future__ import annotations

import json
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from melete.agents.deploy import deploy
from web_at_hand import Lab

from .conftest import AXE, PHONE, violations, watched

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def test_trained_model_is_deployed_from_the_form_and_answers(page: Any, lab: Lab) -> None:
    page.goto("/models")
    page.get_by_role("link", name="tiny-base", exact=True).click()
    page.get_by_label("Scenario and guard").select_option("customer_support")
    page.get_by_text("It has succeeded when").wait_for()
    page.locator("[name=name]").fill("from-the-form")
    page.get_by_role("button", name="Deploy").click()
    page.wait_for_url("**/models/deployments/from-the-form")
    expect(page.get_by_text("intact")).to_be_visible()
    asked = json.dumps({"model": "from-the-form"}).encode()
    with urllib.request.urlopen(f"{lab.url}/v1/models", asked, timeout=60) as answer:
        assert json.load(answer)["id"] == "from-the-form"


def test_refused_deployment_is_told_in_the_form(page: Any, lab: Lab) -> None:
    page.goto("/models/tiny-base")
    page.locator("[name=name]").fill("refused")
    page.get_by_role("button", name="Deploy").click()
    said = page.locator("#deploy [role=alert]")
    said.wait_for()
    expect(said).to_contain_text("practised no scenario")
    expect(page.locator("[name=name]")).to_have_value("refused")


def test_going_back_asks_first_and_is_shown(page: Any, lab: Lab) -> None:
    for _ in range(2):
        deploy("echo", lab.settings, name="there-and-back", scenario="customer_support")
    page.goto("/models/deployments/there-and-back")
    page.get_by_role("button", name="Go back to 1.0").click()
    dialog = page.locator("dialog[open]")
    expect(dialog).to_contain_text("from version 1.1 to 1.0")
    dialog.get_by_role("button", name="Go back").click()
    page.get_by_text("version 1.0 in use").wait_for()
    assert lab.get("/deployments/there-and-back")["version"] == "1.0"


def test_download_is_the_checkpoint_as_a_tar_file(page: Any, lab: Lab) -> None:
    page.goto("/models/tiny-base")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download").first.click()
    with tarfile.open(Path(saved.value.path())) as archive:
        names = [Path(name).name for name in archive.getnames()]
    assert {"checkpoint.json", "tokenizer.json"} <= set(names)


def test_chat_link_loads_the_model_and_opens_the_chat(page: Any, lab: Lab) -> None:
    page.goto("/models/tiny-base")
    page.get_by_role("link", name="Load & chat").click()
    page.wait_for_url("**/chat?model=tiny-base", timeout=60_000)
    expect(page.locator("chat-pane select")).to_have_value("tiny-base", timeout=60_000)


def test_drawing_leads_to_the_deployment(page: Any, lab: Lab) -> None:
    page.goto("/models")
    page.locator("svg a", has=page.locator(".node-deployment")).first.click()
    page.wait_for_url("**/models/deployments/*")


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; run tools/vendor.py")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_models_are_accessible_and_fit_a_phone(browser: Any, lab: Lab, scheme: str) -> None:
    deploy("echo", lab.settings, name=f"axe-{scheme}", scenario="customer_support")
    problems = []
    with watched(browser, lab.url, viewport=PHONE, color_scheme=scheme, bypass_csp=True) as tab:
        for path in ("/models", "/models/tiny-base", f"/models/deployments/axe-{scheme}"):
            tab.goto(path)
            assert not tab.evaluate("document.documentElement.scrollWidth > innerWidth")
            problems += violations(tab)
    assert problems == []
