"""What a client may say: the path, the headers and the parameters that are let through to LiteLLM, and nothing else.

Allow-lists, because LiteLLM obeys many parameters that change which model answers, how often it is asked or under
whose name it is logged: retries, fallbacks, caches, tags, trace and session ids, guardrails, mock answers. What is
taken out is told by name in `changed` when the name is on a list of ours; any other name is told as `other`, since a
name can hold a secret too. A body is parsed and written again, so what LiteLLM reads is what was judged here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from melete.gateway.hook_keys import Refusal

try:
    import orjson
except ImportError:  # outside LiteLLM's environment
    orjson = None  # type: ignore[assignment,unused-ignore]

BODY_BYTES = 64 * 1024 * 1024
PATHS = {
    "/v1/chat/completions": "chat", "/chat/completions": "chat", "/v1/responses": "responses",
    "/responses": "responses", "/v1/messages": "messages", "/v1/messages/count_tokens": "count",
}  # fmt: skip
"""Path, exactly as sent, to endpoint; `count` counts tokens and asks no model, so it is no request of a session."""
MODEL_LISTS = frozenset({"/v1/models", "/models"})

_SAMPLING = frozenset({"model", "stream", "temperature", "top_p", "tools", "tool_choice", "service_tier"})
_OPENAI = frozenset({
    "parallel_tool_calls", "stream_options", "top_logprobs", "prompt_cache_key", "prompt_cache_retention",
    "safety_identifier", "store",
})  # fmt: skip
PARAMETERS = {
    "chat": _SAMPLING | _OPENAI | {
        "messages", "n", "stop", "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty",
        "logit_bias", "logprobs", "seed", "response_format", "functions", "function_call", "reasoning_effort",
        "verbosity", "modalities", "audio", "prediction", "web_search_options", "thinking", "reasoning", "top_k",
        "min_p", "repetition_penalty", "chat_template_kwargs",
    },
    "responses": _SAMPLING | _OPENAI | {
        "input", "instructions", "max_output_tokens", "max_tool_calls", "text", "reasoning", "truncation", "include",
        "previous_response_id", "context_management",
    },
    "messages": _SAMPLING | {
        "messages", "system", "max_tokens", "top_k", "stop_sequences", "thinking", "context_management",
        "output_config", "output_format", "cache_control",
    },
    "count": frozenset({"model", "messages", "system", "tools", "tool_choice", "thinking"}),
}  # fmt: skip
"""Endpoint to the parameters that reach LiteLLM."""
STRIPPED = frozenset({
    "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "default_fallbacks",
    "disable_fallbacks", "num_retries", "max_retries", "retry_policy", "retry_strategy", "timeout",
    "stream_timeout", "request_timeout", "cache", "caching", "ttl", "s-maxage", "no-cache", "no-store",
    "mock_response", "mock_tool_calls", "mock_delay", "mock_timeout", "mock_testing_fallbacks",
    "mock_testing_context_fallbacks", "mock_testing_rate_limit_error", "guardrails", "guardrail_config",
    "disable_global_guardrail", "policies", "metadata", "litellm_metadata", "tags", "user",
    "litellm_session_id", "litellm_trace_id", "litellm_call_id", "litellm_logging_obj", "session_id",
    "trace_id", "proxy_server_request", "api_base", "base_url", "api_key", "api_version", "api_type",
    "custom_llm_provider", "organization", "extra_headers", "headers", "extra_body", "extra_query",
    "allowed_openai_params", "drop_params", "additional_drop_params", "model_info", "model_list", "models",
    "deployment_id", "specific_deployment", "model_group", "route", "fastest_response",
    "router_settings_override", "preset_cache_key", "input_cost_per_token", "output_cost_per_token",
    "input_cost_per_second", "output_cost_per_second", "cooldown_time", "rpm", "tpm", "weight", "max_budget",
    "budget_duration", "max_parallel_requests", "user_api_key", "user_api_key_dict",
    "user_api_key_auth_metadata", "user_api_key_alias", "spend_logs_metadata", "turn_off_message_logging",
    "standard_callback_dynamic_params", "callbacks", "success_callback", "failure_callback", "langfuse_host",
    "langfuse_public_key", "langfuse_secret_key", "prompt_id", "prompt_variables", "prompt", "prompt_label",
    "prompt_version", "background", "conversation", "container", "mcp_servers", "enable_json_schema_validation",
    "ensure_alternating_roles", "cache_control_injection_points", "hooks", "no-log", "logger_fn", "verbose",
    "azure_ad_token", "vertex_credentials", "vertex_project", "aws_access_key_id", "aws_secret_access_key",
    "aws_region_name", "region_name", "text_completion", "client", "client_metadata", "secret_fields",
    "use_in_pass_through", "merge_reasoning_content_in_choices", "betas", "store_prompts",
})  # fmt: skip
"""Parameters that are known and kept from LiteLLM; told by name in `changed`."""
CLOSED_TOOLS = frozenset({"mcp", "mcp_toolset"})
"""Types of tools that make LiteLLM or the provider call a server that the client names."""
STREAM_OPTIONS = frozenset({"include_usage", "include_obfuscation"})
PASSED_HEADERS = frozenset({b"host", b"accept", b"anthropic-version", b"anthropic-beta"})
KNOWN_HEADERS = frozenset({
    "x-litellm-call-id", "x-litellm-tags", "x-litellm-session-id", "x-litellm-trace-id", "x-litellm-timeout",
    "x-litellm-num-retries", "x-litellm-spend-logs-metadata", "x-litellm-end-user-id", "x-litellm-customer-id",
    "x-litellm-enable-message-redaction", "x-litellm-stream-timeout", "x-litellm-api-key",
    "x-litellm-disable-callbacks", "litellm-disable-message-redaction", "litellm-enable-message-redaction",
    "cache-control", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "traceparent",
    "tracestate", "baggage", "api-key", "x-goog-api-key", "ocp-apim-subscription-key", "openai-organization",
    "openai-project",
})  # fmt: skip
"""Headers whose absence at LiteLLM is told in `changed`; of the others nobody expects that they arrive."""

_PRODUCT = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,24}(?:/[0-9][0-9A-Za-z.+-]{0,14})?")
_SECRET = re.compile(r"(?i)sk-|secret|token|key|password|[0-9a-f]{16}|[A-Za-z0-9]{24}")
Headers = list[tuple[bytes, bytes]]


def client_of(headers: Mapping[bytes, bytes]) -> str | None:
    """Product token of the user agent such as `curl/7.88`, at most 40 characters; None for what looks like none."""
    agent = headers.get(b"user-agent", b"").decode("latin-1")
    found = _PRODUCT.match(agent)
    return None if found is None or _SECRET.search(found[0]) else found[0][:40]


def key_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The key as the clients of the three endpoints send it: `Authorization: Bearer …`, or `x-api-key: …`."""
    sent = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, bearer = sent.partition(" ")
    if scheme.lower() == "bearer" and bearer.strip():
        return bearer.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip() or None


def clean_headers(sent: Iterable[tuple[bytes, bytes]]) -> tuple[Headers, list[str]]:
    """The headers that LiteLLM may see, and the names of those taken out that would have meant something to it."""
    passed: Headers = []
    changed = []
    for name, value in sent:
        lower = name.lower()
        if lower in PASSED_HEADERS:
            passed.append((lower, value[:1000]))
        elif (text := lower.decode("latin-1")) in KNOWN_HEADERS:
            changed.append(text)
        elif text.startswith(("x-litellm-", "litellm-")):
            changed.append("x-litellm-*")
    return passed, changed


def read_body(raw: bytes, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The JSON object that a client sent.

    Raises:
        Refusal: compressed, no JSON, or no object.
    """
    if headers.get(b"content-encoding", b"identity").lower() not in (b"", b"identity"):
        raise Refusal(415, "bad_request", "The body is compressed. Send it as it is.")
    try:
        body = orjson.loads(raw) if orjson else json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(400, "bad_request", "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "bad_request", "The body is not a JSON object.")
    return body


def clean_body(
    endpoint: str, body: dict[str, Any], models: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """The parameters that LiteLLM may see, and the names of those taken out.

    Raises:
        Refusal: no model, or one that the session may not ask for.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refusal(400, "bad_request", "The body names no model.")
    models = tuple(models)
    if model not in models:
        raise Refusal(
            403,
            "refused_model",
            f"This session may not use that model. Allowed: {', '.join(models) or 'none'}.",
        )
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise Refusal(400, "bad_request", "stream is neither true nor false.")
    passed = {name: value for name, value in body.items() if name in PARAMETERS[endpoint]}
    changed = {name if name in STRIPPED else "other" for name in body if name not in passed}
    tools = passed.get("tools")
    if isinstance(tools, list) and any(_closed(tool) for tool in tools):
        passed["tools"] = [tool for tool in tools if not _closed(tool)]
        changed.add("tools.mcp")
    options = passed.get("stream_options")
    if isinstance(options, dict) and not options.keys() <= STREAM_OPTIONS:
        passed["stream_options"] = {name: options[name] for name in options.keys() & STREAM_OPTIONS}
        changed.add("stream_options.other")
    return passed, sorted(changed)


def write_body(body: dict[str, Any]) -> bytes:
    """The body as LiteLLM gets it.

    Raises:
        Refusal: a text that is no Unicode, such as half a surrogate pair.
    """
    try:
        return orjson.dumps(body) if orjson else json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise Refusal(400, "bad_request", "The body cannot be written as JSON again.") from None


def _closed(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") in CLOSED_TOOLS
