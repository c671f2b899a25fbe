"""Asks an application of ours in process: an ASGI request without a socket, with the rights of whoever asked for it.

Pages of the UI and topics of the hub read the API this way, so they see what a client over HTTP sees, word for word.
An answer is held whole: a stream is collected until it ends, and refused beyond a size and a time. What an endpoint
raises besides its answer is logged as uvicorn would.
"""

from __future__ import annotations

import asyncio
import json as jsons
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from melete.errors import ServerError

MOST_BYTES = 32 << 20
LONGEST_S = 60.0
log = logging.getLogger("melete.api")


@dataclass(frozen=True)
class Answer:
    """What an application answered.

    Attributes:
        status: HTTP status.
        headers: as they were sent; names in any case.
        body: all of it.
    """

    status: int
    headers: Headers
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is a success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON, None if it is empty.

        Raises:
            ValueError: it is no JSON.
        """
        return jsons.loads(self.body) if self.body else None


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    query: Mapping[str, Any] | str | None = None,
    json: Any = None,
    who: object | None = None,
    headers: Mapping[str, str] | None = None,
    root: str = "",
    media: Collection[str] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Answer:
    """Asks an application one thing.

    Args:
        app: what answers.
        method: such as GET.
        path: below `root`, not percent-encoded, without a query.
        query: text as in a URL, or values by name; None is left out, a list is repeated, a bool is `true` or `false`.
        json: the body, unless it is None.
        who: whose rights the request has, as the gate would have put them at `scope["state"]["who"]`.
        headers: further ones.
        root: where the application is mounted; messages and links then show whole paths.
        media: media types that are wanted; an answer of another is refused before its body is made.
        most_bytes: of the body.

    Raises:
        ServerError: the answer is of no type that is wanted, too long, or takes too long.
    """
    body = b"" if json is None else jsons.dumps(json).encode()
    wanted = {"host": "localhost", "accept": "application/json", **(headers or {})}
    if json is not None:
        wanted |= {"content-type": "application/json", "content-length": str(len(body))}
    whole = root + path
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": whole,
        "raw_path": quote(whole).encode(),
        "root_path": root,
        "query_string": _query(query).encode(),
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in wanted.items()
        ],
        "client": None,
        "server": ("localhost", 80),
        "state": {"who": who},
    }
    return await _collect(app, scope, body, media, most_bytes)


def _query(query: Mapping[str, Any] | str | None) -> str:
    if query is None or isinstance(query, str):
        return query or ""
    pairs = [
        (name, one)
        for name, value in query.items()
        for one in (value if isinstance(value, list | tuple) else [value])
        if one is not None
    ]
    return urlencode([(name, str(one).lower() if isinstance(one, bool) else one) for name, one in pairs])


class Unwanted(Exception):
    """Stops an application whose answer is not wanted; none of its handlers knows it."""


async def _collect(
    app: ASGIApp, scope: Scope, sent: bytes, media: Collection[str] | None, most_bytes: int
) -> Answer:
    start: Message | None = None
    unwanted: ServerError | None = None
    body, told = bytearray(), False

    async def receive() -> Message:
        nonlocal told
        if told:
            await asyncio.Event().wait()  # the one who asks never leaves; cancelled when the answer is there
        told = True
        return {"type": "http.request", "body": sent, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal start, unwanted
        if message["type"] == "http.response.start":
            start = message
            kind = Headers(raw=list(message["headers"])).get("content-type", "").partition(";")[0]
            if media is not None and kind not in media and message["status"] != 304:
                unwanted = ServerError(
                    f"{scope['path']} answers {kind or 'nothing'}.", allowed=f"Here: {', '.join(media)}."
                )
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))
            if len(body) > most_bytes:
                unwanted = ServerError(
                    f"{scope['path']} answers more than {most_bytes >> 20} MB.",
                    next_step="Ask for less, or download it.",
                )
        if unwanted is not None:
            raise Unwanted

    try:
        async with asyncio.timeout(LONGEST_S):
            await app(scope, receive, send)
    except TimeoutError as error:
        raise ServerError(f"{scope['path']} did not answer within {LONGEST_S:.0f} s.") from error
    except Exception:  # the boundary of the application: its answer, a 500, was sent before
        if unwanted is not None:
            raise unwanted from None
        if start is None:
            raise
        log.exception("%s %s failed", scope["method"], scope["path"])
    assert start is not None, "an ASGI application answered nothing"
    return Answer(start["status"], Headers(raw=list(start["headers"])), bytes(body))
