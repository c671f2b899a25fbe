"""The API without a model: `melete serve --no-model`, behind the same gate as a server of models, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount

from melete.api.app import PREFIX, on_http_error
from melete.api.serving import Serving
from melete.api.whole import mounts
from melete.settings import Settings

if TYPE_CHECKING:
    from melete.serve.auth import TokenGate


def gated(settings: Settings) -> TokenGate:
    """API, pages and models to come, behind the gate."""
    from melete.serve.auth import TokenGate, keyring
    from melete.serve.later import Later

    carried = mounts(settings, Serving(lambda: later.models, lambda: later.agents))
    routes = [Mount(path, app) for path, app in carried.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: on_http_error})
    later = Later(app, settings)
    return TokenGate(later, keys=keyring(settings, carried), pages=True)


def run(
    settings: Settings, host: str, port: int, on_ready: Callable[[str], None], *, link: bool = False
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        settings: the database, and the token to ask for.
        host: anything but loopback needs a token.
        port: 0 takes a free one.
        on_ready: is told where, line by line, when it listens.
        link: whether it is told a link that signs in, too; only where nobody else reads along.

    Raises:
        ServerError: the port is taken, or the address needs a token.
    """
    from melete.serve import listen, sign_in

    listener = listen.bind(host, port, settings, named=True)
    gate = gated(settings)
    server = listen.Uvicorn.of(gate)

    def say() -> None:
        url = listen.url_of(listener)
        shown = sign_in.link(gate.keys, url) if link else None
        lines = ["Serving no model", f"  Open  {url}/", f"  Store {url}{PREFIX}/"]
        for line in (*lines, *([f"Sign in, once, with {shown}"] if shown else []), "Stop with Ctrl-C."):
            on_ready(line)

    server.on_ready = say
    server.run(sockets=[listener])
