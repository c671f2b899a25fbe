"""What a request cost, and how many tokens it had where its provider told none: from our config and LiteLLM's prices.

A price of a provider file wins; otherwise the price list that is part of this LiteLLM is asked, so that the same
version gives the same cost. Imports LiteLLM, inside whose process it runs.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import lru_cache

import litellm

from melete.gateway.hook_answer import Tokens
from melete.gateway.hook_record import Exchange

LONGEST_COUNTED = 400_000
"""Characters of a prompt whose tokens are counted when the provider told none; a longer one counts a fourth."""


class Deployment:
    """What the config says of a deployment."""

    def __init__(self, id: str | None) -> None:
        self.id = id
        self.model: str | None = None
        self.provider: str | None = None
        self.upstream: str | None = None
        self.prefix = ""
        self.prices: dict[str, float] | None = None
        proxy = sys.modules.get("litellm.proxy.proxy_server")
        router = getattr(proxy, "llm_router", None)
        found = router.get_deployment(model_id=id) if router is not None and id else None
        if found is None:
            return
        self.model = found.model_name
        self.upstream = found.litellm_params.model
        self.prefix = f"{self.upstream.split('/', 1)[0]}/"
        self.provider = getattr(found.model_info, "provider", None)
        parameters = found.litellm_params.model_dump(exclude_none=True)
        if getattr(found.model_info, "priced", False) and "input_cost_per_token" in parameters:
            self.prices = {
                name: value
                for name, value in parameters.items()
                if name.endswith(("_per_token", "_token_cost"))
            }


@lru_cache(maxsize=1000)
def deployment(id: str | None) -> Deployment:
    """What the config says of the deployment of an id; empty for an unknown one."""
    return Deployment(id)


def price(exchange: Exchange, tokens: Tokens) -> tuple[float | None, str]:
    """Cost of a request in USD and where its price is from: our config, or the price list of this LiteLLM."""
    if exchange.cached:
        return 0.0, "config"
    found = deployment(exchange.attempts[-1].deployment if exchange.attempts else None)
    if found.prices is not None:
        return _cost(found.prices, tokens), "config"
    if exchange.cost_header and not tokens.estimated:
        return exchange.cost_header, _price_list()
    try:
        cost = litellm.completion_cost(
            completion_response=litellm.ModelResponse(model=found.upstream, usage=_usage(tokens)),
            model=found.upstream,
        )
    except Exception:  # a model that the list does not have is no error of the request
        return None, "none"
    return (cost, _price_list()) if cost else (None, "none")


def count(exchange: Exchange) -> Tokens:
    """Estimated counts of a prompt and an answer for which the provider told none."""
    body = exchange.body or {}
    messages = body.get("messages")
    prompt = str(messages or body.get("input") or "")
    tokens_in = len(prompt) // 4
    if len(prompt) <= LONGEST_COUNTED:
        try:
            told = {"messages": messages} if isinstance(messages, list) else {"text": prompt}
            tokens_in = litellm.token_counter(model="gpt-4o", **told)
        except Exception:  # messages of any shape come by here; an estimate must not fail a request
            logging.getLogger(__name__).debug("the prompt could not be counted")
    return Tokens(tokens_in, (exchange.answer.characters + 3) // 4, estimated=True)


def _cost(prices: Mapping[str, float], tokens: Tokens) -> float:
    fresh = prices.get("input_cost_per_token", 0.0)
    whole = tokens.input - tokens.cached - tokens.cache_write
    return (
        whole * fresh
        + tokens.cached * prices.get("cache_read_input_token_cost", fresh)
        + tokens.cache_write * prices.get("cache_creation_input_token_cost", fresh)
        + tokens.output * prices.get("output_cost_per_token", 0.0)
    )


def _usage(tokens: Tokens) -> litellm.Usage:
    return litellm.Usage(
        prompt_tokens=tokens.input,
        completion_tokens=tokens.output,
        total_tokens=tokens.input + tokens.output,
        prompt_tokens_details={"cached_tokens": tokens.cached, "cache_creation_tokens": tokens.cache_write},
    )


@lru_cache(maxsize=1)
def _price_list() -> str:
    from importlib.metadata import version

    return f"litellm_map:{version('litellm')}"
