"""Marks each answer with an `ETag`, and answers 304 to a client that has it already.

The tag is a digest of the body, so it is right whatever a route reads; the work of reading is done, the transfer and
the client's redrawing are not. Answers are small pages, which is why a whole body is held for it. A file brings a tag
of its own, made of its size and time, and is passed on piece by piece, and so is a stream, which has none.
"""

from __future__ import annotations

import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ETags:
    """ASGI middleware for GET.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def hold(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                if _passes(start):
                    await send(start)
                return
            if _passes(start):
                await send(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            if start["status"] == 200:
                tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
                headers = MutableHeaders(raw=start["headers"])
                headers["ETag"], headers["Cache-Control"] = tag, "private, no-cache"
                if has_tag(Headers(scope=scope).get("if-none-match", ""), tag):
                    start["status"] = 304
                    body.clear()
                    del headers["content-length"]
                start["headers"] = headers.raw
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body)})

        await self._app(scope, receive, hold)


def _passes(start: Message) -> bool:
    """Whether an answer is passed on piece by piece: it has a tag, or it is a stream."""
    headers = Headers(raw=start["headers"])
    return "etag" in headers or headers.get("content-type", "").startswith("text/event-stream")


def has_tag(wanted: str, tag: str) -> bool:
    """Whether a header `If-None-Match` names a tag; a proxy may have made it a weak one."""
    return wanted.strip() == "*" or tag in (part.strip().removeprefix("W/") for part in wanted.split(","))
