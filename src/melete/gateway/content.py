"""Prompts and answers of sessions that asked for them: one redacted line each, in a spool of its own.

Nothing is written unless the credential's policy says so, which comes from the experiment's content flag. Secrets are
taken out before the line leaves the process, and each line carries the time after which it is deleted. Stdlib only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from melete.runs.redact import redact

LONGEST_LINE = 8 * 1024 * 1024
"""Bytes; of a longer conversation the first parts are left out."""


@dataclass(frozen=True)
class Content:
    """What was said in one request; times in seconds since the epoch.

    `parts` holds objects with `role` and `content`: the instructions, the messages that were sent, the answer last.
    """

    request: str
    session: str
    time_s: float
    expires_s: float
    parts: list[dict[str, Any]]


def to_line(content: Content) -> bytes:
    """The content without its secrets, as one line of JSON that ends with a newline."""
    parts = [redact(part) for part in content.parts]
    while len(line := _line(content, parts)) > LONGEST_LINE and parts:
        parts = parts[1:]
    return line


def parse(line: bytes) -> Content | None:
    """Reads a line; None for what is not one of ours, such as a line that was torn."""
    try:
        found = json.loads(line)
        parts = found["parts"]
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            return None
        times = float(found["time_s"]), float(found["expires_s"])
        return Content(str(found["request"]), str(found["session"]), *times, parts)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def parts_of(endpoint: str, body: dict[str, Any], answer: list[str]) -> list[dict[str, Any]]:
    """What was sent to one of the three endpoints and what was answered, in one form."""
    parts: list[dict[str, Any]] = []
    first = body.get("instructions") if endpoint == "responses" else body.get("system")
    if first:
        parts.append({"role": "system", "content": first})
    sent = body.get("input") if endpoint == "responses" else body.get("messages")
    for message in sent if isinstance(sent, list) else [{"role": "user", "content": sent}]:
        parts.append(message if isinstance(message, dict) else {"role": "user", "content": message})
    return [*parts, {"role": "assistant", "content": "".join(answer)}]


def _line(content: Content, parts: list[dict[str, Any]]) -> bytes:
    return json.dumps({**asdict(content), "parts": parts}, separators=(",", ":")).encode() + b"\n"
