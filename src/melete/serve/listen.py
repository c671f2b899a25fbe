"""Listening: a socket bound first, so that a taken port is known before anything slow begins, and uvicorn on it.

Imports no model: what serves no model (`melete serve --no-model`) starts without torch.
"""

from __future__ import annotations

import ipaddress
import socket
import time
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


def bind(host: str, port: int, settings: Settings, *, named: bool = False) -> socket.socket:
    """A socket bound to an address.

    Args:
        host: anything but loopback needs a token.
        port: 0 takes a free one.
        settings: with the token.
        named: whether the server knows the named tokens of the database, so that one of those is enough.

    Raises:
        ServerError: the port is taken, the address is not of this machine, or it needs a token and there is none.
        StorageError: it needs a named token, and the database cannot be asked.
    """
    if not is_loopback(host) and settings.token is None and not (named and has_named(settings)):
        how = "Make a token with 'melete token create NAME --role admin', or set" if named else "Set"
        raise ServerError(
            f"Listening on {host} would let anyone who reaches this machine use the lab.",
            allowed="Without a token: 127.0.0.1, ::1 or localhost.",
            next_step=f"{how} MELETE_TOKEN (in the environment or .env) to a secret and start again.",
        )
    listener = supervision.bind(host, port, "melete serve")
    listener.set_inheritable(True)
    return listener


def has_named(settings: Settings) -> bool:
    """Whether the database has a named token that opens anything.

    Raises:
        StorageError: the database cannot be asked.
    """
    from melete.store import database, tokens

    with database.connect(settings.database) as connection:
        return tokens.any_live(connection, time.time())


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
