"""The API without a model: `melete serve --no-model`, behind the same gate as a server of models, without torch."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.types import ASGIApp

from melete.api.app import PREFIX, on_http_error
from melete.api.whole import mounts
from melete.settings import Settings


def gated(settings: Settings) -> ASGIApp:
    """API, pages and models to come, behind the gate."""
    from melete.serve.auth import TokenGate, keyring
    from melete.serve.later import Later

    carried = mounts(settings)
    routes = [Mount(path, app) for path, app in carried.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: on_http_error})
    return TokenGate(Later(app, settings), keys=keyring(settings, carried), pages=True)


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
