"""LiteLLM's config, written from the providers: no secret in it, and nothing that lets another model answer.

Keys stand in it as `os.environ/NAME`. Retries, fallbacks, cooldowns and caches are off, parameters are not dropped in
silence, and LiteLLM's own metrics get labels whose number is bounded (its defaults put the key on each series).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import yaml

from melete.gateway import environment
from melete.gateway.issuers import new_key
from melete.gateway.provider import OURS, REFERENCE, OfferedModel, Provider, offered
from melete.gateway.state import folder
from melete.runs.folder import replace_file
from melete.settings import Settings

HOOK = "melete.gateway.hook"
NO_KEY = "no-key-needed"
"""Sent to an address that asks for no key, because LiteLLM insists on one."""
CHAT_ONLY = "custom_openai"
"""LiteLLM's name for an OpenAI-compatible server of which it uses the chat completions alone."""
PRICES = {
    "input_cost_per_token": "input_cost_per_token",
    "output_cost_per_token": "output_cost_per_token",
    "cache_read_cost_per_token": "cache_read_input_token_cost",
    "cache_write_cost_per_token": "cache_creation_input_token_cost",
}
"""Our key of a price to LiteLLM's."""
LABELS: list[dict[str, Any]] = [
    {
        "group": "requests",
        "metrics": ["litellm_proxy_total_requests_metric"],
        "include_labels": ["requested_model", "status_code"],
    },
    {
        "group": "failures",
        "metrics": ["litellm_proxy_failed_requests_metric"],
        "include_labels": ["requested_model", "exception_status", "exception_class"],
    },
    {
        "group": "latency",
        "metrics": [
            "litellm_request_total_latency_metric",
            "litellm_llm_api_latency_metric",
            "litellm_llm_api_time_to_first_token_metric",
            "litellm_spend_metric",
            "litellm_input_tokens_metric",
            "litellm_output_tokens_metric",
        ],
        "include_labels": ["requested_model"],
    },
    {
        "group": "overhead",
        "metrics": ["litellm_overhead_latency_metric"],
        "include_labels": ["model_group"],
    },
]
"""Metrics of LiteLLM that are kept, with labels that hold names of our files and closed lists only."""


def document(providers: Sequence[Provider], warm_url: str) -> dict[str, Any]:
    """The whole config as LiteLLM reads it.

    Args:
        providers: whose models are offered; each has its address.
        warm_url: address of the upstream that only the warm-up calls.

    Raises:
        ConfigError: two providers offer the same name.
    """
    models = [_deployment(provider, name, model) for name, (provider, model) in offered(providers).items()]
    return {
        "model_list": [*models, *_warm_up(warm_url)],
        "general_settings": {
            "master_key": f"os.environ/{environment.MASTER_KEY}",
            "custom_auth": f"{HOOK}.user_api_key_auth",
            "custom_auth_run_common_checks": True,
            "disable_error_logs": True,
            "disable_spend_logs": True,
        },
        "litellm_settings": {
            "callbacks": [f"{HOOK}.capture", "prometheus"],
            "turn_off_message_logging": True,
            "enable_post_custom_auth_checks": True,
            "prometheus_metrics_config": LABELS,
            "num_retries": 0,
            "drop_params": False,
            "cache": False,
            "telemetry": False,
        },
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }


def text(config: dict[str, Any]) -> str:
    """The config as YAML."""
    head = "# Written by `melete gateway up` from the provider files; changes here are lost.\n"
    return head + yaml.safe_dump(config, sort_keys=False)


def scrape_key(settings: Settings) -> str:
    """The key that Prometheus uses for LiteLLM's metrics; made once, kept in a file that only its owner can read."""
    file = folder(settings) / "scrape.key"
    if not file.is_file():
        replace_file(file, new_key(), mode=0o600)
    return file.read_text(encoding="utf-8").strip()


def keepalive_s(providers: Sequence[Provider]) -> int:
    """Seconds that LiteLLM keeps an idle connection: less than the server at its other end does, or calls fail.

    Servers on uvicorn's defaults, which most local ones are, close after 5 s; public providers after a minute or more.
    """
    local = ("melete", "echo", "hosted_vllm", "ollama", "ollama_chat", "lm_studio", "llamafile", CHAT_ONLY)
    near = any(
        provider.kind in local or (provider.base_url and urlsplit(provider.base_url).scheme == "http")
        for provider in providers
    )
    return 4 if near else 50


def _deployment(provider: Provider, name: str, model: OfferedModel) -> dict[str, Any]:
    upstream = model.model or name
    prices = {theirs: getattr(model, ours) for ours, theirs in PRICES.items()}
    parameters: dict[str, Any] = {
        "model": f"{prefix(provider)}/{upstream}",
        "api_base": _by_reference(provider.base_url),
        "api_key": _by_reference(provider.api_key) or (NO_KEY if provider.base_url else None),
        "timeout": provider.timeout_s,
        "stream_timeout": provider.timeout_s,
        "max_retries": 0,
        "extra_headers": {header: _by_reference(value) for header, value in provider.headers.items()} or None,
        **{option: _by_reference(value) for option, value in provider.options.items()},
        **prices,
    }
    information = {
        "id": f"{provider.name}/{name}",
        "provider": provider.name,
        "priced": model.input_cost_per_token is not None,
        "supported_endpoints": ["/v1/messages"] if _speaks_messages(provider) else None,
    }
    return {
        "model_name": name,
        "litellm_params": {key: value for key, value in parameters.items() if value is not None},
        "model_info": {key: value for key, value in information.items() if value is not None},
    }


def prefix(provider: Provider) -> str:
    """LiteLLM's name of the provider of a deployment."""
    if provider.kind not in OURS and provider.kind != "openai":
        return provider.kind
    speaks = provider.speaks or (["chat"] if provider.kind == "melete" else ["chat", "responses"])
    return "openai" if "responses" in speaks else CHAT_ONLY


def _speaks_messages(provider: Provider) -> bool:
    return provider.speaks is not None and "messages" in provider.speaks


def _by_reference(value: Any) -> Any:
    found = REFERENCE.match(value) if isinstance(value, str) else None
    return f"os.environ/{found[1]}" if found else value


def _warm_up(url: str) -> list[dict[str, Any]]:
    """One public name with an OpenAI upstream: the code paths of all endpoints meet there."""
    return [
        {
            "model_name": environment.WARM_MODEL,
            "litellm_params": {
                "model": f"openai/{environment.WARM_MODEL}",
                "api_base": url,
                "api_key": NO_KEY,
                "max_retries": 0,
                "input_cost_per_token": 0.0,
                "output_cost_per_token": 0.0,
            },
            "model_info": {"id": environment.WARM_MODEL, "provider": "melete", "priced": True},
        }
    ]
