"""A request's row as a pure function of the set of its events: order, repetition and cut batches cannot change it.

The end of a request wins over what was said when it began; of two ends the one that was really seen wins over the one
that was concluded from its writer's death. Figures that cannot be, such as a negative duration after the clock was set
back, are left empty. A request that began and has not ended has no row yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from melete.gateway.events import Event, event_id

STATUSES = ("ok", "error", "client_abort", "cache_hit", "interrupted", "refused")
ERROR_CLASSES = frozenset({
    "rate_limit", "timeout", "context_window", "auth", "bad_request", "content_filter", "provider_error",
    "connection", "not_found", "budget", "refused_model", "refused_session", "interrupted", "client_abort",
    "other",
})  # fmt: skip
"""The words for what went wrong; every other word is counted as `other`."""

_TOLD = (
    "call_id", "endpoint", "stream", "model_asked", "model_answered", "deployment", "provider",
    "tokens_estimated", "cost_source", "upstream_request_id", "finish_reason", "changed", "client",
)  # fmt: skip
_FIGURES = (
    "http_status", "latency_ms", "ttft_ms", "first_chunk_ms", "gap_p50_ms", "gap_p95_ms", "gap_max_ms", "tokens_in",
    "tokens_cached", "tokens_cache_write", "tokens_out", "tokens_reasoning", "cost_usd", "overhead_ms", "tool_calls",
)  # fmt: skip
_OF_AN_ATTEMPT = ("deployment", "provider", "upstream_request_id", "http_status", "error_class")
_RANK = {"refused": 0, "begin": 1, "attempt": 2, "end": 3}
_CONCLUDED = ":interrupted"


def interrupted_event(request: str, session: str | None, begun_s: float, writer: str) -> Event:
    """The end that follows from the death of a request's writer; the same whoever concludes it, and whenever."""
    fields = {"status": "interrupted", "error_class": "interrupted"}
    return Event("end", event_id(request, "end") + _CONCLUDED, request, session, begun_s, writer, fields)


def is_open(events: Iterable[Event]) -> bool:
    """Whether the request began and has not ended."""
    kinds = {event.kind for event in events}
    return "begin" in kinds and not kinds & {"end", "refused"}


def request_of(events: Iterable[Event]) -> dict[str, Any] | None:
    """Columns of the request's row, or None for one that has not ended."""
    ordered = sorted(events, key=_order)
    if not ordered or ordered[-1].kind in ("begin", "attempt"):
        refused = [event for event in ordered if event.kind == "refused"]
        if not refused:
            return None
        ordered = refused
    end = ordered[-1]
    said: dict[str, Any] = {}
    attempts: set[int] = set()
    for event in ordered:
        fields = event.fields
        if event.kind == "attempt":
            attempts.add(fields.get("index", 0))
            fields = {name: fields[name] for name in _OF_AN_ATTEMPT if name in fields}
        said.update(fields)
    row: dict[str, Any] = {
        "id": end.request,
        "session_id": next((event.session for event in ordered if event.session), None),
        "source": ",".join(sorted({event.fields.get("source", "hook") for event in ordered})),
        **{name: said.get(name) for name in _TOLD},
        **{name: _not_negative(said.get(name)) for name in _FIGURES},
    }
    row["status"], row["error_class"] = _status(end, said)
    row["attempts"] = _attempts(row["status"], said.get("attempts"), len(attempts))
    row["cost_source"] = row["cost_source"] or "none"
    row["started_s"], row["ended_s"], row["latency_ms"] = _times(ordered, end, said, row["latency_ms"])
    return row


def _order(event: Event) -> tuple[int, bool, float, str]:
    return _RANK[event.kind], not event.id.endswith(_CONCLUDED), event.time_s, event.id


def _status(end: Event, said: dict[str, Any]) -> tuple[str, str | None]:
    status = "refused" if end.kind == "refused" else end.fields.get("status")
    status = status if status in STATUSES else "error"
    if status in ("ok", "cache_hit"):
        return status, None
    if status in ("client_abort", "interrupted"):
        return status, status
    told = said.get("error_class")
    default = "refused_session" if status == "refused" else "other"
    return status, told if told in ERROR_CLASSES else default


def _attempts(status: str, told: int | None, seen: int) -> int:
    """Tries at an upstream: as many as were told or seen; one where an answer came and nobody counted."""
    if told is not None or seen:
        return max(told or 0, seen)
    return 1 if status in ("ok", "error", "client_abort") else 0


def _times(
    ordered: list[Event], end: Event, said: dict[str, Any], latency_ms: float | None
) -> tuple[float, float | None, float | None]:
    """Start, end and duration; the duration was measured by a clock that cannot be set back, so it wins."""
    begin = next((event for event in ordered if event.kind == "begin"), None)
    began_s = begin.time_s if begin else end.time_s - (latency_ms or 0) / 1000
    started_s: float = said.get("started_s", began_s)
    if latency_ms is not None:
        return started_s, started_s + latency_ms / 1000, latency_ms
    ended_s = said.get("ended_s")
    if ended_s is None or ended_s < started_s:
        return started_s, None, None
    return started_s, ended_s, (ended_s - started_s) * 1000


def _not_negative(value: float | None) -> float | None:
    return None if value is None or value < 0 else value
