"""What is recorded of a request on its way through a real proxy: three endpoints, whole and broken."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway_at_hand import AtHand, Lent, at_hand
from melete.gateway.echo.script import Delay, Failure, Reply, Script, ToolCall, Usage
from melete.gateway.issuers import Policy
from melete.store import database

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("gateway")]

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
MODELS = ["echo", "echo-chat", "echo-messages"]
EIGHT = "one two three four five six seven eight"
COUNTED = Usage(input=100, cached=8, output=20, reasoning=5)
endpoints = pytest.mark.parametrize("endpoint", PATHS)
streams = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
def hand() -> Iterator[AtHand]:
    found = at_hand()
    yield found
    found.upstream.play(Script())


def say(hand: AtHand, reply: Reply) -> None:
    hand.upstream.play(Script(turns=[reply]))


def body_of(endpoint: str, model: str, stream: bool, said: str = "hello", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": said}]
    asked: dict[str, Any] = {"input": said} if endpoint == "responses" else {"messages": messages}
    if endpoint == "messages":
        asked["max_tokens"] = 100
    return {"model": model, "stream": stream, **asked, **more}


def call(hand: AtHand, lent: Lent, endpoint: str, model: str, stream: bool, **more: Any) -> httpx.Response:
    url = hand.url + PATHS[endpoint]
    return httpx.post(
        url, json=body_of(endpoint, model, stream, **more), headers=lent.headers, timeout=httpx.Timeout(30)
    )


def only(hand: AtHand, lent: Lent) -> dict[str, Any]:
    rows = hand.requests(lent.id, 1)
    assert len(rows) == 1
    return rows[0]


@endpoints
@streams
@pytest.mark.parametrize("model", MODELS)
def test_answer_is_recorded_with_its_tokens_cost_and_model(
    hand: AtHand, endpoint: str, stream: bool, model: str
) -> None:
    say(hand, Reply(text=EIGHT, usage=COUNTED))
    lent = hand.session()
    assert call(hand, lent, endpoint, model, stream).status_code == 200
    row = only(hand, lent)
    facts = {"status": "ok", "http_status": 200, "endpoint": endpoint, "stream": stream, "model_asked": model}
    facts |= {
        "deployment": f"{model}/{model}",
        "provider": model,
        "attempts": 1,
        "error_class": None,
        "tool_calls": 0,
    }
    facts |= {
        "tokens_in": 100,
        "tokens_cached": 8,
        "tokens_out": 20,
        "tokens_estimated": False,
        "cost_source": "config",
    }
    assert {name: row[name] for name in facts} == facts
    assert row["model_answered"] == "echo"
    assert row["cost_usd"] == pytest.approx((100 * 1e-6) + 20 * 2e-6)
    assert row["finish_reason"] in ("stop", "completed", "end_turn")
    assert 0 < row["first_chunk_ms"] <= row["latency_ms"]
    assert (row["ttft_ms"] is not None) == stream


@endpoints
@pytest.mark.parametrize("model", ["echo", "echo-messages"])
def test_first_content_and_gaps_are_measured_and_not_the_first_chunk(
    hand: AtHand, endpoint: str, model: str
) -> None:
    say(hand, Reply(text=EIGHT, delay=Delay(first_s=0.3, token_s=0.05)))
    lent = hand.session()
    call(hand, lent, endpoint, model, True)
    row = only(hand, lent)
    assert 300 <= row["ttft_ms"] < row["latency_ms"] - 300
    assert 30 <= row["gap_p50_ms"] <= row["gap_p95_ms"] <= row["gap_max_ms"]


@endpoints
@streams
def test_tool_calls_are_counted_and_their_input_is_content(hand: AtHand, endpoint: str, stream: bool) -> None:
    calls = [ToolCall(name="bash", arguments={"command": name}) for name in ("ls", "pwd")]
    say(hand, Reply(text="", tool_calls=calls))
    lent = hand.session()
    call(hand, lent, endpoint, "echo", stream)
    row = only(hand, lent)
    assert row["tool_calls"] == 2
    assert (row["ttft_ms"] is not None) == stream


@streams
def test_tokens_that_no_provider_told_are_marked_as_estimated(hand: AtHand, stream: bool) -> None:
    say(hand, Reply(text=EIGHT, usage=False))
    lent = hand.session()
    call(hand, lent, "chat", "echo", stream)
    row = only(hand, lent)
    assert row["tokens_estimated"] is True
    assert 4 <= row["tokens_out"] <= 16
    assert row["tokens_in"] > 0


FAILURES = {
    "rate_limit": Failure(status=429, message="slow down", headers={"retry-after": "1"}),
    "auth": Failure(status=401, message="bad key"),
    "not_found": Failure(status=404, message="no such model"),
    "bad_request": Failure(status=400, message="no such thing"),
    "context_window": Failure(
        status=400,
        code="context_length_exceeded",
        message="This model's maximum context length is 10 tokens",
    ),
    "content_filter": Failure(
        status=400, code="content_filter", message="filtered by content management policy"
    ),
    "provider_error": Failure(status=500, message="it broke"),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize(
    ("endpoint", "model"), [("chat", "echo"), ("responses", "echo"), ("messages", "echo-messages")]
)
def test_failure_of_the_provider_is_recorded_by_its_class_after_one_try(
    hand: AtHand, endpoint: str, model: str, name: str
) -> None:
    say(hand, Reply(error=FAILURES[name]))
    lent = hand.session()
    answer = call(hand, lent, endpoint, model, False)
    row = only(hand, lent)
    assert (row["status"], row["error_class"], row["attempts"]) == ("error", name, 1)
    assert row["http_status"] == answer.status_code == FAILURES[name].status
    assert row["tokens_in"] is None
    assert row["upstream_request_id"]


@endpoints
def test_stream_that_its_upstream_cuts_is_an_error_with_what_came(hand: AtHand, endpoint: str) -> None:
    say(hand, Reply(text=EIGHT, cut_after=4, delay=Delay(token_s=0.05)))
    lent = hand.session()
    call(hand, lent, endpoint, "echo", True)
    row = only(hand, lent)
    assert (row["status"], row["error_class"], row["http_status"]) == ("error", "connection", 200)
    assert row["ttft_ms"] is not None
    assert row["tokens_estimated"] is not False


@endpoints
def test_stream_that_the_client_leaves_is_recorded_and_stopped_upstream(hand: AtHand, endpoint: str) -> None:
    say(hand, Reply(text=EIGHT * 100, delay=Delay(token_s=0.05)))
    lent = hand.session()
    body = body_of(endpoint, "echo", True)
    with httpx.stream("POST", hand.url + PATHS[endpoint], json=body, headers=lent.headers) as answer:
        for _, _line in zip(range(12), answer.iter_lines(), strict=False):
            pass
    row = only(hand, lent)
    assert (row["status"], row["http_status"]) == ("client_abort", 200)
    assert row["latency_ms"] < 20_000
    assert row["tokens_estimated"] is True


@endpoints
def test_answer_that_the_client_does_not_wait_for_is_recorded_when_it_leaves(
    hand: AtHand, endpoint: str
) -> None:
    say(hand, Reply(text=EIGHT, delay=Delay(head_s=20)))
    lent = hand.session()
    with contextlib.suppress(httpx.ReadTimeout):
        httpx.post(
            hand.url + PATHS[endpoint],
            json=body_of(endpoint, "echo", False),
            headers=lent.headers,
            timeout=0.5,
        )
    row = only(hand, lent)
    assert (row["status"], row["http_status"]) == ("client_abort", None)
    assert row["latency_ms"] < 10_000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_garbage_from_the_upstream_is_an_error(hand: AtHand, stream: bool) -> None:
    say(hand, Reply(raw="<html>this is no answer"))
    lent = hand.session()
    call(hand, lent, "chat", "echo", stream)
    row = only(hand, lent)
    assert row["status"] == "error"
    assert row["error_class"] in ("provider_error", "connection")


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "no-json": b"hello",
    "half": b'{"model":"echo","messages":[{"role":"us',
    "binary": bytes(range(256)) * 40,
    "list": b'["model","echo"]',
    "string": b'"echo"',
    "number": b"1e999",
    "not-a-number": b'{"model":"echo","messages":[],"temperature":NaN}',
    "deep": b"[" * 100_000,
    "no-utf-8": b'{"model":"echo","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "wrong-model": b'{"model":7,"messages":[]}',
    "wrong-stream": b'{"model":"echo","messages":[],"stream":"yes"}',
}


@endpoints
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_from_a_harness_gets_one_clear_refusal(hand: AtHand, endpoint: str, name: str) -> None:
    lent = hand.session()
    headers = {**lent.headers, "Content-Type": "application/json"}
    answer = httpx.post(hand.url + PATHS[endpoint], content=GARBAGE[name], headers=headers)
    assert answer.status_code in (400, 403)
    assert answer.json()["error"]["message"]
    row = only(hand, lent)
    assert (row["status"], row["error_class"]) == ("refused", "bad_request")


WRONG_SHAPES: dict[str, dict[str, Any]] = {
    "messages-string": {"messages": "hello", "input": {"a": 1}},
    "messages-null": {"messages": None, "input": None},
    "content-number": {"messages": [{"role": "user", "content": 7}], "input": 7},
    "role-unknown": {
        "messages": [{"role": "emperor", "content": "hi"}],
        "input": [{"role": "emperor", "content": "hi"}],
    },
    "tools-string": {"messages": [{"role": "user", "content": "hi"}], "input": "hi", "tools": "bash"},
    "temperature": {"messages": [{"role": "user", "content": "hi"}], "input": "hi", "temperature": "hot"},
}


@endpoints
@pytest.mark.parametrize("name", WRONG_SHAPES)
def test_wrong_types_from_a_harness_are_answered_and_recorded_once(
    hand: AtHand, endpoint: str, name: str
) -> None:
    lent = hand.session()
    body = {"model": "echo", "max_tokens": 5, **WRONG_SHAPES[name]}
    answer = httpx.post(hand.url + PATHS[endpoint], json=body, headers=lent.headers, timeout=30)
    row = only(hand, lent)
    assert row["http_status"] == answer.status_code
    assert (row["status"] == "ok") == (answer.status_code == 200)


def test_request_over_its_limits_is_refused_as_budget(hand: AtHand) -> None:
    lent = hand.session(policy=Policy(max_requests=2))
    assert [call(hand, lent, "chat", "echo", False).status_code for _ in range(3)] == [200, 200, 429]
    assert [row["status"] for row in hand.requests(lent.id, 3)] == ["ok", "ok", "refused"]
    spender = hand.session(policy=Policy(budget_usd=1e-6))
    assert [call(hand, spender, "chat", "echo", False).status_code for _ in range(2)] == [200, 429]
    assert hand.requests(spender.id, 2)[-1]["error_class"] == "budget"


@streams
def test_content_is_kept_redacted_only_where_the_policy_says_so(hand: AtHand, stream: bool) -> None:
    said = "the word is kumquat and password=hunter2hunter2"
    kept, plain = hand.session(policy=Policy(content=True)), hand.session()
    for lent in (kept, plain):
        call(hand, lent, "chat", "echo", stream, said=said)
        hand.requests(lent.id, 1)
    deadline = time.monotonic() + 20
    found: list[Any] = []
    while not found and time.monotonic() < deadline:
        hand.requests(kept.id, 1)
        with database.connect(hand.settings.database) as connection:
            query = f"SELECT session_id, parts FROM request_content WHERE session_id = '{kept.id}'"
            found = [tuple(row) for row in connection.exec_driver_sql(query)]
            others = connection.exec_driver_sql(
                f"SELECT count(*) FROM request_content WHERE session_id = '{plain.id}'"
            ).scalar()
    assert others == 0
    parts = json.loads(found[0][1])
    assert [part["role"] for part in parts] == ["user", "assistant"]
    assert all("kumquat" in part["content"] and "hunter2" not in part["content"] for part in parts)


def test_token_count_is_answered_and_is_no_request(hand: AtHand) -> None:
    lent = hand.session()
    body = {"model": "echo-messages", "messages": [{"role": "user", "content": "hello there"}]}
    answer = httpx.post(f"{hand.url}/v1/messages/count_tokens", json=body, headers=lent.headers, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["input_tokens"] > 0
    assert hand.requests(lent.id) == []
