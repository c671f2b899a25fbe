"""The API's own look at the table of roles: what a page or a live topic asks in process is held to the visitor's role.

The gate in front of the server has looked at the path that the browser asked for; a page may ask for another one here.
A request that came through no gate is this program's own and may everything.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from melete import access


class Rights:
    """Lets through what the visitor's role covers.

    Args:
        app: what answers.
        prefix: where the API is mounted, as the table of roles names its paths.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            path = self._prefix + scope["path"].removeprefix(scope.get("root_path", ""))
            who = access.who_of(scope)
            if not access.may(who, scope["method"], path):
                from melete.serve.auth import forbidden, refuse

                await refuse(forbidden(who, scope["method"], path))(scope, receive, send)
                return
        await self._app(scope, receive, send)
