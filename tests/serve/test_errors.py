"""Wrong requests: OpenAI's error shape, a status that fits, a message that names the field; never a crash."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melete.serve.schema import ChatRequest
from melete.serve.server import Server

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"


def post(server: Server, body: Any, path: str = CHAT) -> httpx.Response:
    """Posts a body as JSON, or as it is if it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(server.url + path, content=data, timeout=20)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object, after a look at its shape."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temprature": 1}, "temprature", "Did you mean 'temperature'"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "found 'hot'"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "'wizard'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            "image_url",
        ),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "string"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "not supported"),
        ({"tool_choice": "required"}, None, "needs 'tools'"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "needs the key 'json_schema'"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_object"),
        ({"functions": [{}]}, "functions", "use 'tools'"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "pattern"),
        ({"top_logprobs": 99}, "top_logprobs", "20"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
    ],
)
def test_wrong_field_is_400_with_its_name(
    server: Server, fields: dict[str, Any], param: str | None, words: str
) -> None:
    response = post(server, {"model": "echo", "messages": MESSAGES, **fields})
    error = error_of(response)
    assert response.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]


def test_missing_field_is_400(server: Server) -> None:
    error = error_of(post(server, {"model": "echo"}))
    assert (error["param"], error["code"]) == ("messages", "missing_required_parameter")


def test_unknown_model_is_404_and_names_the_known(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="Served: echo, tiny") as caught:
        client.chat.completions.create(model="tiny2", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 5000}, {"messages": [{"role": "user", "content": "x" * 5000}]}]
)
def test_context_too_long_is_400_with_its_numbers(server: Server, fields: dict[str, Any]) -> None:
    error = error_of(post(server, {"model": "echo", "messages": MESSAGES, **fields}))
    assert error["code"] == "context_length_exceeded"
    assert "4096 tokens" in error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"[", b"null", b"[]", b"\xff", b'"x"', b'{"model": "\\ud800", "messages": []}']
)
def test_body_that_is_no_object_is_400(server: Server, body: bytes) -> None:
    response = post(server, body)
    assert response.status_code == 400
    error_of(response)


def test_body_that_nests_deeply_is_400(server: Server) -> None:
    response = post(server, b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert response.status_code == 400


def test_body_that_is_too_large_is_413(server: Server) -> None:
    response = post(server, b'{"model": "' + b"x" * (33 * 2**20) + b'"}')
    assert response.status_code == 413
    assert error_of(response)["code"] == "too_large"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", CHAT, 405),
        ("GET", "/v1/models/none", 404),
        ("POST", "/v1/models/none/reload", 404),
    ],
)
def test_wrong_path_or_method_has_the_same_shape(server: Server, method: str, path: str, status: int) -> None:
    response = httpx.request(method, server.url + path)
    assert response.status_code == status
    error_of(response)


@pytest.mark.parametrize("prompt", ["", [], [[]], [99_999], [-1], ["x", ""]])
def test_odd_prompt_is_400_or_answered(server: Server, prompt: Any) -> None:
    response = post(server, {"model": "tiny", "prompt": prompt, "max_tokens": 1}, "/v1/completions")
    assert response.status_code in (200, 400)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.sampled_from([*ChatRequest.model_fields, "role", "x"]), ANY_JSON, max_size=4)
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "tool_calls", "tool_call_id"]),
    ANY_JSON | st.sampled_from(["user", "assistant", "tool", "system"]),
    max_size=4,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FIELDS, st.lists(MESSAGE, max_size=3))
def test_random_fields_never_crash_the_server(
    server: Server, fields: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    body = {"model": "echo", "messages": [*MESSAGES, *messages], **fields}
    response = post(server, body)
    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        error_of(response)


def test_openapi_document_has_every_schema_that_it_refers_to(server: Server) -> None:
    text = httpx.get(f"{server.url}/openapi.json").text
    known = json.loads(text)["components"]["schemas"]
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert {"ChatRequest", "CompletionRequest", "ReloadRequest"} <= referred <= set(known)
    assert "temperature" in known["ChatRequest"]["properties"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"expression": "2 + 3"}', 200, "5"),
        (b'{"expression": "1 / 0"}', 200, "error:"),
        (b"{}", 400, "expression"),
    ],
)
def test_calculator_answers_every_body(server: Server, body: bytes, status: int, words: str) -> None:
    response = post(server, body, "/v1/tools/calculator")
    assert response.status_code == status
    assert words in response.text
