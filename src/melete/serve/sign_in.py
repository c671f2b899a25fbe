"""Signing in and out: what the sign-in page sends, the link that signs in, the cookie, the way back.

    POST /login           token=…&next=… as a form or as JSON; a script that accepts JSON gets 204, or 401, 429
    GET  /login?token=…   the link: signs in and goes on without the token in the address; a HEAD does not use it up
    POST /logout          signs out

The page itself is drawn by the application behind the gate; it is told in `scope["state"]["sign_in"]` what went wrong.
The cookie is `HttpOnly` and `SameSite=Strict`, `Secure` where the browser speaks TLS, and holds a random name of the
sign-in, never the token.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qs, quote

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from melete.access import Who
from melete.errors import StorageError
from melete.serve.asked import SIGN_IN, SIGN_OUT, Asked, same_site
from melete.serve.keyring import Keyring
from melete.serve.porter import Porter
from melete.serve.problems import Problem
from melete.store.tokens import SIGN_IN_S

MOST_BODY = 8_192


async def answer(
    app: ASGIApp, porter: Porter, asked: Asked, who: Who | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answers what comes to the sign-in page or wants to sign out; the page itself is shown by `app`."""
    query = _fields(scope.get("query_string", b""))
    given = query
    if asked.method == "POST":
        given = _fields(await _body(receive), asked.headers.get("content-type", ""))
    try:
        if asked.path == SIGN_OUT:
            response = await _out(porter, asked, who)
        elif asked.method == "POST" or (asked.method == "GET" and "token" in query):
            response = await _in(porter, asked, given)
        elif who is not None:  # nothing to sign in for
            response = RedirectResponse(same_site(query.get("next")), status_code=303)
        else:
            await app(scope, receive, send)
            return
    except Problem as problem:
        if asked.wants_json:
            await refused(problem)(scope, receive, send)
        else:
            await show(app, problem, scope, receive, send, given.get("next"))
        return
    response.headers["Cache-Control"] = "no-store"
    await response(scope, receive, send)


async def show(
    app: ASGIApp, problem: Problem, scope: Scope, receive: Receive, send: Send, back: str | None = None
) -> None:
    """The sign-in page with what is wrong, under the status of that."""
    scope.setdefault("state", {})["sign_in"] = problem
    query = f"next={quote(back, safe='')}".encode() if back else b""
    path = {"path": SIGN_IN, "raw_path": SIGN_IN.encode(), "query_string": query}
    more = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]

    async def with_status(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "status": problem.status, "headers": [*message["headers"], *more]}
        await send(message)

    await app({**scope, **path, "method": "GET"}, receive, with_status)


def link(keys: Keyring, url: str) -> str | None:
    """A link that signs one browser in, once, within 15 minutes; None where nobody is asked for a token."""
    if not keys.named:
        return None
    try:
        asks = keys.asks() or keys.look_whether_it_asks()
    except StorageError:
        return None
    return f"{url}{SIGN_IN}?token={keys.new_link()}" if asks else None


def refused(problem: Problem) -> Response:
    """The response to a problem."""
    return Response(
        problem.to_bytes(), problem.status, headers=problem.headers, media_type="application/json"
    )


async def _in(porter: Porter, asked: Asked, given: dict[str, str]) -> Response:
    response = _done(asked, same_site(given.get("next")))
    if await porter.is_free(asked):
        return response
    _, cookie = await porter.sign_in(given.get("token", "").strip(), asked)
    response.set_cookie(
        asked.cookie_name,
        cookie,
        max_age=int(SIGN_IN_S),
        path="/",
        secure=asked.secure,
        httponly=True,
        samesite="strict",
    )
    return response


async def _out(porter: Porter, asked: Asked, who: Who | None) -> Response:
    if asked.method != "POST":
        raise Problem(405, "Signing out is a POST.", headers={"Allow": "POST"})
    await porter.sign_out(asked, who)
    response = _done(asked, SIGN_IN)
    response.delete_cookie(asked.cookie_name, path="/", httponly=True, samesite="strict")
    return response


def _done(asked: Asked, where: str) -> Response:
    return Response(status_code=204) if asked.wants_json else RedirectResponse(where, status_code=303)


def _fields(text: bytes, content_type: str = "") -> dict[str, str]:
    """Fields of a form, a query or a JSON object; what is none of these has no fields."""
    try:
        if content_type.partition(";")[0].strip() == "application/json":
            found = json.loads(text)
            items = found.items() if isinstance(found, dict) else ()
            return {str(name): value for name, value in items if isinstance(value, str)}
        return {name: values[-1] for name, values in parse_qs(text.decode("utf-8", "replace")).items()}
    except (ValueError, RecursionError):
        return {}


async def _body(receive: Receive) -> bytes:
    """The body of a request, cut where it is longer than any sign-in."""
    body, more = b"", True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        if len(body) < MOST_BODY:
            body += message.get("body", b"")
    return body[:MOST_BODY]
