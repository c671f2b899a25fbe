"""What LiteLLM loads of ours: `user_api_key_auth`, its custom auth, and `capture`, its callback.

Loading this module puts the door (`hook_door`) before LiteLLM's application, configured by the variables that
`environment` names. The two objects that LiteLLM knows only continue what the door began: auth turns its admission
into LiteLLM's terms and refuses whatever did not come through it; capture notes which deployment was tried, how that
went, and the usage of a chat stream, which LiteLLM takes out again before the client sees it. Free text that LiteLLM
would log, which may hold prompts, is reduced to place and class. Only LiteLLM's own libraries and the standard
library are imported.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

from melete.gateway import environment
from melete.gateway.hook_answer import openai_tokens
from melete.gateway.hook_door import Door, Inside, inside
from melete.gateway.hook_keys import Keys, open_database
from melete.gateway.hook_price import count, deployment, price
from melete.gateway.hook_record import Attempt, Exchange, Recorder, class_of
from melete.gateway.spool import SpoolWriter

MODEL = re.compile(rb'"model"\s*:\s*"([^"]{1,200})"')


class DeploymentMismatch(HTTPException):
    """A deployment was chosen that does not belong to the model that was asked for."""


async def user_api_key_auth(request: Any, api_key: str) -> UserAPIKeyAuth:
    """LiteLLM's custom auth: only what the door let in, with the rights that it gave.

    Raises:
        HTTPException: 403 for what did not come through the door.
    """
    known = inside.get()
    if known is None:
        raise HTTPException(403, "This request did not come through the door of the gateway.")
    if known.kind == "scrape":
        return UserAPIKeyAuth(user_role=LitellmUserRoles.PROXY_ADMIN, user_id="scrape")
    return UserAPIKeyAuth(
        api_key=known.key_hash,
        key_alias=known.session,
        user_id=known.session,
        models=list(known.models),
        allowed_routes=["llm_api_routes"],
    )


class Capture(CustomLogger):
    """Notes what only LiteLLM's inside knows of the request that the running task belongs to."""

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """One try at an upstream begins.

        Raises:
            DeploymentMismatch: LiteLLM was led to another model than the one that was asked for.
        """
        exchange = _exchange()
        if exchange is None:
            return
        facts = deployment(_deployment_id(kwargs))
        under_way = bool(exchange.attempts) and exchange.attempts[-1].ended_s is None
        if facts.model != exchange.model and not (under_way and facts.id is None):
            raise DeploymentMismatch(403, "Another model would have answered than the one that was named.")
        if under_way:
            return  # an endpoint that LiteLLM translates into another one announces the same try twice
        exchange.prefix = facts.prefix
        now_s = time.monotonic()
        exchange.attempts.append(Attempt(len(exchange.attempts), facts.id, facts.provider, now_s))

    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, object],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """One try at an upstream failed."""
        exchange = _exchange()
        if exchange is None or exchange.ended or not exchange.attempts or recorder is None:
            return
        attempt = exchange.attempts[-1]
        if attempt.ended_s is not None:
            return
        status = getattr(exception, "status_code", None)
        headers = getattr(exception, "litellm_response_headers", None) or {}
        attempt.ended_s = time.monotonic()
        attempt.status = "error"
        attempt.http_status = status if isinstance(status, int) else None
        attempt.error_class = class_of(attempt.http_status, str(exception)[:2000], type(exception).__name__)
        attempt.upstream_request_id = _request_id(headers)
        exchange.upstream_request_id = attempt.upstream_request_id
        recorder.attempted(exchange, attempt)

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """An upstream answered as a whole; the model is still the one that it named itself."""
        exchange = _exchange()
        if exchange is None:
            return
        told = response if isinstance(response, Mapping) else getattr(response, "__dict__", {})
        model = told.get("model")
        exchange.model_answered = exchange.model_answered or (model if isinstance(model, str) else None)
        hidden = getattr(response, "_hidden_params", None) or told.get("_hidden_params")
        headers = hidden.get("headers") if isinstance(hidden, Mapping) else None
        if isinstance(headers, Mapping) or hasattr(headers, "get"):
            exchange.upstream_request_id = _request_id(headers) or exchange.upstream_request_id

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Passes a stream on; takes the counts that LiteLLM hides from a client that did not ask for them."""
        exchange = _exchange()
        usage = last = None
        async for item in response:
            if exchange is not None:
                last = item
                usage = getattr(item, "usage", None) or usage
                if exchange.model_answered is None:
                    exchange.model_answered = _model_of(item)
            yield item
        if exchange is None:
            return
        if exchange.endpoint == "chat":
            hidden = getattr(last, "_hidden_params", None)
            usage = usage or (hidden.get("usage") if isinstance(hidden, Mapping) else None)
            exchange.answer.tokens = openai_tokens(_plain(usage)) or exchange.answer.tokens
        parts = _parts(response)
        if parts is not None:
            exchange.cut = not parts
            exchange.counted_here = not any(getattr(part, "usage", None) for part in parts)


def _exchange() -> Exchange | None:
    known = inside.get()
    return known.exchange if isinstance(known, Inside) else None


def _deployment_id(kwargs: Mapping[str, Any]) -> str | None:
    for holder in (kwargs, kwargs.get("metadata"), kwargs.get("litellm_metadata")):
        information = holder.get("model_info") if isinstance(holder, Mapping) else None
        if isinstance(information, Mapping) and isinstance(information.get("id"), str):
            return str(information["id"])
    return None


def _request_id(headers: Any) -> str | None:
    found = headers.get("x-request-id") or headers.get("request-id")
    return found if isinstance(found, str) else None


def _model_of(item: Any) -> str | None:
    """The model that a part of a stream names: an object, or the bytes of an Anthropic stream's first event."""
    if isinstance(item, bytes):
        named = MODEL.search(item[:2000])
        return named[1].decode("ascii", "replace") if named else None
    response = getattr(item, "response", item)
    model = getattr(response, "model", None)
    return model if isinstance(model, str) else None


def _parts(response: Any) -> list[Any] | None:
    """What an upstream really streamed, where LiteLLM keeps it; None where this cannot be seen."""
    for _ in range(3):
        parts = getattr(response, "chunks", None)
        if isinstance(parts, list):
            return parts
        response = getattr(response, "litellm_custom_stream_wrapper", None) or getattr(
            response, "completion_stream", None
        )
    return None


def _plain(usage: Any) -> Any:
    return usage.model_dump() if hasattr(usage, "model_dump") else usage


def _install() -> Recorder | None:
    """Puts the door before LiteLLM's application, if this is LiteLLM's proxy; once."""
    proxy = sys.modules.get("litellm.proxy.proxy_server")
    if proxy is None or environment.SPOOL not in os.environ:
        return None
    spool = Path(os.environ[environment.SPOOL])
    contents = os.environ.get(environment.CONTENT)
    written = Recorder(
        SpoolWriter(spool), SpoolWriter(Path(contents), reserve_bytes=0) if contents else None, price, count
    )
    keys = Keys(open_database(os.environ[environment.DATABASE]))

    def door(application: Any) -> Door:
        return Door(
            application,
            keys,
            written,
            scrape_key_hash=os.environ.get(environment.SCRAPE_KEY_HASH, ""),
            warm_key_hash=os.environ.get(environment.WARM_KEY_HASH, ""),
            warm_model=environment.WARM_MODEL,
        )

    # LiteLLM reads its config while the application starts, when the layers are already stacked.
    if proxy.app.middleware_stack is None:
        proxy.app.middleware_stack = proxy.app.build_middleware_stack()
    proxy.app.middleware_stack = door(proxy.app.middleware_stack)
    _quiet_logs()
    return written


def _quiet_logs() -> None:
    """From here on a log line says where it is from and what class of error it tells of, and nothing more."""
    make = logging.getLogRecordFactory()

    def quiet(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        error = record.exc_info[0] if record.exc_info else None
        record.msg = f"{record.module}:{record.lineno}{f' {error.__name__}' if error else ''}"
        record.args = None
        record.exc_info = None
        record.exc_text = None
        return record

    logging.setLogRecordFactory(quiet)


recorder = _install()
capture = Capture()
