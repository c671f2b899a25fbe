"""The chat page in headless Chromium: talking, stopping, tools, keyboard, themes, a phone's width, accessibility."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from melete.serve import page as chat_page
from melete.serve.server import Server

from .conftest import echo_model, settings_in

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
VENDORED = (chat_page.STATIC / "vendor" / "marked.js").is_file()
CALL = 'call calculator {"expression": "37 * 41 + 12"}'
MARKDOWN = (
    "A **bold** word\n\n```python\n" + "x = 1  # " + "long " * 60 + "\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"
)
EVIL = '<img src=x onerror="document.title=1"> [link](javascript:alert(1)) <script>document.title=1</script>'

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]
needs_markdown = pytest.mark.skipif(not VENDORED, reason="marked is not vendored; run tools/vendor.py")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an echo model that can be watched while it writes."""
    settings = settings_in(tmp_path_factory.mktemp("home"))
    with Server({"echo": echo_model(interval_s=0.001)}, settings) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, site: Server) -> Iterator[Any]:
    """The chat page in a fresh profile; fails on any error in the console and on any request to another host."""
    context = browser.new_context(viewport={"width": 1100, "height": 760})
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith((site.url, "data:")) else wrong.append(r.url))
    tab.goto(f"{site.url}/chat")
    yield tab
    context.close()
    assert [text for text in wrong if "ERR_FAILED" not in text] == []


def say(page: Any, text: str) -> None:
    """Sends a message and waits for the end of the answer."""
    page.fill("#composer", text)
    page.press("#composer", "Enter")
    idle(page)


def idle(page: Any) -> None:
    """Waits until no answer is being written."""
    page.wait_for_selector("[data-part=log][aria-busy=false]")


def answers(page: Any) -> list[str]:
    """The texts of the model's messages."""
    return [text.strip() for text in page.locator(".message.assistant > .body").all_inner_texts()]


def test_message_is_answered_and_counted(page: Any) -> None:
    say(page, "Good day 🌍")
    assert answers(page) == ["Good day 🌍"]
    assert "14 tokens" in page.inner_text(".stats")
    assert page.locator("#composer").input_value() == ""


def test_answer_streams_and_escape_stops_it(page: Any) -> None:
    page.fill("#composer", "word " * 600)
    page.press("#composer", "Enter")
    page.wait_for_selector(".message.assistant.busy > .body:not(:empty)")
    page.keyboard.press("Escape")
    idle(page)
    assert 0 < len(answers(page)[0]) < 2000
    assert page.get_by_role("button", name="Send").is_visible()


def test_stop_button_stops(page: Any) -> None:
    page.fill("#composer", "word " * 600)
    page.press("#composer", "Enter")
    page.get_by_role("button", name="Stop").click()
    idle(page)
    assert page.get_by_role("status").inner_text() == "Stopped."


def test_regenerate_replaces_the_answer(page: Any) -> None:
    say(page, "one")
    page.get_by_role("button", name="Regenerate").click()
    idle(page)
    assert answers(page) == ["one"]


def test_edit_sends_the_changed_message_again(page: Any) -> None:
    say(page, "first")
    say(page, "second")
    page.locator(".message.user").first.hover()
    page.get_by_role("button", name="Edit").first.click()
    page.fill("#edit-text", "changed")
    page.press("#edit-text", "Enter")
    idle(page)
    assert answers(page) == ["changed"]


def test_tool_call_is_run_and_shown_as_a_card(page: Any) -> None:
    say(page, CALL)
    card = page.get_by_role("region", name="Tool call")
    assert card.locator(".name").inner_text() == "calculator"
    assert card.locator(".asked").inner_text() == "37 * 41 + 12"
    assert card.locator(".result").inner_text() == "1529"
    assert answers(page)[-1] == "The tool answered: 1529"


def test_unknown_tool_is_shown_as_failed(page: Any) -> None:
    say(page, 'call rocket {"to": "moon"}')
    assert page.locator(".card.failed .result").inner_text() == "error: there is no tool named rocket"


def test_keyboard_alone_is_enough(page: Any) -> None:
    assert page.evaluate("document.activeElement.id") == "composer"
    page.keyboard.type("a")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("b")
    page.keyboard.press("Enter")
    idle(page)
    assert page.locator(".message.user .body").inner_text() == "a\nb"
    page.locator("h1").evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "composer"
    page.keyboard.press("Control+k")
    assert page.locator(".message").count() == 0
    assert page.get_by_role("heading", name="What shall we practise?").is_visible()


def test_conversation_survives_a_reload_and_has_a_link(page: Any) -> None:
    say(page, "remember this")
    link = page.url
    assert "#" in link
    page.reload()
    assert answers(page) == ["remember this"]
    page.keyboard.press("Control+k")
    page.get_by_role("link", name="remember this").click()
    assert page.url == link
    assert answers(page) == ["remember this"]


def test_link_with_a_question_fills_the_box(page: Any, site: Server) -> None:
    page.goto(f"{site.url}/chat?q=What+now%3F&model=echo")
    assert page.locator("#composer").input_value() == "What now?"


def test_settings_are_sent_and_kept(page: Any) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Most tokens").fill("3")
    page.get_by_role("switch", name="Calculator").uncheck()
    page.keyboard.press("Escape")
    with page.expect_request("**/v1/chat/completions") as sent:
        say(page, "abcdef")
    body = sent.value.post_data_json
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_tokens"], "tools" in body) == (3, False)
    assert answers(page) == ["abc"]
    page.reload()
    page.get_by_role("button", name="Settings").click()
    assert page.get_by_label("System prompt").input_value() == "Be brief."


def test_theme_follows_the_system_until_it_is_chosen(page: Any) -> None:
    def paper() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = paper()
    page.emulate_media(color_scheme="dark")
    dark = paper()
    assert light != dark
    page.get_by_role("button", name="Switch between light and dark").click()
    assert paper() == light
    page.reload()
    assert paper() == light


def test_server_that_is_gone_is_said_and_can_be_tried_again(page: Any) -> None:
    page.route("**/v1/chat/completions", lambda route: route.abort())
    say(page, "hello")
    assert "cannot be reached" in page.get_by_role("alert").inner_text()
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    idle(page)
    assert answers(page) == ["hello"]
    assert page.get_by_role("alert").count() == 0


def test_refused_request_shows_the_servers_words(page: Any) -> None:
    page.evaluate("localStorage.setItem('melete.settings', JSON.stringify({max_tokens: '3'}))")
    page.reload()
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        status=200, content_type="text/event-stream",
        body='data: {"error": {"message": "The queue is full."}}\n\ndata: [DONE]\n\n',
    ))  # fmt: skip
    say(page, "hello")
    assert "The queue is full." in page.get_by_role("alert").inner_text()


@needs_markdown
def test_markdown_is_rendered_and_nothing_in_it_runs(page: Any) -> None:
    say(page, MARKDOWN)
    assert page.locator(".body strong").inner_text() == "bold"
    assert page.locator(".body pre code").count() == 1
    say(page, EVIL)
    assert page.locator(".body img, .body script, .body a[href^=javascript]").count() == 0
    assert "<script>" in answers(page)[-1]
    assert page.title() == "Chat · Melete"


def test_page_without_markdown_libraries_shows_plain_text(browser: Any, site: Server) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.route("**/vendor/*", lambda route: route.fulfill(status=404))
    tab.goto(f"{site.url}/chat")
    say(tab, MARKDOWN)
    assert answers(tab) == [MARKDOWN]
    context.close()


def test_phone_never_scrolls_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 780})
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(wide)
    say(page, MARKDOWN + " " + "unbreakable" * 30)
    say(page, CALL)
    assert not page.evaluate(wide)
    assert not page.evaluate(
        "document.querySelector('.talk').scrollWidth > document.querySelector('.talk').clientWidth"
    )
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="New chat").first.wait_for()
    assert not page.evaluate(wide)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    assert not page.evaluate(wide)


def test_login_page_lets_in_with_the_token(browser: Any, tmp_path: Path) -> None:
    with Server({"echo": echo_model()}, settings_in(tmp_path, "s3cret")) as guarded:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(f"{guarded.url}/chat")
        for token in ("wrong", "s3cret"):
            tab.get_by_label("Token").fill(token)
            tab.get_by_role("button", name="Open the chat").click()
            tab.wait_for_load_state()
        say(tab, "inside")
        assert answers(tab) == ["inside"]
        context.close()


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; run tools/vendor.py")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 390])
def test_page_has_no_accessibility_violations(browser: Any, site: Server, scheme: str, width: int) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 760}, color_scheme=scheme, bypass_csp=True
    )
    tab = context.new_page()
    tab.goto(f"{site.url}/chat")
    tab.add_script_tag(path=AXE)
    problems = violations(tab)
    say(tab, CALL)
    say(tab, MARKDOWN)
    problems += violations(tab)
    tab.get_by_role("button", name="Settings").click()
    problems += violations(tab)
    context.close()
    assert problems == []


def violations(tab: Any) -> list[str]:
    """What axe-core finds, one line each."""
    found = tab.evaluate("axe.run().then((result) => result.violations)")
    return [f"{v['id']}: {node['target']} {node['failureSummary']}" for v in found for node in v["nodes"]]
