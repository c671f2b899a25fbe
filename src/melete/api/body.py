"""Refuses a body that is too large before it is read whole: 413 by its length, or once it has grown too long.

FastAPI has a limit of its own, whose answer is plain text; this one answers as every error of the API does. What is
sent are job files, notes and options: texts.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY_BYTES = 4_000_000


class BodyLimit:
    """ASGI middleware.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        if told.isdecimal() and int(told) > MOST_BODY_BYTES:
            await _too_large()(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MOST_BODY_BYTES:
                raise HTTPException(413, said())
            return message

        await self._app(scope, counted, send)


def said() -> str:
    """What is answered."""
    return f"the body is larger than {MOST_BODY_BYTES:,} bytes; send less"


def _too_large() -> Response:
    from melete.serve.problems import Problem

    message = said()
    problem = Problem(413, f"{message[0].upper()}{message[1:]}.", code="too_large")
    return Response(problem.to_bytes(), 413, headers={"Connection": "close"}, media_type="application/json")
