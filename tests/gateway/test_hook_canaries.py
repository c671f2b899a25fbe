"""Secrets and prompts that pass through a real proxy stand in no table, log, spool, metric or other file afterwards."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway_at_hand import AtHand, at_hand
from melete.gateway.echo.script import Failure, Reply, Rule, Script, ToolCall, When

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


class Canaries:
    """Hands out words that stand nowhere else and remembers them."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        self.all[place] = f"canary{secrets.token_hex(6)}"
        return self.all[place]


@pytest.fixture
def hand() -> Iterator[AtHand]:
    found = at_hand()
    yield found
    found.upstream.play(Script())


def bodies(canary: Canaries, name: str) -> Iterator[dict[str, Any]]:
    """Requests to one endpoint that hold canaries wherever a harness can put text."""
    schema = {"type": "object", "properties": {canary(f"{name} property"): {"type": "string"}}}
    tool = {
        "name": canary(f"{name} tool"),
        "description": canary(f"{name} description"),
        "parameters": schema,
    }
    common = {
        "user": canary(f"{name} user"),
        "metadata": {"tags": [canary(f"{name} tag")], canary(f"{name} key"): "1"},
        canary(f"{name} parameter"): canary(f"{name} value"),
        "stop": [canary(f"{name} stop")],
    }
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": tool["name"], "arguments": canary(f"{name} argument")},
    }
    said = canary(f"{name} prompt")
    for stream in (False, True):
        base = {**common, "model": "echo", "stream": stream}
        if name == "chat":
            yield {**base, "tools": [{"type": "function", "function": tool}], "messages": [
                {"role": "system", "content": canary("system")}, {"role": "user", "content": said},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": canary("tool result")}]}  # fmt: skip
        elif name == "responses":
            yield {
                **base,
                "input": said,
                "instructions": canary("instructions"),
                "tools": [{"type": "function", **tool}],
            }
        else:
            anthropic = {
                "name": tool["name"],
                "description": tool["description"],
                "input_schema": schema,
            }
            yield {**base, "model": "echo-messages", "max_tokens": 50, "system": canary("anthropic system"),
                   "tools": [anthropic], "messages": [{"role": "user", "content": said}]}  # fmt: skip


def pages(hand: AtHand) -> str:
    """What both metrics pages say."""
    key = (hand.settings.gateway / "scrape.key").read_text().strip()
    told = httpx.get(f"{hand.url}/metrics", headers={"Authorization": f"Bearer {key}"}, follow_redirects=True)
    assert "litellm_" in told.text
    ours = httpx.get(hand.gateway.metrics_url or "") if hand.gateway.metrics_url else None
    return told.text + (ours.text if ours else "")


def found_in(home: Path, words: dict[str, str]) -> list[str]:
    """Which words stand in which files of a home, its database among them."""
    found = []
    for file in (path for path in home.rglob("*") if path.is_file()):
        held = file.read_bytes()
        found += [f"{place} in {file.name}" for place, word in words.items() if word.encode() in held]
    return found


def test_canaries_in_everything_that_passes_are_found_nowhere(hand: AtHand) -> None:
    canary = Canaries()
    lent = hand.session()
    headers = {
        **lent.headers,
        "User-Agent": f"agent/{canary('user agent')}",
        "X-Custom": canary("header"),
        f"X-LiteLLM-{canary('header name')}": "1",
        "X-LiteLLM-Tags": canary("tag header"),
        "X-LiteLLM-Spend-Logs-Metadata": json.dumps({"note": canary("spend logs header")}),
        "X-LiteLLM-Call-Id": canary("call id"),
        "Cookie": f"session={canary('cookie')}",
        "OpenAI-Organization": canary("organisation"),
    }
    answers = Reply(
        text=canary("answer"), tool_calls=[ToolCall(name="bash", arguments={"x": canary("call")})]
    )
    fails = {
        status: Failure(status=status, message=f"{canary(f'error {status}')} about the prompt", code="oops")
        for status in (400, 401, 429, 500)
    }
    rules = [Rule(when=When(last=f"fail {status}"), error=failure) for status, failure in fails.items()]
    cut = Rule(when=When(last="cut"), text=canary("half an answer") + " and more", cut_after=1)
    garbage = Rule(when=When(last="garbage"), raw=f"<html>{canary('garbage')}")
    hand.upstream.play(Script(rules=[*rules, cut, garbage], turns=[answers]))
    with httpx.Client(base_url=hand.url, headers=headers, timeout=60) as client:
        for name, path in PATHS.items():
            for body in bodies(canary, name):
                answer = client.post(path, params={"q": canary(f"{name} address")}, json=body)
                assert answer.status_code == 200, answer.text
            for told in [*(f"fail {status}" for status in fails), "cut", "garbage"]:
                for stream in (False, True):
                    said = f"{canary(f'{name} {told} {stream}')} {told}"
                    messages = [{"role": "user", "content": said}]
                    asked = {"input": said} if name == "responses" else {"messages": messages}
                    body = {"model": "echo", "max_tokens": 9, "stream": stream, **asked}
                    client.post(path, json=body)
            client.post(path, json={"model": canary(f"{name} model"), "messages": []})
            client.post(path, content=f'{{"model": "echo", "{canary(f"{name} broken body")}')
            client.post(path, json={"model": "echo", "messages": canary(f"{name} wrong type"), "input": 7})
            client.post(f"{path}/{canary(f'{name} path')}", json={})
            wrong = {"Authorization": f"Bearer sk-{canary(f'{name} wrong key')}"}
            client.post(path, json={"model": "echo"}, headers=wrong)
        client.get(f"/{canary('route')}")
        client.post("/key/generate", json={"key_alias": canary("alias")})
    canary.all["the key itself"] = lent.key
    rows = hand.requests(lent.id, 40)
    assert len(rows) >= 40
    hand.requests(lent.id)
    assert found_in(hand.settings.home, canary.all) == []
    told = pages(hand)
    assert [place for place, word in canary.all.items() if word in told] == []
    assert len(canary.all) > 70


def test_word_that_is_kept_is_found_by_the_search(hand: AtHand) -> None:
    lent = hand.session()
    hand.requests(lent.id)
    assert any(
        place.endswith(("melete.db", "melete.db-wal"))
        for place in found_in(hand.settings.home, {"id": lent.id})
    )
