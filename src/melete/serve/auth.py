"""The gate: who makes a request, whether they may, and what is written down of it. Pure ASGI, so sockets pass it too.

    a token in `Authorization: Bearer`, or the cookie of a sign-in    the role that it has
    nothing, on this machine, while nobody has made a token           admin, named `local`
    anything else                                                     401; a browser is sent to the sign-in page

Only `/health`, the sign-in page and its own files ask for nothing. Whoever comes with a cookie, or freely, must come
from a page of this server: `Origin` and `Sec-Fetch-Site` are looked at, and on a free server the `Host` too (DNS
rebinding). GET changes nothing, but for the link that signs in. Wrong tokens cost a wait (`backoff.py`). Each change
goes to the audit log before it is answered. Headers of proxies are not believed: behind one, all visitors are one
address.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from melete import access
from melete.access import LOCAL, Role, Who
from melete.serve import audited, sign_in
from melete.serve.asked import LOOPBACK, SIGN_IN, SIGN_OUT, Asked, host_name
from melete.serve.keyring import Keyring
from melete.serve.porter import Porter
from melete.serve.problems import Problem
from melete.serve.recording import OPEN_TO_ROLLOUTS, PREFIX, Recorder, bearer, episode_over
from melete.settings import Settings

OPEN = re.compile(r"/health|/static/([0-9a-f]+/)?(melete\.css|theme\.js|icon\.svg|pages/sign_in\.(css|js))")
CHECKED_EVERY_S = 5.0
"""How often an open stream of events is asked whether its token still holds."""


class SignedOut(Exception):
    """Ends an answer that goes on and on, in the middle: its token opens nothing any more."""


class TokenGate:
    """Lets through what may pass.

    Args:
        app: what stands behind the gate.
        token: the one that opens it; None accepts requests from this machine, and no others.
        recorder: knows the keys of episodes that practise, which open the model and nothing else; None knows none.
        keys: all secrets that open it, in place of `token`; see `keyring`.
        pages: whether the application has a sign-in page.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None = None,
        recorder: Recorder | None = None,
        *,
        keys: Keyring | None = None,
        pages: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self.keys = keys or Keyring(token, None, time.time)
        self._porter = Porter(self.keys, clock)
        self._recorder = recorder
        self._pages = pages
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = Asked.of(scope)
        who: Who | None = None
        try:
            who = await self._who(asked)
            self._admit(asked, who)
        except Problem as problem:
            await self._refuse(problem, asked, who, scope, receive, send)
            return
        if asked.method == "HEAD":  # what answers GET answers it; the server leaves out the body
            scope = {**scope, "method": "GET"}
        if asked.path in (SIGN_IN, SIGN_OUT) and self._pages and not asked.socket:
            await sign_in.answer(self._app, self._porter, asked, who, scope, receive, send)
            return
        if who is not None:
            access.put(scope, who)
            scope["state"]["still_valid"] = functools.partial(self._still, asked, who)
            send = self._told(asked, who, scope, send)
        with contextlib.suppress(SignedOut):
            await self._app(scope, receive, send)

    async def _who(self, asked: Asked) -> Who | None:
        """Who makes a request; None for nobody we know.

        Raises:
            Problem: it came with a secret that is wrong, or nobody can say now.
        """
        key = bearer(asked.headers.get("authorization"))
        if self._recorder is not None and key.startswith(PREFIX):
            if not self._recorder.knows(key):
                raise episode_over()
            if asked.path not in OPEN_TO_ROLLOUTS:
                raise Problem(403, "The key of an episode opens the model only.", code="not_for_episodes")
            return Who("episode", Role.OPERATE, "episode")
        if _is_open(asked):
            return None
        if await self._porter.is_free(asked):
            return LOCAL
        if key:
            return await self._porter.bearer(key, asked)
        if asked.cookie and self.keys.named:
            return await self._porter.look_up(asked.cookie, "cookie")
        return None

    def _admit(self, asked: Asked, who: Who | None) -> None:
        """Refuses what may not pass.

        Raises:
            Problem: it comes from a page of another site, by a wrong name, without a token or without the role.
        """
        if who is None or who.via in ("cookie", "local"):
            if asked.foreign:
                origin = asked.headers.get("origin", "another site")
                raise Problem(
                    403, f"Requests from pages of {origin[:200]} are not accepted.", code="wrong_origin"
                )
            changes = asked.socket or asked.method not in access.SAFE
            if who is not None and who.via == "cookie" and changes and not asked.own:
                raise Problem(
                    403,
                    "A cookie alone changes nothing: the browser has to say which page asks (Origin). "
                    "Programs send a token: 'Authorization: Bearer TOKEN'.",
                    code="no_origin",
                )
        if who == LOCAL and host_name(asked.host) not in LOOPBACK:
            raise Problem(
                403,
                f"The host name {asked.host[:200]!r} is not accepted without a token. "
                f"Use 127.0.0.1, or make a token with 'melete token create NAME', or set MELETE_TOKEN and start again.",
                code="wrong_host",
            )
        if _is_open(asked) or (self._pages and asked.path == SIGN_IN):
            return
        if who is None:
            raise Problem(
                401,
                "This server asks for a token. Send the header 'Authorization: Bearer TOKEN' "
                "(the api_key of an OpenAI client) with a token of 'melete token create', or MELETE_TOKEN.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not access.may(who, asked.method, asked.path):
            raise forbidden(who, asked.method, asked.path)

    async def _refuse(
        self, problem: Problem, asked: Asked, who: Who | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if asked.socket:
            await receive()  # the request for the socket; closing it unopened answers 403
            await send({"type": "websocket.close", "code": 1008, "reason": problem.code or ""})
            return
        if who is not None and audited.is_change(asked.method, asked.path):
            await self._porter.write(asked, who, problem.status)
        if problem.status == 401 and self._pages:
            problem.headers["X-Sign-In"] = SIGN_IN
            if asked.page and asked.method in access.SAFE:
                query = scope.get("query_string", b"").decode("latin-1")
                back = asked.path + (f"?{query}" if query else "")
                where = f"{SIGN_IN}?next={quote(back, safe='')}" if back != "/" else SIGN_IN
                await RedirectResponse(where, status_code=303)(scope, receive, send)
                return
            if asked.page:
                said = "Your sign-in has ended, and nothing was changed. Sign in, go back, and send the form again."
                await sign_in.show(self._app, Problem(401, said), scope, receive, send)
                return
        if problem.status in (429, 503) and self._pages and asked.page:
            await sign_in.show(self._app, problem, scope, receive, send)
            return
        await refuse(problem)(scope, receive, send)

    def _told(self, asked: Asked, who: Who, scope: Scope, send: Send) -> Send:
        """A `send` that writes a change down before it is answered, and ends a stream of events with its token."""
        change = self.keys.named and not asked.socket and audited.is_change(asked.method, asked.path)
        checked_s, endless = self._clock(), False

        async def told(message: Message) -> None:
            nonlocal checked_s, endless
            if message["type"] == "http.response.start":
                headers = dict(message.get("headers", ()))
                endless = headers.get(b"content-type", b"").startswith(b"text/event-stream")
                if change:
                    self.keys.forget()
                    target = scope.get("state", {}).get("changed")
                    await self._porter.write(asked, who, message["status"], target=target)
            elif endless and self._clock() - checked_s >= CHECKED_EVERY_S:
                checked_s = self._clock()
                if not await self._still(asked, who):
                    await send({"type": "http.response.body", "body": b""})
                    raise SignedOut
            await send(message)

        return told

    async def _still(self, asked: Asked, who: Who) -> bool:
        """Whether what somebody came in with still opens the gate; while nobody can say, it does."""
        if who.via == "episode" or not self.keys.named:
            return True
        secret = asked.cookie if who.via == "cookie" else bearer(asked.headers.get("authorization"))
        try:
            if who.via == "local":
                return await self._porter.is_free(asked)
            return await self._porter.look_up(secret or "", who.via) is not None
        except Problem:
            return True


def keyring(settings: Settings, mounts: Mapping[str, object] | None) -> Keyring:
    """The keys of a server: one that carries the lab knows its named tokens, one that serves models only does not."""
    return Keyring(settings.token, settings.database if mounts else None, time.time)


def _is_open(asked: Asked) -> bool:
    return not asked.socket and asked.method in access.SAFE and OPEN.fullmatch(asked.path) is not None


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
    return sign_in.refused(problem)
