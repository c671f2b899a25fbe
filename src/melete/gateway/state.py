"""What the supervisor says of itself, in `<home>/gateway/state.json`, and the lock that tells whether it lives.

The lock is the truth: the kernel lets go of it when the supervisor ends, however that is, so a stale file or a pid that
another program got since is never mistaken for a gateway. The file is replaced whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO

from melete.settings import Settings

FILE = "state.json"
HELD_S = 2.0
"""A new supervisor tries this long for the lock, because whoever asks for the status holds it for a moment."""


@dataclass(frozen=True)
class State:
    """The supervisor's own account; `state` is starting, up, restarting, stopping, down or failed.

    `providers` is name to digest; `start_s` is how long LiteLLM took the last time, with its warm-up.
    """

    state: str
    pid: int
    host: str
    port: int
    digest: str
    started_s: float
    version: str
    models: tuple[str, ...] = ()
    providers: dict[str, str] = field(default_factory=dict)
    litellm_pid: int | None = None
    restarts: int = 0
    last_exit: str | None = None
    metrics_url: str | None = None
    trouble: str | None = None
    start_s: float | None = None

    @property
    def url(self) -> str:
        """Address for clients on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{self.port}"


def folder(settings: Settings) -> Path:
    """`<home>/gateway`, made with access for its owner only."""
    settings.gateway.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.gateway


def write(settings: Settings, state: State) -> None:
    """Replaces the file."""
    target = folder(settings) / FILE
    draft = target.with_name(f".{FILE}.{os.getpid()}")
    draft.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
    draft.replace(target)


def read(settings: Settings) -> State | None:
    """What the last supervisor of this home said; None if there was none or its file cannot be read."""
    try:
        found = json.loads((settings.gateway / FILE).read_text(encoding="utf-8"))
        known = {one.name for one in fields(State)}
        state = State(**{key: value for key, value in found.items() if key in known})
        return replace(state, models=tuple(state.models), providers=dict(state.providers))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def alive(settings: Settings) -> State | None:
    """The account of a supervisor that lives, else None."""
    if not (settings.gateway / "lock").is_file():
        return None
    with (settings.gateway / "lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return read(settings)
    return None


def claim(settings: Settings) -> IO[bytes] | None:
    """Takes the lock for the life of this process; None if another supervisor has it."""
    lock = (folder(settings) / "lock").open("ab")
    deadline = time.monotonic() + HELD_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                return None
            time.sleep(0.05)


@contextmanager
def one_at_a_time(settings: Settings) -> Iterator[None]:
    """Lets one command at a time start or stop the gateway of a home; the next one waits and finds what it did."""
    with (folder(settings) / "command.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
