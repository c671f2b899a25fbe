"""The gate before LiteLLM: the few routes that a session needs pass, every other path is answered 404 here.

LiteLLM's proxy has several hundred routes (keys, teams, config, a user interface, pass-through to whole providers).
None of them is needed here and each would be a way around the session, so what is not listed does not exist. Paths are
compared as they were sent, before anything decodes them, so tricks with dots, doubled slashes and escapes meet no
route. Stdlib only: this file is loaded inside LiteLLM's process.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

ROUTES: dict[str, frozenset[str]] = {
    "/v1/chat/completions": frozenset({"POST"}),
    "/chat/completions": frozenset({"POST"}),
    "/v1/responses": frozenset({"POST"}),
    "/responses": frozenset({"POST"}),
    "/v1/messages": frozenset({"POST"}),
    "/v1/messages/count_tokens": frozenset({"POST"}),
    "/v1/models": frozenset({"GET", "HEAD"}),
    "/models": frozenset({"GET", "HEAD"}),
    "/metrics": frozenset({"GET", "HEAD"}),
    "/metrics/": frozenset({"GET", "HEAD"}),
    "/health/liveliness": frozenset({"GET", "HEAD"}),
    "/health/readiness": frozenset({"GET", "HEAD"}),
}
"""Path to its methods; nothing else reaches LiteLLM."""
ONE_MODEL = re.compile(rb"/(v1/)?models/[A-Za-z0-9._:@%/-]{1,200}")
LARGEST_BODY = 64 * 1024 * 1024
"""Bytes that a request may announce; a prompt with pictures stays well below."""


def gated(application: Application) -> Application:
    """An ASGI application behind the gate; what is not a request over HTTP, such as start-up, passes."""

    async def gate(scope: Message, receive: Receive, send: Send) -> None:
        refusal = refused(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _answer(send, *refusal)

    return gate


def refused(scope: Message) -> tuple[int, str] | None:
    """Status and message of a refusal, or None for a request that may pass."""
    if scope["type"] == "websocket":
        return 404, "The gateway speaks HTTP only."
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    allowed = ROUTES.get(path.decode("latin-1"))
    if allowed is None and ONE_MODEL.fullmatch(path) and b".." not in path and b"//" not in path:
        allowed = ROUTES["/v1/models"]
    if allowed is None:
        return 404, f"The gateway has no such route. It has: {', '.join(sorted(ROUTES))}."
    if scope["method"] not in allowed:
        return 405, f"This route takes {' or '.join(sorted(allowed))}."
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    if lengths and (len(lengths) > 1 or not lengths[0].isdigit() or int(lengths[0]) > LARGEST_BODY):
        return 413, f"A request may have {LARGEST_BODY:,} bytes."
    return None


async def _answer(send: Send, status: int, message: str) -> None:
    text = message.replace('"', "'")
    body = (
        f'{{"error": {{"message": "{text}", "type": "invalid_request_error", "code": "{status}"}}}}'.encode()
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
