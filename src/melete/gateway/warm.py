"""The warm-up: one call of each endpoint, streamed and not, so that no session pays for what LiteLLM loads lazily.

The first call of a fresh LiteLLM takes seconds. These go to a scripted upstream of the supervisor's own, with a key
that may call nothing else and whose calls are not recorded.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from melete.gateway.environment import WARM_MODEL

TIMEOUT_S = 60.0
SAID = "warm up"
TOOL = {"type": "object", "properties": {"path": {"type": "string"}}}
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": SAID}],
            "tools": [{"type": "function", "function": {"name": "look", "parameters": TOOL}}],
        },
    ),
    ("/v1/responses", {"input": SAID}),
    ("/v1/messages", {"messages": [{"role": "user", "content": SAID}], "max_tokens": 8}),
)
"""Endpoint and body of each call."""
COUNT = 2 * len(CALLS)


def warm_up(url: str, key: str) -> list[str]:
    """Calls every endpoint twice; returns what failed, in words without content."""
    failed = []
    for path, body in CALLS:
        for stream in (False, True):
            document = {"model": WARM_MODEL, "stream": stream, **body}
            request = urllib.request.Request(
                url + path,
                json.dumps(document).encode(),
                {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
            )
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                    response.read()
            except urllib.error.HTTPError as error:
                failed.append(f"{path} answered {error.code}")
            except OSError as error:
                failed.append(f"{path}: {error.__class__.__name__}")
    return failed
