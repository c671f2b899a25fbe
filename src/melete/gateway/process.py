"""The gateway as a child process: start it, stop it, say how it is; `here` lends one for the length of a block.

A supervisor of ours owns the listening socket and starts LiteLLM on it, so that a taken port is one error before
anything starts, the port stays through restarts, and a request that comes while LiteLLM restarts waits instead of being
refused. Who holds the lock of `<home>/gateway` is the gateway; a pid that another program got is never mistaken for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from melete.gateway.provider import Provider
from melete.settings import Settings

HOST = "127.0.0.1"
PORT = 4000
WAIT_S = 120.0


@dataclass(frozen=True)
class Gateway:
    """A gateway that is up: `url` without a path, the supervisor's pid, the models by public name."""

    url: str
    port: int
    pid: int
    models: tuple[str, ...]
    digest: str
    metrics_url: str | None = None


@dataclass(frozen=True)
class GatewayStatus:
    """How the gateway is: `state` is down, starting, up or restarting; counts since the supervisor started."""

    state: str
    gateway: Gateway | None
    started_s: float | None = None
    restarts: int = 0
    litellm_pid: int | None = None
    litellm_version: str | None = None
    last_exit: str | None = None
    providers: tuple[str, ...] = ()


def up(
    settings: Settings,
    providers: Sequence[Provider],
    *,
    host: str = HOST,
    port: int = 0,
    wait_s: float = WAIT_S,
) -> Gateway:
    """Starts the gateway, or returns the one that is up with the same config; another config restarts it.

    Args:
        settings: home folder and database.
        providers: whose models it offers.
        host: address to listen on.
        port: 0 keeps the port of the last start if it is free, else takes a free one.
        wait_s: seconds until the start has failed.

    Raises:
        GatewayError: LiteLLM is not installed, the port is taken, or it does not come up.
        ConfigError: a provider without its key, or a model name twice.
    """
    raise NotImplementedError


def running(settings: Settings) -> Gateway | None:
    """The gateway of this home if it is up and answers, else None."""
    raise NotImplementedError


def status(settings: Settings) -> GatewayStatus:
    """How the gateway of this home is."""
    raise NotImplementedError


def down(settings: Settings, *, wait_s: float = 30.0) -> bool:
    """Stops the gateway: running answers get some seconds, the spool is read to its end; False if none was up."""
    raise NotImplementedError


@contextmanager
def here(
    settings: Settings, providers: Sequence[Provider], *, port: int = 0, wait_s: float = WAIT_S
) -> Iterator[Gateway]:
    """A gateway for a block: the one that is up if it offers these providers as they are, else one of its own.

    What was up before is up afterwards.

    Raises:
        GatewayError: it cannot be started, or another one is up with other providers.
    """
    raise NotImplementedError


def folder(settings: Settings) -> Path:
    """`<home>/gateway`, made with access for its owner only."""
    path = settings.home / "gateway"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
