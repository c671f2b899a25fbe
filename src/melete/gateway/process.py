"""The gateway as a child process: start it, stop it, say how it is; `here` lends one for the length of a block.

A supervisor of ours owns the listening socket and starts LiteLLM on it, so that a taken port is one error before
anything starts, the port stays through restarts, and a call that comes while LiteLLM restarts waits instead of being
refused. Everything else that can be wrong is said by `plan`, before anything starts.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from melete import settings as configured
from melete import supervision
from melete.errors import GatewayError
from melete.gateway import environment, logs, state, supervise
from melete.gateway.plan import Plan, prepare
from melete.gateway.provider import Provider
from melete.gateway.state import State
from melete.settings import Settings

HOST = "127.0.0.1"
COMMAND = "melete gateway up"
PORT = 4000
"""Port of `melete gateway up`, LiteLLM's own default."""
WAIT_S = 180.0
PAUSE_S = 0.1
STOP_WAIT_S = supervise.STOP_S + 75.0
"""Seconds for answers under way, LiteLLM's end and the last reading of the spool."""
LIVELY = ("starting", "up", "restarting")
"""States in which a call is answered, at once or when LiteLLM is there: until then it waits."""


@dataclass(frozen=True)
class Gateway:
    """A gateway that is up: `url` without a path, the supervisor's pid, the public names of its models."""

    url: str
    port: int
    pid: int
    models: tuple[str, ...]
    digest: str
    metrics_url: str | None = None


@dataclass(frozen=True)
class GatewayStatus:
    """How the gateway is: `state` is down, starting, up, restarting, stopping or failed; the rest is what it last said.

    `restarts` counts since the supervisor started; `start_s` is how long LiteLLM took to start and to warm up.
    """

    state: str
    gateway: Gateway | None
    account: State | None


def up(
    settings: Settings,
    providers: Sequence[Provider],
    *,
    host: str = HOST,
    port: int = 0,
    wait_s: float = WAIT_S,
    on_start: Callable[[], None] | None = None,
) -> Gateway:
    """Starts the gateway, or returns the one that is up as it is asked for; one that is up otherwise is restarted.

    Args:
        settings: home folder and database.
        providers: whose models it offers.
        host: address to listen on.
        port: 0 takes the port of the last time if it is free, else any free one.
        wait_s: seconds until the start has failed.
        on_start: called when all is checked and the start begins; not called where nothing has to start.

    Raises:
        GatewayError: LiteLLM is not installed, the port is taken, it does not come up, or a run uses another one.
        ConfigError: a provider without its key or address, or a model name twice.
        StorageError: the database cannot be used.
    """
    plan, environ = prepare(settings, providers, host)
    with state.one_at_a_time(settings):
        now = state.alive(settings)
        if now is not None and now.state in LIVELY and now.digest == plan.digest and port in (0, now.port):
            state.stay(settings, True)
            return _gateway(now)
        if now is not None and state.leased(settings):
            raise GatewayError(
                f"The gateway at {now.url} is in use by a run, and would have to be restarted for this.",
                allowed=f"It offers: {', '.join(now.models)}.",
                next_step="Wait until the run has ended, or stop both with: melete gateway down",
            )
        if now is not None:
            _stop(settings, now, STOP_WAIT_S)
        with bind(settings, host, port) as listener:
            if on_start is not None:
                on_start()
            with state.lease(settings):
                started = _start(settings, plan, environ, listener, wait_s)
                state.stay(settings, True)
            return started


@contextmanager
def here(
    settings: Settings, providers: Sequence[Provider], *, port: int = 0, wait_s: float = WAIT_S
) -> Iterator[Gateway]:
    """Lends a gateway for a block: the one that is up if it offers these providers as they are, else a new one.

    What was up before is up afterwards. A new one ends with the last block, of whatever process, that uses it, and also
    when those processes are killed.

    Raises:
        GatewayError: it cannot be started, or another one is up with other providers.
        ConfigError: a provider without its key or address, or a model name twice.
        StorageError: the database cannot be used.
    """
    plan, environ = prepare(settings, providers, HOST)
    with ExitStack() as stack:
        with state.one_at_a_time(settings):
            held = stack.enter_context(state.lease(settings))
            now = state.alive(settings)
            if now is not None and now.state in LIVELY and plan.digests.items() <= now.providers.items():
                lent = _gateway(now)
            elif now is not None and state.needed(settings, besides=held):
                raise GatewayError(
                    f"Another gateway is up in this home, at {now.url}, with other providers or keys.",
                    allowed=f"It offers: {', '.join(now.models)}.",
                    next_step="Stop it first with: melete gateway down",
                )
            else:
                if now is not None:
                    _stop(settings, now, STOP_WAIT_S)
                state.stay(settings, False)
                with bind(settings, HOST, port) as listener:
                    lent = _start(settings, plan, environ, listener, wait_s)
        yield lent
    if not state.needed(settings):
        _wait_for_end(settings, lent.pid, STOP_WAIT_S)


def serve(settings: Settings, providers: Sequence[Provider], *, host: str = HOST, port: int = 0) -> int:
    """Runs the gateway in this process until SIGTERM or Ctrl-C, with its log on stdout; returns the exit code.

    Raises:
        GatewayError: LiteLLM is not installed, the port is taken, or another gateway is up in this home.
        ConfigError: a provider without its key or address, or a model name twice.
        StorageError: the database cannot be used.
    """
    plan, environ = prepare(settings, providers, host)
    now = state.alive(settings)
    if now is not None:
        raise GatewayError(
            f"A gateway is up in this home already, at {now.url}.",
            next_step="Stop it first with: melete gateway down",
        )
    os.environ.update(environ)
    settings = configured.load()
    with bind(settings, host, port) as listener, state.lease(settings):
        return supervise.Supervisor(settings, plan, listener, shown=True).run()


def bind(settings: Settings, host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes that of the last time if it is free, else any free one.

    Raises:
        GatewayError: the port is taken, or this user may not have it.
    """
    last = state.read(settings)
    if not port and last is not None:
        with suppress(GatewayError):
            return supervision.bind(host, last.port, COMMAND, error=GatewayError)
    return supervision.bind(host, port, COMMAND, error=GatewayError)


def running(settings: Settings) -> Gateway | None:
    """The gateway of this home if it is up, or restarting on its own, else None."""
    now = state.alive(settings)
    return _gateway(now) if now is not None and now.state in ("up", "restarting") else None


def status(settings: Settings) -> GatewayStatus:
    """How the gateway of this home is."""
    now = state.alive(settings)
    if now is None:
        last = state.read(settings)
        return GatewayStatus("failed" if last and last.state == "failed" else "down", None, last)
    return GatewayStatus(now.state, running(settings), now)


def down(settings: Settings, *, wait_s: float = STOP_WAIT_S) -> bool:
    """Stops the gateway: running answers get some seconds, the spool is read to its end; False if none was up.

    Raises:
        GatewayError: it does not stop.
    """
    with state.one_at_a_time(settings):
        now = state.alive(settings)
        if now is None:
            return False
        _stop(settings, now, wait_s)
        return True


def log_file(settings: Settings) -> Path:
    """The log that `melete gateway logs` shows."""
    return settings.gateway / "logs" / logs.FILE


def _start(
    settings: Settings, plan: Plan, environ: dict[str, str], listener: socket.socket, wait_s: float
) -> Gateway:
    """Starts the supervisor, and waits until it says that it is up."""
    logs_folder = settings.gateway / "logs"
    logs_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    child = supervision.spawn(
        "melete.gateway.supervise",
        plan.to_json(),
        said=logs_folder / "supervisor.err",
        folder=settings.home,
        environ={**environ, environment.LISTEN_FD: str(listener.fileno())},
        descriptors=[listener.fileno()],
    )
    return _await(settings, child, wait_s)


def _await(settings: Settings, child: subprocess.Popen[bytes], wait_s: float) -> Gateway:
    """Waits until the supervisor says that it is up; whoever gives up waiting leaves nothing behind."""
    deadline = time.monotonic() + wait_s
    why = f"within {wait_s:.0f} s"
    came_up = False
    try:
        while time.monotonic() < deadline:
            now = state.read(settings)
            if now is not None and now.pid == child.pid and now.state == "up":
                came_up = True
                return _gateway(now)
            if child.poll() is not None:
                why = f"because {_why(settings, now, child.pid)}"
                break
            time.sleep(PAUSE_S)
    finally:
        if not came_up and child.poll() is None:
            child.terminate()
    raise GatewayError(
        f"The gateway did not come up {why}.",
        allowed=_last_words(settings),
        next_step="See: melete gateway logs",
    )


def _why(settings: Settings, now: State | None, pid: int) -> str:
    if now is not None and now.pid == pid and now.trouble:
        return f"LiteLLM {now.trouble}"
    said = settings.gateway / "logs" / "supervisor.err"
    lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines() if said.is_file() else []
    return lines[-1].removeprefix("error: ").rstrip(".") if lines else "its supervisor ended at once"


def _last_words(settings: Settings) -> str | None:
    file = log_file(settings)
    lines = list(logs.follow(file, 5, on=False))
    return "The log ends with:\n  " + "\n  ".join(lines) if lines else None


def _stop(settings: Settings, now: State, wait_s: float) -> None:
    state.stay(settings, False)
    # The lock is held, so the pid is that of a supervisor of ours and of nothing that took its number since.
    os.kill(now.pid, signal.SIGTERM)
    _wait_for_end(settings, now.pid, wait_s)


def _wait_for_end(settings: Settings, pid: int, wait_s: float) -> None:
    """Waits until no gateway is up, or another one than that of a supervisor.

    Raises:
        GatewayError: it does not stop.
    """
    deadline = time.monotonic() + wait_s
    while (now := state.alive(settings)) is not None and now.pid == pid:
        if time.monotonic() > deadline:
            raise GatewayError(
                f"The gateway (pid {pid}) did not stop within {wait_s:.0f} s.",
                next_step=f"See melete gateway logs, or end it with: kill -9 {pid}",
            )
        time.sleep(PAUSE_S / 2)


def _gateway(now: State) -> Gateway:
    return Gateway(now.url, now.port, now.pid, now.models, now.digest, now.metrics_url)
