"""Events: what the hook and the recorder of rollouts say of a request, one JSON line each; only allow-listed fields.

What is not in `FIELDS` never leaves the process that saw it, whatever it holds; a text that is too long is cut. The
same list guards reading: a line from elsewhere cannot bring more. Stdlib only: this file also runs inside the proxy.
"""

from __future__ import annotations

import json
import math
import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

KINDS = frozenset({"begin", "attempt", "end", "refused"})
"""A request was accepted; one try at an upstream; it ended; it was not accepted (then it has no session)."""

FIELDS: dict[str, tuple[type, int]] = {
    "source": (str, 20),
    "call_id": (str, 100),
    "endpoint": (str, 20),
    "stream": (bool, 0),
    "model_asked": (str, 200),
    "model_answered": (str, 200),
    "deployment": (str, 200),
    "provider": (str, 100),
    "status": (str, 20),
    "error_class": (str, 40),
    "http_status": (int, 0),
    "attempts": (int, 0),
    "index": (int, 0),
    "started_s": (float, 0),
    "ended_s": (float, 0),
    "latency_ms": (float, 0),
    "ttft_ms": (float, 0),
    "first_chunk_ms": (float, 0),
    "gap_p50_ms": (float, 0),
    "gap_p95_ms": (float, 0),
    "gap_max_ms": (float, 0),
    "tokens_in": (int, 0),
    "tokens_cached": (int, 0),
    "tokens_cache_write": (int, 0),
    "tokens_out": (int, 0),
    "tokens_reasoning": (int, 0),
    "tokens_estimated": (bool, 0),
    "cost_usd": (float, 0),
    "cost_source": (str, 60),
    "upstream_request_id": (str, 200),
    "overhead_ms": (float, 0),
    "tool_calls": (int, 0),
    "finish_reason": (str, 40),
    "changed": (list, 40),
    "client": (str, 40),
    "key_hash": (str, 64),
    "dropped": (int, 0),
}
"""Allowed field to its type and the most characters of its text (of each name, for a list of names)."""

LARGEST = 2**53
"""Whole numbers beyond it are not counts."""
MOST_NAMES = 40
"""Names that a list may hold."""
LONGEST_LINE = 16_384
"""Bytes; a line that is longer was not written by us."""


@dataclass(frozen=True)
class Event:
    """One thing seen of a request.

    `id` is unique within its request and the same when the same thing is told again: `event_id`. `writer` is
    `host:pid:process start time`; `time_s` is the writer's wall clock in seconds since the epoch.
    """

    kind: str
    id: str
    request: str
    session: str | None
    time_s: float
    writer: str
    fields: dict[str, Any] = field(default_factory=dict)


def new_request() -> str:
    """Id of a new request: a UUID of version 7, which begins with the time, so that new rows lie side by side."""
    bits = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | secrets.randbits(80)
    return str(uuid.UUID(int=bits & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62))


def event_id(request: str, kind: str, index: int = 0) -> str:
    """Id of the event `kind` (the `index`-th, for attempts) of a request."""
    return f"{request}:{kind}:{index}"


def allowed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are on the list and of their type; how many were not is counted in `dropped`."""
    kept: dict[str, Any] = {}
    dropped = 0
    for name, value in fields.items():
        if value is None:
            continue
        fitting = _fitting(value, *FIELDS[name]) if name in FIELDS else None
        if fitting is None:
            dropped += 1
        else:
            kept[name] = fitting
    if dropped:
        kept["dropped"] = kept.get("dropped", 0) + dropped
    return kept


def to_line(event: Event) -> bytes:
    """The event as one line of JSON that ends with a newline."""
    line = {
        "kind": event.kind,
        "id": text(event.id, 100),
        "request": text(event.request, 60),
        "session": None if event.session is None else text(event.session, 60),
        "time_s": event.time_s,
        "writer": text(event.writer, 120),
        "fields": allowed(event.fields),
    }
    return json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def parse(line: bytes) -> Event | None:
    """Reads a line; None for what is not an event of ours, such as a line that was torn."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        found = json.loads(line)
        kind, request, session, fields = found["kind"], found["request"], found["session"], found["fields"]
        time_s = float(found["time_s"])
        if kind not in KINDS or not math.isfinite(time_s) or not isinstance(fields, dict):
            return None
        if not (isinstance(request, str) and request and isinstance(session, (str, type(None)))):
            return None
        session = None if session is None else text(session, 60)
        writer = text(str(found["writer"]), 120)
        return Event(
            kind, text(str(found["id"]), 100), text(request, 60), session, time_s, writer, allowed(fields)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def text(value: str, longest: int) -> str:
    """The text, cut, with a question mark for what cannot be printed (and what PostgreSQL or UTF-8 cannot hold)."""
    cut = value[:longest]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "?" for c in cut)


def _fitting(value: Any, kind: type, longest: int) -> Any:
    """The value as its type, or None where it is of another one."""
    if kind is str:
        return text(value, longest) if isinstance(value, str) else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is list:
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            return None
        return [text(name, longest) for name in value[:MOST_NAMES]]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        return None  # a NaN compares false
    return kind(value) if kind is float or value == int(value) else None
