"""Every endpoint of the gateway, with the real LiteLLM, to every kind of upstream; what does not exist, and metrics."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest
from sqlalchemy import text

from gateway_at_hand import BODIES, MODELS, SAID, ask, at_hand, said
from melete.gateway import config
from melete.gateway.echo.script import Script
from melete.gateway.environment import WARM_MODEL
from melete.store import database

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

NATIVE = {
    ("echo", "/v1/chat/completions"): "/v1/chat/completions",
    ("echo", "/v1/responses"): "/v1/responses",
    ("echo-messages", "/v1/messages"): "/v1/messages",
}
"""Model and endpoint to the endpoint of the upstream, where it is the same."""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("model", MODELS)
def test_every_endpoint_reaches_every_kind_of_upstream(model: str, path: str, stream: bool) -> None:
    hand = at_hand()
    lent = hand.session((model,))
    hand.upstream.seen.clear()
    answer = ask(hand.url, lent, model, path, stream=stream)
    assert said(path, answer, stream) == SAID
    reached = {seen["path"] for seen in hand.upstream.seen}
    assert len(reached) == 1
    if model == "echo-chat":
        assert reached == {"/v1/chat/completions"}
    if (model, path) in NATIVE:
        assert reached == {NATIVE[model, path]}
    (row,) = hand.requests(lent.id, 1)
    assert (row["status"], row["stream"], row["deployment"]) == ("ok", stream, f"{model}/{model}")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("model", MODELS)
def test_tool_call_comes_through_every_translation(model: str, path: str) -> None:
    hand = at_hand()
    lent = hand.session((model,))
    parameters = {"type": "object", "properties": {"path": {"type": "string"}}}
    tool: dict[str, Any] = {
        "/v1/chat/completions": {"type": "function", "function": {"name": "look", "parameters": parameters}},
        "/v1/responses": {"type": "function", "name": "look", "parameters": parameters},
        "/v1/messages": {"name": "look", "input_schema": parameters},
    }[path]
    called = {"path": "notes.txt"}
    hand.upstream.play(
        Script.model_validate({"turns": [{"tool_calls": [{"name": "look", "arguments": called}]}]})
    )
    try:
        told = json.loads(ask(hand.url, lent, model, path, tools=[tool]))
    finally:
        hand.upstream.play(Script())
    if path == "/v1/chat/completions":
        function = told["choices"][0]["message"]["tool_calls"][0]["function"]
        found = function["name"], json.loads(function["arguments"])
    elif path == "/v1/responses":
        item = next(item for item in told["output"] if item["type"] == "function_call")
        found = item["name"], json.loads(item["arguments"])
    else:
        block = next(block for block in told["content"] if block["type"] == "tool_use")
        found = block["name"], block["input"]
    assert found == ("look", called)
    (row,) = hand.requests(lent.id, 1)
    assert (row["status"], row["tool_calls"]) == ("ok", 1)


def test_warm_up_is_no_request_of_anybody() -> None:
    hand = at_hand()
    with database.connect(hand.settings.database) as connection:
        query = text(
            "SELECT count(*) FROM request WHERE model_asked = :model OR session_id IS NULL AND source = 'warm'"
        )
        assert connection.scalar(query, {"model": WARM_MODEL}) == 0
    assert WARM_MODEL not in hand.gateway.models


def test_no_route_but_those_of_sessions_exists() -> None:
    hand = at_hand()
    lent = hand.session()
    for path in (
        "/key/generate",
        "/config/yaml",
        "/ui",
        "/docs",
        "/openapi.json",
        "/health",
        "/model/info",
        "/",
    ):
        request = urllib.request.Request(hand.url + path, headers=lent.headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        assert caught.value.code == 404, path


def test_metrics_of_litellm_have_their_names_and_no_key_or_session_on_them() -> None:
    hand = at_hand()
    lent = hand.session()
    ask(hand.url, lent, "echo", "/v1/chat/completions")
    key = config.scrape_key(hand.settings)
    request = urllib.request.Request(f"{hand.url}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=20) as response:
        page = response.read().decode()
    for name in ("litellm_proxy_total_requests_metric_total", "litellm_llm_api_latency_metric_bucket"):
        assert f"{name}{{" in page
    assert lent.id not in page
    assert lent.key not in page
    series = re.findall(r"^litellm_\w+\{([^}]*)\}", page, re.MULTILINE)
    closed = {
        "requested_model", "status_code", "exception_status", "exception_class", "model_group", "le",
    }  # fmt: skip
    assert {label for labels in series for label in re.findall(r"(\w+)=", labels)} <= closed
