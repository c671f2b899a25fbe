"""What adapters share: a user's `build` function called with what it asks for, HTTP clients that share one pool."""

from __future__ import annotations

import functools
import inspect
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from melete.errors import ConfigError

if TYPE_CHECKING:
    import httpx

    from melete.agents.player import Session

OFFERED = ("base_url", "api_key", "tools", "model", "system_prompt", "session")


def build_with(build: Callable[..., Any], session: Session, tools: list[Any]) -> Any:
    """Calls a user's function with those of our arguments that it names."""
    offered = {
        "base_url": session.base_url,
        "api_key": session.api_key,
        "tools": tools,
        "model": session.model,
        "system_prompt": session.system_prompt,
        "session": session,
    }
    wanted = inspect.signature(build).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in wanted.values())
    return build(**{name: value for name, value in offered.items() if every or name in wanted})


def check(build: Callable[..., Any]) -> None:
    """Refuses a function that cannot be called by `build_with`, before anything is played.

    Raises:
        ConfigError: it asks for something that practice does not have.
    """
    unknown = [
        name
        for name, p in inspect.signature(build).parameters.items()
        if name not in OFFERED and p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    if unknown:
        name = getattr(build, "__name__", "build")
        raise ConfigError(
            f"{name} asks for {', '.join(unknown)}, which practice does not have.",
            allowed=f"It may ask for: {', '.join(OFFERED)}.",
        )


@functools.cache
def ssl_context() -> ssl.SSLContext:
    """One context for all clients: making it is most of what a client costs (18 ms of CPU)."""
    import httpx

    return httpx.create_ssl_context()


@functools.cache
def http_client() -> httpx.Client:
    """One client for all agents in this process; it is safe to share between threads."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.Client(verify=ssl_context(), timeout=None, limits=limits)


def async_http_client() -> httpx.AsyncClient:
    """A client for one event loop."""
    import httpx

    return httpx.AsyncClient(verify=ssl_context(), timeout=None)
