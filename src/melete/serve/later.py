"""A server of models that has none yet: it answers `/v1` without torch, and becomes the real one when one is loaded.

`melete up` and `melete serve --no-model` start this way: in a blink, with the memory of the pages alone. The first
request that loads a model or an agent imports what serves models, in a thread, while everything else answers; from then
on `/v1` and `/health` are those of `serve/app.py`. What only lists says that the list is empty until then.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from melete import find
from melete.errors import MissingExtraError
from melete.serve.problems import Problem
from melete.settings import Settings

if TYPE_CHECKING:
    from melete.serve.agents import Agents
    from melete.serve.models import ServedModel

MODELS = "/v1/"
ROOTS = ("/v1/models", "/v1/agents")
HEALTH = "/health"


class Later:
    """ASGI: the models' routes in front of an application that has the others.

    Args:
        app: what answers everything else; it gets the lifespan too.
        settings: where runs and deployments are.
        options: `device`, `slots` and `waiting` of the models that will be loaded.
    """

    def __init__(self, app: ASGIApp, settings: Settings, **options: Any) -> None:
        self._app, self._settings, self._options = app, settings, options
        self._real: ASGIApp | None = None
        self.models: dict[str, ServedModel] = {}
        self.agents: Agents | None = None
        self._building = asyncio.Lock()
        self._open = contextlib.AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await self._open.aclose()
            return
        path = scope["path"]
        if scope["type"] != "http" or not (path == HEALTH or path.startswith(MODELS)):
            await self._app(scope, receive, send)
            return
        try:
            answer = self._real or await self._before(scope["method"], path)
        except Problem as problem:
            answer = Response(problem.to_bytes(), problem.status, media_type="application/json")
        await answer(scope, receive, send)

    async def _before(self, method: str, path: str) -> ASGIApp:
        """What answers a request while nothing is loaded.

        Raises:
            Problem: it needs a model, or a library that is not installed.
        """
        if method == "POST" and path in ROOTS:
            return await self._built()
        if path == HEALTH:
            return JSONResponse({"status": "ok", "models": {}})
        if method == "GET" and path in ROOTS:
            return JSONResponse({"object": "list", "data": []})
        raise Problem(
            404,
            "No model is loaded here. Load one on the page /chat, or with: POST /v1/models "
            '{"model": "latest"}. `melete serve` starts with one.',
            param="model",
            code="model_not_found",
        )

    async def _built(self) -> ASGIApp:
        async with self._building:
            if self._real is None:
                try:
                    app, agents = await asyncio.to_thread(
                        lambda: [
                            find.load("melete.serve", name, "part of the server")
                            for name in ("app", "agents")
                        ]
                    )
                except MissingExtraError as error:
                    raise Problem(503, str(error), param="model", code="missing_extra") from error
                self.agents = agents.Agents(self.models, self._settings, **self._options)
                made = app.models_app(self.models, self._settings, None, self.agents)
                await self._open.enter_async_context(made.router.lifespan_context(made))
                self._real = made
            return self._real
