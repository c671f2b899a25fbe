"""Who may use the server: a token in the `Authorization` header, or a cookie that the login page sets.

Pure ASGI, in front of everything but `/health`, `/login` and the package's own static files. Without a token the server
listens on loopback only, and even there a web page of another site must not use it through the visitor's browser: a
request whose `Origin` is not this server, or whose `Host` is not a loopback name (DNS rebinding), is refused.
The cookie holds a hash of the token, is `HttpOnly` and `SameSite=Strict`, and the token itself never stays in a URL.
"""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from melete import access
from melete.access import Who
from melete.serve.problems import Problem
from melete.serve.recording import OPEN_TO_ROLLOUTS, PREFIX, Recorder, bearer, episode_over

COOKIE = "melete_token"
OPEN_PATHS = ("/health", "/login")
OPEN_FOLDER = "/static/"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class TokenGate:
    """Lets through what may pass.

    Args:
        app: what stands behind the gate.
        token: the token to ask for; None asks for none but accepts loopback host names only.
        recorder: knows the keys of episodes that practise, which open the model and nothing else; None knows none.
    """

    def __init__(self, app: ASGIApp, token: str | None, recorder: Recorder | None = None) -> None:
        self._app = app
        self._token = token
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            answer = self._refusal(scope)
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return refuse(
                Problem(403, f"Requests from pages of {origin} are not accepted.", code="wrong_origin")
            )
        key = bearer(headers.get(b"authorization"))
        rollout = self._recorder is not None and key.startswith(PREFIX)
        if rollout:
            assert self._recorder is not None
            if not self._recorder.knows(key):
                return refuse(episode_over())
            if scope["path"] not in OPEN_TO_ROLLOUTS:
                return refuse(
                    Problem(403, "The key of an episode opens the model only.", code="not_for_episodes")
                )
        if self._token is None:
            if host_name(host) in LOOPBACK:
                return None
            return refuse(
                Problem(
                    403,
                    f"The host name {host!r} is not accepted without a token. "
                    f"Use 127.0.0.1, or set MELETE_TOKEN and start the server again.",
                    code="wrong_host",
                )
            )
        path = scope["path"]
        if rollout or path in OPEN_PATHS or path.startswith(OPEN_FOLDER) or self._knows_token(headers):
            return None
        if "text/html" in headers.get(b"accept", "") and scope["method"] == "GET":
            return RedirectResponse("/login", status_code=303)
        if b"authorization" in headers:
            return refuse(
                Problem(
                    401, "The token is wrong.", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
                )
            )
        return refuse(
            Problem(
                401,
                "This server asks for a token. Send the header 'Authorization: Bearer TOKEN' "
                "(the api_key of an OpenAI client) with the value of MELETE_TOKEN.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        )

    def _knows_token(self, headers: dict[bytes, str]) -> bool:
        assert self._token is not None
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        if scheme.lower() == "bearer" and same(given.strip(), self._token):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and same(cookie.value, cookie_value(self._token))


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def cookie_value(token: str) -> str:
    """What the cookie holds: enough to prove that its owner had the token, not the token."""
    return hashlib.sha256(b"melete-cookie:" + token.encode()).hexdigest()


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def forbidden(who: Who, method: str, path: str) -> Problem:
    """What somebody is told whose role does not cover a request."""
    role = access.needed(method, path)
    return Problem(
        403,
        f"{method} {path[:200]} needs the role {role}; the token {who.name!r} has {who.role}.\n"
        f"An admin makes one with: melete token create NAME --role {role}",
        code="role",
    )


def refuse(problem: Problem) -> Response:
    """The response to a problem."""
    return Response(
        problem.to_bytes(), problem.status, headers=problem.headers, media_type="application/json"
    )
