"""The API without a model: `melete serve --no-model`, behind the same gate as a server of models, without torch."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from melete.api.app import PREFIX, create_app
from melete.settings import Settings


def gated(settings: Settings) -> ASGIApp:
    """The API at its path and a health check, behind the gate."""
    from melete.serve.auth import TokenGate

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "models": {}})

    async def root(_: Request) -> Response:
        return RedirectResponse(f"{PREFIX}/")

    routes = [Route("/", root), Route("/health", health), Mount(PREFIX, create_app(settings))]
    return TokenGate(Starlette(routes=routes), settings.token)


def run(settings: Settings, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        settings: the database, and the token to ask for.
        host: anything but loopback needs a token.
        port: 0 takes a free one.
        on_ready: is told where, line by line, when it listens.

    Raises:
        ServerError: the port is taken, or the address needs a token.
    """
    from melete.serve import listen

    listener = listen.bind(host, port, settings)
    server = listen.Uvicorn.of(gated(settings))

    def say() -> None:
        for line in ("Serving no model", f"  Store {listen.url_of(listener)}{PREFIX}/", "Stop with Ctrl-C."):
            on_ready(line)

    server.on_ready = say
    server.run(sockets=[listener])
