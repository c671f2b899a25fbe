"""One request on its way through the proxy, and the events that are written of it: begin, each attempt, end.

Our request id is made here and travels in no header or body, so no client can name it. The end is on the disk before
the client gets the last bytes of its answer: who saw an answer finds it in the store, whatever is killed afterwards.
Durations come from a clock that is never set; only the start is wall time.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from melete.gateway import content
from melete.gateway.events import Event, event_id, new_request
from melete.gateway.hook_answer import Answer, Tokens
from melete.gateway.hook_keys import Admission, Spending
from melete.gateway.spool import SpoolWriter

REFUSED_PER_S = 20.0
REFUSED_BURST = 200.0

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,99}")
FINISH = re.compile(r"[a-z][a-z_]{0,29}")
EXCEPTIONS = {
    "ContextWindowExceededError": "context_window", "ContentPolicyViolationError": "content_filter",
    "RejectedRequestError": "content_filter", "RateLimitError": "rate_limit", "Timeout": "timeout",
    "AuthenticationError": "auth", "PermissionDeniedError": "auth", "NotFoundError": "not_found",
    "BadRequestError": "bad_request", "UnsupportedParamsError": "bad_request", "InvalidRequestError": "bad_request",
    "UnprocessableEntityError": "bad_request", "APIConnectionError": "connection", "BudgetExceededError": "budget",
    "PaymentRequiredError": "budget", "ServiceUnavailableError": "provider_error", "APIError": "provider_error",
    "InternalServerError": "provider_error", "BadGatewayError": "provider_error", "DeploymentMismatch": "refused_model",
    "MidStreamFallbackError": "provider_error", "APIResponseValidationError": "provider_error",
}  # fmt: skip
"""LiteLLM's class of an error to ours."""
STATUSES = {
    400: "bad_request", 401: "auth", 402: "budget", 403: "auth", 404: "not_found", 408: "timeout", 413: "bad_request",
    415: "bad_request", 422: "bad_request", 429: "rate_limit", 504: "timeout",
}  # fmt: skip
TOLD = (
    ("context_window", ("context window", "context_length", "maximum context", "prompt is too long")),
    ("content_filter", ("content_filter", "content policy", "content_policy", "content management policy")),
    ("connection", ("connection error", "cannot connect", "server disconnected", "readerror", "peer closed",
                    "connection reset", "incomplete chunked", "payload is not completed", "connection refused",
                    "before any terminal event")),
    ("timeout", ("timed out", "timeout")),
    ("rate_limit", ("rate limit", "rate_limit")),
)  # fmt: skip
"""Classes that a provider tells only in words, and the words; looked for in this order, and never kept."""


@dataclass
class Attempt:
    """One try at an upstream; times are monotonic seconds."""

    index: int
    deployment: str | None
    provider: str | None
    started_s: float
    ended_s: float | None = None
    status: str = "ok"
    error_class: str | None = None
    http_status: int | None = None
    upstream_request_id: str | None = None


@dataclass
class Exchange:
    """A request of a session from its admission to its end.

    Attributes:
        wall_s: start, in seconds since the epoch; `started_s` the same by a clock that is never set.
        prefix: what LiteLLM writes before the upstream's own name of a model.
        cut: the upstream ended its stream before it said anything.
        counted_here: LiteLLM counted the tokens of a stream itself, as its upstream told none.
    """

    admission: Admission
    endpoint: str
    stream: bool
    model: str
    answer: Answer
    client: str | None = None
    changed: Sequence[str] = ()
    body: dict[str, Any] | None = None
    spending: Spending | None = None
    id: str = field(default_factory=new_request)
    wall_s: float = field(default_factory=time.time)
    started_s: float = field(default_factory=time.monotonic)
    attempts: list[Attempt] = field(default_factory=list)
    model_answered: str | None = None
    usage: Any = None
    prefix: str = ""
    cut: bool = False
    counted_here: bool = False
    call_id: str | None = None
    overhead_ms: float | None = None
    cost_header: float | None = None
    upstream_request_id: str | None = None
    cached: bool = False
    ended: bool = False


class Recorder:
    """Writes events of exchanges to the spool.

    Args:
        spool: where events go.
        contents: where redacted contents go, for the sessions that ask for it.
        price: cost of an exchange in USD and where the price is from.
        count: estimated tokens of the prompt and the answer, where the provider told none.
    """

    def __init__(
        self,
        spool: SpoolWriter,
        contents: SpoolWriter | None,
        price: Callable[[Exchange, Tokens], tuple[float | None, str]],
        count: Callable[[Exchange], Tokens],
    ) -> None:
        self.spool = spool
        self.contents = contents
        self._price = price
        self._count = count
        self._allowance = (REFUSED_BURST, time.monotonic())

    def ready(self) -> bool:
        """Whether new requests can be recorded."""
        return self.spool.ready()

    def begin(self, exchange: Exchange) -> None:
        """Writes that a request was accepted.

        Raises:
            OSError: the disk did not take it; the request must not go on.
        """
        fields = {
            "endpoint": exchange.endpoint,
            "stream": exchange.stream,
            "model_asked": exchange.model,
            "client": exchange.client,
            "changed": list(exchange.changed),
            "key_hash": exchange.admission.key_hash,
            "started_s": exchange.wall_s,
        }
        self.spool.write(self._event(exchange, "begin", 0, exchange.wall_s, fields))

    def attempted(self, exchange: Exchange, attempt: Attempt) -> None:
        """Writes how one try at an upstream went."""
        ended_s = attempt.ended_s if attempt.ended_s is not None else time.monotonic()
        fields = {
            "index": attempt.index,
            "deployment": attempt.deployment,
            "provider": attempt.provider,
            "started_s": _wall(exchange, attempt.started_s),
            "ended_s": _wall(exchange, ended_s),
            "status": attempt.status,
            "error_class": attempt.error_class,
            "http_status": attempt.http_status,
            "upstream_request_id": attempt.upstream_request_id,
        }
        self.spool.keep(self._event(exchange, "attempt", attempt.index, _wall(exchange, ended_s), fields))

    def end(self, exchange: Exchange, status: str, http_status: int | None, error_class: str | None) -> None:
        """Writes how a request ended, once; a second call for the same one does nothing.

        Args:
            exchange: the request.
            status: ok, error, client_abort or cache_hit.
            http_status: what the client got, if it got any.
            error_class: for an error, its class.
        """
        if exchange.ended:
            return
        exchange.ended = True
        now_s = time.monotonic()
        tokens = exchange.answer.tokens
        if tokens is not None and tokens.input == 0:
            tokens = None  # a prompt has tokens, so nobody counted
        if tokens is not None and exchange.counted_here:
            tokens = replace(tokens, estimated=True)
        if tokens is None and (status in ("ok", "client_abort", "cache_hit") or exchange.answer.characters):
            tokens = self._count(exchange)
        cost_usd, cost_source = self._price(exchange, tokens) if tokens else (None, "none")
        for attempt in exchange.attempts:
            if attempt.ended_s is None:
                attempt.ended_s = now_s
                attempt.status = "ok" if status == "cache_hit" else status
                attempt.error_class = error_class
                attempt.http_status = http_status
                attempt.upstream_request_id = exchange.upstream_request_id
                self.attempted(exchange, attempt)
        if exchange.spending is not None and cost_usd:
            exchange.spending.cost_usd += cost_usd
        last = exchange.attempts[-1] if exchange.attempts else None
        fields = {
            "status": status,
            "http_status": http_status,
            "error_class": error_class,
            "call_id": exchange.call_id,
            "model_answered": _named(exchange),
            "deployment": last.deployment if last else None,
            "provider": last.provider if last else None,
            "attempts": len(exchange.attempts),
            "latency_ms": (now_s - exchange.started_s) * 1000,
            "cost_usd": cost_usd,
            "cost_source": cost_source,
            "upstream_request_id": exchange.upstream_request_id,
            "overhead_ms": exchange.overhead_ms,
            "tool_calls": exchange.answer.tool_calls,
            "finish_reason": _finish(exchange.answer.finish),
            **_timing(exchange),
            **_counts(tokens),
        }
        self.spool.keep(self._event(exchange, "end", 0, _wall(exchange, now_s), fields))
        if exchange.admission.policy.content and self.contents is not None:
            self._keep_content(exchange)

    def refused(
        self,
        session: str | None,
        error_class: str,
        http_status: int,
        *,
        latency_ms: float = 0.0,
        endpoint: str | None = None,
        model: str | None = None,
        client: str | None = None,
    ) -> None:
        """Writes that a request was not let through; of a flood from outside only some are written."""
        if session is None and not self._allowed():
            return
        request = new_request()
        fields = {
            "status": "refused",
            "error_class": error_class,
            "http_status": http_status,
            "latency_ms": latency_ms,
            "started_s": time.time() - latency_ms / 1000,
            "endpoint": endpoint,
            "model_asked": model,
            "client": client,
        }
        event = Event(
            "refused", event_id(request, "refused"), request, session, time.time(), self.spool.writer, fields
        )
        self.spool.keep(event)

    def _event(
        self, exchange: Exchange, kind: str, index: int, time_s: float, fields: dict[str, Any]
    ) -> Event:
        id = event_id(exchange.id, kind, index)
        return Event(kind, id, exchange.id, exchange.admission.session, time_s, self.spool.writer, fields)

    def _keep_content(self, exchange: Exchange) -> None:
        assert self.contents is not None
        said = content.Content(
            request=exchange.id,
            session=exchange.admission.session,
            time_s=exchange.wall_s,
            expires_s=exchange.wall_s + exchange.admission.policy.retention_days * 86_400,
            parts=content.parts_of(exchange.endpoint, exchange.body or {}, exchange.answer.texts),
        )
        with contextlib.suppress(OSError):  # on a full disk the figures are kept and the words are not
            self.contents.write_line(content.to_line(said))

    def _allowed(self) -> bool:
        left, then_s = self._allowance
        now_s = time.monotonic()
        left = min(REFUSED_BURST, left + (now_s - then_s) * REFUSED_PER_S)
        self._allowance = (left - 1 if left >= 1 else left, now_s)
        return left >= 1


def class_of(status: int | None, told: str = "", exception: str | None = None) -> str:
    """Our class of an error, from LiteLLM's class, the HTTP status, and what a provider told in words."""
    words = told.lower()
    from_words = next((name for name, signs in TOLD if any(sign in words for sign in signs)), None)
    found = EXCEPTIONS.get(exception or "")
    if found in (None, "bad_request", "provider_error") and from_words:
        return from_words
    if found:
        return found
    if status is not None and status >= 500 and status not in STATUSES:
        return "provider_error"
    return STATUSES.get(status or 0, "other")


def _named(exchange: Exchange) -> str | None:
    """The upstream's own name of the model that answered; what is no name is not kept."""
    name = (exchange.model_answered or exchange.answer.model or "").removeprefix(exchange.prefix)
    return name if MODEL_NAME.fullmatch(name) else None


def _finish(reason: str | None) -> str | None:
    return reason if reason is None or FINISH.fullmatch(reason) else "other"


def _wall(exchange: Exchange, monotonic_s: float) -> float:
    return exchange.wall_s + (monotonic_s - exchange.started_s)


def _timing(exchange: Exchange) -> dict[str, float | None]:
    """Milliseconds from the arrival of the request; gaps between content of a stream."""
    answer = exchange.answer
    gaps = sorted(
        later - earlier for earlier, later in zip(answer.content_s, answer.content_s[1:], strict=False)
    )
    first = answer.content_s[0] if answer.content_s else None
    return {
        "first_chunk_ms": _since(exchange, answer.first_chunk_s),
        "ttft_ms": _since(exchange, first) if exchange.stream else None,
        "gap_p50_ms": _quantile(gaps, 0.5),
        "gap_p95_ms": _quantile(gaps, 0.95),
        "gap_max_ms": gaps[-1] * 1000 if gaps else None,
    }


def _since(exchange: Exchange, moment_s: float | None) -> float | None:
    return None if moment_s is None else (moment_s - exchange.started_s) * 1000


def _quantile(ordered_s: list[float], part: float) -> float | None:
    """Quantile of sorted seconds in milliseconds, between neighbours in proportion (as NumPy's default)."""
    if not ordered_s:
        return None
    place = part * (len(ordered_s) - 1)
    low = int(place)
    high = min(low + 1, len(ordered_s) - 1)
    return (ordered_s[low] + (ordered_s[high] - ordered_s[low]) * (place - low)) * 1000


def _counts(tokens: Tokens | None) -> dict[str, int | bool | None]:
    if tokens is None:
        return {}
    return {
        "tokens_in": tokens.input,
        "tokens_cached": tokens.cached,
        "tokens_cache_write": tokens.cache_write,
        "tokens_out": tokens.output,
        "tokens_reasoning": tokens.reasoning,
        "tokens_estimated": tokens.estimated,
    }
