"""The scripted upstream, on a real port: asked by the openai SDK, and by bare HTTP where Anthropic's API is spoken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melete import find
from melete.errors import ConfigError, ServerError, UnknownNameError
from melete.gateway.echo import chat, messages, responses, script
from melete.gateway.echo.answer import answer_to
from melete.gateway.echo.asked import Asked, tokens_in
from melete.gateway.echo.script import Play, Reply, Script
from melete.gateway.echo.server import Echo

ACT = {
    "rules": [
        {
            "when": {"tool": "bash", "role": "user"},
            "text": "I act.",
            "tool_calls": [{"name": "bash", "arguments": {"command": "ls"}}],
        },
        {"when": {"role": "tool"}, "text": "Done."},
    ]
}
BASH = {"name": "bash", "description": "Runs a command.", "parameters": {"type": "object", "properties": {}}}
HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Echo]:
    with Echo(keep=10) as echo:
        yield echo


@pytest.fixture(scope="module")
def client(upstream: Echo) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key="sk-any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(upstream: Echo) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=upstream.url) as http:
        yield http


@pytest.fixture(autouse=True)
def nothing_scripted(upstream: Echo) -> Iterator[None]:
    yield
    upstream.play(Script())


def play(upstream: Echo, *rules: dict[str, Any]) -> None:
    upstream.play(Script.model_validate({"rules": list(rules)}))


def events(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def asked(text: str, **changed: Any) -> Asked:
    plain = {"wire": "chat", "model": "m", "stream": True, "role": "user", "last": text, "system": ""}
    return Asked(**{**plain, "tools": (), "turn": 0, "tokens": 7, **changed})


def test_chat_without_a_script_repeats_the_last_message(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="any", messages=[*HELLO])

    assert answer.choices[0].message.content == "hello there"
    assert answer.model == "any"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_chat_streamed_has_role_then_words_then_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="any", messages=[*HELLO], stream=True, stream_options={"include_usage": True}
        )
    )

    assert [c.choices[0].delta.content for c in chunks if c.choices] == ["", "hello", " there", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


def test_chat_with_tools_proposes_a_call_and_ends_after_its_result(
    upstream: Echo, client: openai.OpenAI
) -> None:
    upstream.play(Script.model_validate(ACT))
    tools: Any = [{"type": "function", "function": BASH}]

    first = client.chat.completions.create(model="m", messages=[*HELLO], tools=tools).choices[0]
    assert first.message.tool_calls is not None
    call: Any = first.message.tool_calls[0]
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "README.md"}
    history: Any = [*HELLO, first.message.model_dump(exclude_none=True), result]
    second = client.chat.completions.create(model="m", messages=history, tools=tools).choices[0]

    assert (first.finish_reason, call.function.name) == ("tool_calls", "bash")
    assert json.loads(call.function.arguments) == {"command": "ls"}
    assert (second.finish_reason, second.message.content) == ("stop", "Done.")


def test_responses_with_tools_streamed_is_rebuilt_by_the_sdk(upstream: Echo, client: openai.OpenAI) -> None:
    upstream.play(Script.model_validate(ACT))
    tools: Any = [{"type": "function", "strict": False, **BASH}]

    with client.responses.stream(model="m", input="hello", tools=tools) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()

    call: Any = final.output[1]
    assert text == final.output_text == "I act."
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "bash", {"command": "ls"})
    assert final.usage is not None
    assert final.usage.total_tokens == final.usage.input_tokens + final.usage.output_tokens


def test_responses_continued_by_id_counts_the_turn(upstream: Echo, client: openai.OpenAI) -> None:
    upstream.play(Script.model_validate({"turns": [{"text": "one"}, {"text": "two"}, {"text": "three"}]}))

    first = client.responses.create(model="m", input="go")
    second = client.responses.create(model="m", input="go on", previous_response_id=first.id)
    third = client.responses.create(model="m", input="go on", previous_response_id=second.id)

    assert [r.output_text for r in (first, second, third)] == ["one", "two", "three"]


def test_messages_streamed_has_blocks_and_counts_cached_tokens_apart(
    upstream: Echo, http: httpx.Client
) -> None:
    play(upstream, {"text": "a b", "thinking": "mm", "usage": {"input": 100, "cached": 64, "output": 9}})

    response = http.post(
        "/v1/messages", json={"model": "m", "max_tokens": 9, "messages": [*HELLO], "stream": True}
    )

    told = events(response)
    text = [e["delta"]["text"] for e in told if e.get("delta", {}).get("type") == "text_delta"]
    assert [e["type"] for e in told[:3]] == ["message_start", "ping", "content_block_start"]
    assert text == ["a", " b"]
    assert told[-2]["usage"] == {
        "input_tokens": 36,
        "cache_read_input_tokens": 64,
        "cache_creation_input_tokens": 0,
        "output_tokens": 9,
    }
    assert told[-1]["type"] == "message_stop"


def test_messages_after_a_tool_result_are_spoken_by_a_tool(upstream: Echo, http: httpx.Client) -> None:
    upstream.play(Script.model_validate(ACT))
    tools = [{"name": "bash", "input_schema": {"type": "object"}}]
    body: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [*HELLO], "tools": tools}

    first = http.post("/v1/messages", json=body).json()
    use = next(block for block in first["content"] if block["type"] == "tool_use")
    result = {"type": "tool_result", "tool_use_id": use["id"], "content": "README.md"}
    body["messages"] += [
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    second = http.post("/v1/messages", json=body).json()

    assert (first["stop_reason"], use["input"]) == ("tool_use", {"command": "ls"})
    assert (second["stop_reason"], second["content"][0]["text"]) == ("end_turn", "Done.")


def test_count_tokens_says_what_a_message_is_charged(http: httpx.Client) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [*HELLO]}

    counted = http.post("/v1/messages/count_tokens", json=body).json()
    answered = http.post("/v1/messages", json=body).json()

    assert counted["input_tokens"] == answered["usage"]["input_tokens"] > 0


def test_answers_have_ids_of_their_own_and_an_upstream_request_id(http: httpx.Client) -> None:
    body = {"model": "m", "messages": [*HELLO]}

    answers = [http.post("/v1/chat/completions", json=body) for _ in range(3)]

    assert len({answer.json()["id"] for answer in answers}) == 3
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("chat/completions", "rate_limit_error"),
        ("responses", "rate_limit_error"),
        ("messages", "rate_limit_error"),
    ],
)
def test_scripted_error_has_the_shape_of_its_api(
    upstream: Echo, http: httpx.Client, path: str, kind: str
) -> None:
    play(upstream, {"error": {"status": 429, "message": "slow down", "headers": {"retry-after": "3"}}})

    response = http.post(f"/v1/{path}", json={"model": "m", "messages": [*HELLO], "input": "hello"})

    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert (response.json()["error"]["type"], response.json()["error"]["message"]) == (kind, "slow down")


def test_stream_that_is_cut_breaks_after_its_tokens(upstream: Echo, http: httpx.Client) -> None:
    play(upstream, {"text": "one two three four", "cut_after": 2})
    body = {"model": "m", "messages": [*HELLO], "stream": True}
    parts: list[str] = []

    with (
        http.stream("POST", "/v1/chat/completions", json=body) as reply,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        parts.extend(reply.iter_text())

    assert '"one"' in "".join(parts)
    assert '" two"' in "".join(parts)
    assert "three" not in "".join(parts)


def test_answer_that_is_cut_is_not_whole(upstream: Echo, http: httpx.Client) -> None:
    play(upstream, {"cut_after": 0})

    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/v1/chat/completions", json={"model": "m", "messages": [*HELLO]})


def test_client_that_leaves_a_silent_upstream_leaves_it_working(upstream: Echo, http: httpx.Client) -> None:
    play(upstream, {"when": {"model": "silent"}, "hang_s": 600})

    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json={"model": "silent", "messages": [*HELLO]}, timeout=0.05)

    assert http.post("/v1/chat/completions", json={"model": "m", "messages": [*HELLO]}).status_code == 200


def test_first_token_comes_after_the_head_by_the_scripted_delay(upstream: Echo, http: httpx.Client) -> None:
    play(upstream, {"text": "now", "delay": {"first_s": 0.2}})
    body = {"model": "m", "messages": [*HELLO], "stream": True}

    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        parts = reply.iter_text()
        head = next(parts)
        began_s = time.monotonic()
        rest = next(parts)
        waited_s = time.monotonic() - began_s

    assert '"role":"assistant"' in head
    assert "now" not in head
    assert "now" in rest
    assert waited_s > 0.1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"model": 1}', b'{"messages": "x"}'])
def test_body_that_is_no_request_is_refused_in_the_words_of_the_api(http: httpx.Client, body: bytes) -> None:
    response = http.post("/v1/chat/completions", content=body)

    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_path_that_does_not_exist_is_not_found(http: httpx.Client) -> None:
    assert http.post("/v1/embeddings", json={}).status_code == 404
    assert http.get("/v1/embeddings").status_code == 404


def test_models_are_what_the_script_offers(upstream: Echo, client: openai.OpenAI) -> None:
    upstream.play(Script(models=["small", "large"]))

    assert [model.id for model in client.models.list()] == ["small", "large"]


def test_seen_holds_the_newest_requests_and_no_more(upstream: Echo, http: httpx.Client) -> None:
    for number in range(12):
        http.post("/v1/chat/completions", json={"model": f"m{number}", "messages": [*HELLO]})

    assert [one["body"]["model"] for one in upstream.seen] == [f"m{number}" for number in range(2, 12)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["messages", "input", "tools", "system", "instructions", "stream", "stream_options"]


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from(["chat/completions", "responses", "messages"]),
    body=st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(st.dictionaries(st.sampled_from(
        ["role", "content", "type", "function", "name", "output"]), JSON, max_size=4), max_size=3), max_size=5),
)  # fmt: skip
def test_any_body_is_answered_or_refused_but_never_fails(path: str, body: dict[str, Any]) -> None:
    response = _own().post(f"/v1/{path}", content=json.dumps({"model": "m", **body}))

    assert response.status_code in (200, 400)


@cache
def _own() -> httpx.Client:
    """One upstream for all examples: hypothesis does not go together with fixtures that are made anew."""
    return httpx.Client(base_url=Echo().__enter__().url)


@given(text=st.text(max_size=60), thinking=st.text(max_size=20))
def test_stream_joined_is_the_whole_answer_for_each_api(text: str, thinking: str) -> None:
    reply = Reply.model_validate({"text": text, "thinking": thinking})
    request = asked("x")
    answer = answer_to(request, reply, "1")

    def told(wire: Any) -> list[dict[str, Any]]:
        frames = b"".join(frame.data for frame in wire.stream(answer, request)).split(b"\n\n")
        lines = [line for frame in frames for line in frame.split(b"\n") if line.startswith(b"data: {")]
        return [json.loads(line[6:]) for line in lines]

    chunks = [chunk["choices"][0]["delta"] for chunk in told(chat) if chunk["choices"]]
    blocks = [event["delta"] for event in told(messages) if event["type"] == "content_block_delta"]
    deltas = [event["delta"] for event in told(responses) if event["type"] == "response.output_text.delta"]

    assert "".join(chunk.get("content") or "" for chunk in chunks) == text
    assert "".join(block.get("text", "") for block in blocks) == text
    assert "".join(deltas) == text
    assert "".join(chunk.get("reasoning_content") or "" for chunk in chunks) == thinking
    assert "".join(block.get("thinking", "") for block in blocks) == thinking


def test_tokens_are_words_and_marks() -> None:
    assert tokens_in("Write it, now: naïve_word!") == 7


def test_rule_fits_only_if_all_its_conditions_hold() -> None:
    rule = {"when": {"role": "user", "tool": "bash", "last": "^go", "system": "careful"}, "text": "yes"}
    play = Play(Script.model_validate({"rules": [rule]}))
    fitting = {"tools": ("bash",), "system": "be careful"}

    assert play.reply(asked("go now", **fitting)).text == "yes"
    for other in ({"tools": ()}, {"system": ""}, {"role": "tool"}, {"last": "no"}):
        assert play.reply(asked("go now", **{**fitting, **other})).text is None


def test_rule_with_times_gives_way_when_they_are_over() -> None:
    rule = {"times": 2, "error": {"status": 500}}
    play = Play(Script.model_validate({"rules": [rule], "turns": [{"text": "fine"}]}))

    statuses = [
        reply.error.status if reply.error else reply.text for reply in map(play.reply, [asked("x")] * 3)
    ]

    assert statuses == [500, 500, "fine"]


def test_turns_are_counted_in_each_conversation_by_itself() -> None:
    play = Play(Script.model_validate({"turns": [{"text": "one"}, {"text": "two"}]}))

    told = [play.reply(asked("x", turn=turn)).text for turn in (0, 1, 0, 5)]

    assert told == ["one", "two", "one", "two"]


@pytest.mark.parametrize("name", find.names(script.SCRIPTS, ".yaml"))
def test_shipped_script_is_read_and_offers_models(name: str) -> None:
    assert script.read(name).models


def test_script_with_a_wrong_key_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("rules:\n  - when: {rolle: user}\n    text: hello\n", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"mine\.yaml:2: .*rolle"):
        script.read(str(file))


def test_script_with_a_bad_pattern_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("rules:\n  - when: {last: '('}\n", encoding="utf-8")

    with pytest.raises(ConfigError, match="not a regular expression"):
        script.read(str(file))


def test_script_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(UnknownNameError, match="trouble"):
        script.read("truble")


def test_port_that_is_taken_is_said(upstream: Echo) -> None:
    with pytest.raises(ServerError, match=f"Port {upstream.port} on 127.0.0.1 is already in use"):
        Echo(port=upstream.port)


def test_command_serves_a_shipped_script_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "melete", "gateway", "echo", "--script", "trouble"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url = child.stdout.readline().split()[3].rstrip(",")
        while not child.stdout.readline().startswith("Stop"):
            pass
        body = {"model": "rate_limited", "messages": [*HELLO]}
        status = httpx.post(f"{url}/v1/chat/completions", json=body).status_code
        child.send_signal(signal.SIGINT)

    assert status == 429
    assert child.returncode in (0, 130)
