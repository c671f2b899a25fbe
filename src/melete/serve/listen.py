"""Listening: a socket bound first, so that a taken port is known before anything slow begins, and uvicorn on it.

Imports no model: what serves no model (`melete serve --no-model`) starts without torch.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from importlib.util import find_spec

import uvicorn
from starlette.types import ASGIApp

from melete import supervision
from melete.errors import ServerError
from melete.settings import Settings

GRACE_S = 5
LONGEST_MESSAGE = 1 << 16
"""Bytes of a message that a client sends over a WebSocket."""


class Uvicorn(uvicorn.Server):
    """Uvicorn that says when it listens."""

    on_ready: Callable[[], None] | None = None

    @classmethod
    def of(cls, app: ASGIApp) -> Uvicorn:
        """One that serves an application, calmly: no access log, a few seconds for what runs when it is to stop."""
        return cls(
            uvicorn.Config(
                app,
                access_log=False,
                log_level="warning",
                server_header=False,
                proxy_headers=False,  # nothing that a client writes says where it comes from
                timeout_graceful_shutdown=GRACE_S,
                ws="melete.serve.sockets:WebSockets" if find_spec("websockets") else "none",
                ws_max_size=LONGEST_MESSAGE,
                # Compression would cost each of many clients memory, and each small message time.
                ws_per_message_deflate=False,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets=sockets)
        if self.started and self.on_ready is not None:
            self.on_ready()


def bind(host: str, port: int, settings: Settings) -> socket.socket:
    """A socket bound to an address.

    Raises:
        ServerError: the port is taken, the address is not of this machine, or it needs a token and there is none.
    """
    if settings.token is None and not is_loopback(host):
        raise ServerError(
            f"Listening on {host} would let anyone who reaches this machine use the model.",
            allowed="Without a token: 127.0.0.1, ::1 or localhost.",
            next_step="Set MELETE_TOKEN (in the environment or .env) to a secret and start again.",
        )
    listener = supervision.bind(host, port, "melete serve")
    listener.set_inheritable(True)
    return listener


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(listener: socket.socket) -> str:
    """The URL of a bound socket, as one would type it on this machine."""
    return supervision.url(*listener.getsockname()[:2])
