"""Listening: a socket bound first, so that a taken port is known before anything slow begins, and uvicorn on it.

Imports no model: what serves no model (`melete serve --no-model`) starts without torch.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from melete.errors import ServerError
from melete.settings import Settings

GRACE_S = 5


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
                timeout_graceful_shutdown=GRACE_S,
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
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise _not_bound(host, port, error) from error
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
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _not_bound(host: str, port: int, error: OSError) -> ServerError:
    if error.errno == errno.EADDRINUSE:
        return ServerError(
            f"Port {port} on {host} is already in use.",
            allowed="Another server, perhaps another 'melete serve', listens there.",
            next_step=f"Take another one: melete serve --port {port + 1 if port < 65535 else 8675}",
        )
    if error.errno == errno.EACCES:
        return ServerError(
            f"Port {port} needs rights that you do not have.",
            next_step="Take one above 1023: melete serve --port 8675",
        )
    details: Any = error.strerror or error
    return ServerError(f"Cannot listen on {host}, port {port}: {details}.", next_step="Try --host 127.0.0.1")
