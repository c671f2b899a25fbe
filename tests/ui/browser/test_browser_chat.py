"""The chat page in Chromium: talking, stopping, branches, tools, agents, two models, loading, hostile answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from melete.agents.deploy import deploy
from melete.api import whole
from melete.api.serving import Serving
from melete.serve import echo, models
from melete.serve.agents import Agents
from melete.serve.models import ServedModel
from melete.serve.server import Server
from melete.settings import Settings
from melete.ui.assets import STATIC
from web_at_hand import Lab

from .conftest import AXE, PHONE, violations, watched

CALL = 'call calculator {"expression": "37 * 41 + 12"}'
MARKDOWN = (
    "A **bold** word\n\n```python\n" + "x = 1  # " + "long " * 60 + "\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"
)
EVIL = (
    '<img src=x onerror="document.title=1"> [link](javascript:alert(1)) <script>document.title=1</script> '
    "![spy](http://example.com/spy.png) [out](http://example.com/)"
)
LONG = "word " * 600

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
needs_markdown = pytest.mark.skipif(
    not (STATIC / "vendor" / "marked.js").is_file(), reason="marked is not vendored; run tools/vendor.py"
)


def slow_echo(name: str, context: int = 8192) -> ServedModel:
    """An echo model that can be watched while it writes."""
    lm = echo.load(context)
    return ServedModel(name, lm, echo.EchoEngine(lm, interval_s=0.001), models.ECHO)


@contextmanager
def serving(settings: Settings, *names: str) -> Iterator[Server]:
    """A server with pages over echo models, that can load more."""
    served = {name: slow_echo(name) for name in names}
    agents = Agents(served, settings, device="cpu")
    mounts = whole.mounts(settings, Serving(lambda: served, lambda: agents))
    with Server(served, settings, agents=agents, mounts=mounts) as running:
        yield running


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Server]:
    """A server with two echo models, over the home of the lab."""
    with serving(lab.settings, "echo", "other") as running:
        yield running


@pytest.fixture
def page(browser: Any, site: Server) -> Iterator[Any]:
    """The chat page with `echo`, in a fresh profile."""
    with watched(browser, site.url, allowed=("ERR_FAILED", "status of 4")) as tab:
        tab.goto("/chat?model=echo")
        ready(tab)
        yield tab


def ready(page: Any) -> None:
    """Waits until a model can be talked to."""
    page.wait_for_selector("[data-part=send]:not([disabled])")


def say(page: Any, text: str) -> None:
    """Sends a message and waits for the end of all answers."""
    page.fill("#composer", text)
    page.press("#composer", "Enter")
    page.wait_for_selector(".message.assistant, .trouble")
    idle(page)


def idle(page: Any) -> None:
    """Waits until no answer is being written."""
    page.wait_for_function("() => !document.querySelector('.log[aria-busy=true]')")


def bodies(page: Any, pane: int = 0) -> Any:
    """What a pane's model has said, as it is shown."""
    return page.locator("chat-pane").nth(pane).locator(".message.assistant > .body")


def answers(page: Any, pane: int = 0) -> list[str]:
    """The texts of a pane's model."""
    return [text.strip() for text in bodies(page, pane).all_inner_texts()]


def test_message_is_answered_counted_and_timed(page: Any) -> None:
    say(page, "Good day 🌍")
    expect(bodies(page)).to_have_text(["Good day 🌍"])
    stats = page.inner_text(".stats")
    assert "14 tokens" in stats
    assert "a second · first after" in stats
    expect(page.locator("#composer")).to_have_value("")


def test_answer_streams_and_escape_stops_it(page: Any) -> None:
    page.fill("#composer", LONG)
    page.press("#composer", "Enter")
    page.wait_for_selector(".message.assistant.busy > .body:not(:empty)")
    page.keyboard.press("Escape")
    idle(page)
    assert 0 < len(answers(page)[0]) < len(LONG.strip())
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_stop_button_stops(page: Any) -> None:
    page.fill("#composer", LONG)
    page.press("#composer", "Enter")
    page.get_by_role("button", name="Stop", exact=True).click()
    idle(page)
    expect(page.locator("[data-part=status]")).to_have_text("Stopped.")


def test_regenerate_keeps_the_answer_before_as_a_branch(page: Any) -> None:
    say(page, "one")
    page.get_by_role("button", name="Regenerate").click()
    idle(page)
    expect(bodies(page)).to_have_text(["one"])
    expect(page.locator(".assistant .branches")).to_have_text("2 / 2")
    page.get_by_role("button", name="The answer before").click()
    expect(page.locator(".assistant .branches")).to_have_text("1 / 2")


def test_edit_sends_the_changed_message_and_keeps_the_first(page: Any) -> None:
    say(page, "first")
    say(page, "second")
    page.locator(".message.user").first.hover()
    page.get_by_role("button", name="Edit").first.click()
    page.fill("#edit-text", "changed")
    page.press("#edit-text", "Enter")
    page.wait_for_selector(".message.assistant")
    idle(page)
    expect(bodies(page)).to_have_text(["changed"])
    page.locator(".message.user").hover()
    page.get_by_role("button", name="The version before").click()
    expect(bodies(page)).to_have_text(["first", "second"])


def test_tool_call_is_run_and_shown_as_a_card(page: Any) -> None:
    say(page, CALL)
    card = page.get_by_role("region", name="Tool call")
    expect(card.locator(".name")).to_have_text("calculator")
    expect(card.locator(".asked")).to_have_text("37 * 41 + 12")
    expect(card.locator(".result")).to_have_text("1529")
    assert answers(page)[-1] == "The tool answered: 1529"


def test_unknown_tool_is_shown_as_failed(page: Any) -> None:
    say(page, 'call rocket {"to": "moon"}')
    expect(page.locator(".call.failed .result")).to_have_text("error: there is no tool named rocket")


def test_keyboard_alone_is_enough(page: Any) -> None:
    expect(page.locator("#composer")).to_be_focused()
    page.keyboard.type("a")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("b")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.assistant")
    idle(page)
    expect(page.locator(".message.user .body")).to_have_text("a\nb")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    expect(page.locator("#composer")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    expect(page.locator(".message")).to_have_count(0)
    expect(page.get_by_role("heading", name="What shall we practise?")).to_be_visible()


def test_conversation_survives_a_reload_and_has_a_link(page: Any) -> None:
    say(page, "remember this")
    page.wait_for_url("**#*")
    link = page.url
    page.reload()
    expect(bodies(page)).to_have_text(["remember this"])
    page.get_by_role("button", name="New chat").first.click()
    page.get_by_role("link", name="remember this").click()
    page.wait_for_url(lambda url: url.partition("#")[2] == link.partition("#")[2])
    expect(bodies(page)).to_have_text(["remember this"])


def test_conversation_of_before_there_were_branches_is_still_shown(page: Any) -> None:
    old = [{"id": "old", "model": "echo", "messages": [
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello then"}]}]  # fmt: skip
    page.evaluate("kept => localStorage.setItem('melete.conversations', kept)", json.dumps(old))
    page.goto("/chat#old")
    page.reload()
    expect(bodies(page)).to_have_text(["hello then"])


def test_link_with_a_question_fills_the_box(page: Any) -> None:
    page.goto("/chat?q=What+now%3F&model=echo")
    expect(page.locator("#composer")).to_have_value("What now?")


def test_what_is_being_written_survives_a_reload(page: Any) -> None:
    page.fill("#composer", "half a thought")
    page.reload()
    expect(page.locator("#composer")).to_have_value("half a thought")


def test_settings_are_sent_and_kept(page: Any) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Most tokens").fill("3")
    page.get_by_label("Stop", exact=False).last.fill("zz\nyy")
    page.get_by_role("switch", name="Calculator").uncheck()
    page.keyboard.press("Escape")
    with page.expect_request("**/v1/chat/completions") as sent:
        say(page, "abcdef")
    body = sent.value.post_data_json
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["max_tokens"], body["stop"], "tools" in body) == (3, ["zz", "yy"], False)
    expect(bodies(page)).to_have_text(["abc"])
    page.reload()
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")


def test_server_that_is_gone_is_said_and_can_be_tried_again(page: Any) -> None:
    page.route("**/v1/chat/completions", lambda route: route.abort())
    say(page, "hello")
    expect(page.locator(".trouble")).to_contain_text("cannot be reached")
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".message.assistant")
    idle(page)
    expect(bodies(page)).to_have_text(["hello"])
    expect(page.locator(".trouble")).to_have_count(0)


def test_refused_request_shows_the_servers_words(page: Any) -> None:
    page.route("**/v1/chat/completions", lambda route: route.fulfill(
        status=200, content_type="text/event-stream",
        body='data: {"error": {"message": "The queue is full."}}\n\ndata: [DONE]\n\n',
    ))  # fmt: skip
    say(page, "hello")
    expect(page.locator(".trouble")).to_contain_text("The queue is full.")


def test_sign_in_that_has_run_out_is_asked_for_and_nothing_is_lost(browser: Any, lab: Lab) -> None:
    guarded = replace(lab.settings, token="s3cret")
    with serving(guarded, "echo") as site, watched(browser, site.url, allowed=("status of 401",)) as tab:
        tab.goto("/chat?model=echo")
        tab.get_by_label("Token").fill("s3cret")
        tab.keyboard.press("Enter")
        tab.wait_for_url("**/chat*")
        ready(tab)
        tab.context.clear_cookies()
        tab.fill("#composer", "still here")
        tab.press("#composer", "Enter")
        tab.locator("dialog[open]").get_by_label("Token").fill("s3cret")
        tab.keyboard.press("Enter")
        tab.wait_for_selector(".message.assistant .stats:not(:empty)")
        expect(bodies(tab)).to_have_text(["still here"])


@needs_markdown
def test_markdown_is_rendered_block_by_block(page: Any) -> None:
    say(page, MARKDOWN + "\n\nThe end.")
    page.wait_for_selector(".body table")
    expect(page.locator(".body strong")).to_have_text("bold")
    expect(page.locator(".body pre code")).to_have_count(1)
    expect(page.locator(".body > p").last).to_have_text("The end.")


def test_hostile_answer_runs_nothing_and_loads_nothing(page: Any) -> None:
    say(page, EVIL)
    expect(page.locator(".body img, .body script, .body a[href^=javascript]")).to_have_count(0)
    assert "<script>" in answers(page)[-1]
    link = page.get_by_role("link", name="out")
    assert (link.get_attribute("rel"), link.get_attribute("target")) == ("noopener noreferrer", "_blank")
    expect(page).to_have_title("Chat · Melete")


def test_page_without_markdown_libraries_shows_plain_text(browser: Any, site: Server) -> None:
    with watched(browser, site.url, allowed=("status of 404",)) as tab:
        for name in ("marked", "purify"):
            tab.route(f"**/vendor/{name}.js", lambda route: route.fulfill(status=404))
        tab.goto("/chat?model=echo")
        ready(tab)
        say(tab, MARKDOWN)
        tab.wait_for_selector(".body.raw")
        expect(bodies(tab)).to_have_text([MARKDOWN])


def test_two_models_answer_side_by_side_and_stop_on_their_own(page: Any) -> None:
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**compare=other**")
    page.fill("#composer", LONG)
    page.press("#composer", "Enter")
    first, second = page.locator("chat-pane").all()
    first.locator(".message.assistant.busy > .body:not(:empty)").wait_for()
    second.locator(".message.assistant.busy > .body:not(:empty)").wait_for()
    first.get_by_role("button", name="Stop this answer").click()
    idle(page)
    assert len(answers(page, 0)[0]) < len(answers(page, 1)[0]) == len(LONG.strip())
    expect(second.locator(".stats")).to_contain_text("first after")
    second.get_by_role("button", name="Regenerate").click()
    second.get_by_role("button", name="Stop this answer").click()
    idle(page)
    expect(second.locator(".assistant .branches")).to_have_text("2 / 2")
    expect(first.locator(".assistant .branches")).to_be_hidden()


def test_second_model_begins_with_what_was_said(page: Any) -> None:
    say(page, "before")
    page.get_by_role("button", name="Compare").click()
    expect(bodies(page, 1)).to_have_text(["before"])
    page.get_by_role("button", name="Close this side").first.click()
    expect(page.locator("chat-pane")).to_have_count(1)
    expect(page.locator("chat-pane select")).to_have_value("other")


def test_link_opens_two_models(page: Any) -> None:
    page.goto("/chat?model=other&compare=echo")
    ready(page)
    assert [one.input_value() for one in page.locator("chat-pane select").all()] == ["other", "echo"]


def test_code_and_export_hold_the_conversation(page: Any) -> None:
    say(page, "it's this")
    page.get_by_role("button", name="Code and export").click()
    assert "/v1/chat/completions" in page.inner_text("[data-part=curl]")
    assert "it'\\''s this" in page.inner_text("[data-part=curl]")
    compile(page.inner_text("[data-part=python]"), "snippet", "exec")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as JSON").click()
    kept = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
    assert [one["role"] for one in kept["panes"][0]["messages"]] == ["user", "assistant"]
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as Markdown").click()
    assert "it's this" in Path(saved.value.path()).read_text(encoding="utf-8")


def test_trained_model_is_loaded_where_nothing_is_and_talks(browser: Any, lab: Lab) -> None:
    with serving(lab.settings) as empty, watched(browser, empty.url) as tab:
        tab.goto("/chat")
        tab.get_by_role("heading", name="No model is loaded yet").wait_for()
        tab.get_by_role("button", name="Load tiny-base").click()
        ready(tab)
        say(tab, "red")
        assert "tokens · " in tab.inner_text(".stats")
        tab.get_by_role("button", name="Models").click()
        tab.get_by_role("button", name="Unload tiny-base").click()
        tab.locator("dialog[open]").get_by_role("button", name="Load tiny-base", exact=True).wait_for()
        assert empty.models == {}


def test_model_that_cannot_be_loaded_says_why_in_place(page: Any) -> None:
    page.get_by_role("button", name="Models").click()
    page.get_by_label("Another one").fill("no-such-run")
    page.get_by_role("button", name="Load", exact=True).last.click()
    said = page.locator("dialog[open] .other .problem")
    said.wait_for()
    expect(said).to_contain_text("no run named 'no-such-run'")


@pytest.fixture(scope="module")
def agent(lab: Lab) -> str:
    """A deployed agent under the guard of customer support."""
    return deploy("echo", lab.settings, name="guarded", scenario="customer_support").name


def test_agents_calls_are_judged_shown_and_executed_by_the_person(page: Any, agent: str) -> None:
    page.goto(f"/chat?model={agent}")
    page.get_by_text("guarded agent").first.wait_for()
    say(page, 'call get_order {"order": 1001}')
    expect(page.locator(".verdict")).to_have_text("allowed")
    page.get_by_label("Result of the call").fill('{"order": 1001, "state": "sent"}')
    page.get_by_role("button", name="Send the result").click()
    page.get_by_text("The tool answered:").wait_for()
    expect(page.locator(".call .result")).to_have_text('{"order": 1001, "state": "sent"}')


def test_agents_call_is_clamped_or_refused_with_reasons(page: Any, agent: str) -> None:
    page.goto(f"/chat?model={agent}")
    page.get_by_text("guarded agent").first.wait_for()
    say(page, 'call refund_order {"order": 1001, "amount": 20, "reason": "late"}')
    expect(page.locator(".verdict")).to_have_text("refused")
    expect(page.locator(".reasons")).to_contain_text("verify_identity first.")
    assert "Refused: refund_order is refused: verify_identity first." in answers(page)[-1]


def test_agents_call_that_needs_a_person_waits_for_one(page: Any, lab: Lab) -> None:
    name = asking_agent(lab.settings)
    page.goto(f"/chat?model={name}")
    page.get_by_text("guarded agent").first.wait_for()
    say(page, 'call delete_account {"account": "a-7"}')
    expect(page.locator(".verdict")).to_have_text("needs a person")
    page.get_by_role("button", name="Confirm").click()
    page.get_by_label("Result of the call").wait_for()
    expect(page.locator(".verdict")).to_have_text("allowed, confirmed")
    page.reload()
    page.get_by_label("Result of the call").fill("done")
    page.get_by_role("button", name="Send the result").click()
    page.get_by_text("The tool answered: done").wait_for()
    say(page, 'call delete_account {"account": "a-8"}')
    page.get_by_role("button", name="Decline").click()
    page.get_by_text(re.compile("The tool answered: Refused: .*a person has to agree")).wait_for()


def asking_agent(settings: Settings) -> str:
    """Deploys an agent whose guard asks before its one tool is used."""
    from melete.serve import deployment

    tool = {"type": "function", "function": {"name": "delete_account", "parameters": {
        "type": "object", "properties": {"account": {"type": "string"}}, "required": ["account"]}}}  # fmt: skip
    rule = {"confirmation": {"tool": "delete_account", "reason": "a person has to agree."}}
    guard = {
        "name": "careful",
        "version": "1",
        "rules": [{"allow_list": {"tools": ["delete_account"]}}, rule],
    }
    made = deployment.Deployment("careful", "1.0", "echo", "", "Help.", tools=(tool,), guard=guard)
    deployment.write(settings, made)
    deployment.activate(settings, made.name, made.version)
    return made.name


def test_phone_never_scrolls_sideways(browser: Any, site: Server) -> None:
    wide = "document.documentElement.scrollWidth > innerWidth"
    with watched(browser, site.url, viewport=PHONE) as page:
        page.goto("/chat?model=echo")
        ready(page)
        assert not page.evaluate(wide)
        say(page, MARKDOWN + " " + "unbreakable" * 30)
        say(page, CALL)
        assert not page.evaluate(wide)
        assert not page.evaluate(
            "document.querySelector('.talk').scrollWidth > document.querySelector('.talk').clientWidth"
        )
        page.get_by_role("button", name="Compare").click()
        assert not page.evaluate(wide)
        page.get_by_role("button", name="Conversations").click()
        page.get_by_role("button", name="New chat").first.wait_for()
        assert not page.evaluate(wide)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Settings").click()
        assert not page.evaluate(wide)


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed; run tools/vendor.py")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_chat_has_no_serious_accessibility_violation(
    browser: Any, site: Server, scheme: str, width: int
) -> None:
    view = {"width": width, "height": 760}
    with watched(browser, site.url, viewport=view, color_scheme=scheme, bypass_csp=True) as tab:
        tab.goto("/chat?model=echo&compare=other")
        ready(tab)
        problems = violations(tab)
        say(tab, CALL)
        say(tab, MARKDOWN)
        problems += violations(tab)
        for name in ("Settings", "Models", "Code and export"):
            tab.get_by_role("button", name=name).first.click()
            problems += violations(tab)
            tab.keyboard.press("Escape")
    assert problems == []


def test_end_stays_in_sight_unless_one_has_scrolled_up(page: Any) -> None:
    say(page, "line\n" * 60)
    page.wait_for_function("() => document.querySelector('chat-pane').below() < 5")
    page.fill("#composer", "line\n" * 160)
    page.press("#composer", "Enter")
    page.wait_for_selector(".message.assistant.busy > .body:not(:empty)")
    page.locator(".talk").evaluate("talk => { talk.scrollTop = 0; }")
    idle(page)
    assert page.locator(".talk").evaluate("talk => talk.scrollTop") == 0


GROWN = """
async (text) => {
  const made = () => document.querySelector("main").appendChild(document.createElement("mark-down"));
  const settled = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  const [grown, whole] = [made(), made()];
  for (let end = 1; end <= text.length; end++) {
    grown.text = text.slice(0, end);
    grown.finish();
    if (end % 7 === 0) await settled();
  }
  whole.text = text;
  await settled();
  const first = grown.firstElementChild;
  grown.text = text + " More.";
  grown.finish();
  await settled();
  return { same: grown.innerHTML.startsWith(whole.innerHTML.slice(0, -20)), kept: grown.firstElementChild === first };
}
"""


@needs_markdown
def test_text_that_grows_is_rendered_as_the_whole_and_its_first_blocks_are_kept(page: Any) -> None:
    text = (
        "# Head\n\n- a\n- b\n\n  more of b\n\n1. one\n2. two\n\n> said\n> twice\n\n"
        + MARKDOWN
        + "\n\nThe last words"
    )
    assert page.evaluate(GROWN, text) == {"same": True, "kept": True}
