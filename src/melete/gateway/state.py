"""What the supervisor says of itself, in `<home>/gateway/state.json`, the lock that tells whether it lives, and leases.

The lock is the truth: the kernel lets go of it when the supervisor ends, however that is, so a stale file or a pid that
another program got since is never mistaken for a gateway. The file is replaced whole. A lease is a locked file too: a
gateway that nobody started for good stays up as long as any process holds one.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO

from melete.settings import Settings

FILE = "state.json"
LEASES = "leases"
STAY = "stay"
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
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


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
def one_at_a_time(settings: Settings, *, wait: bool = True) -> Iterator[bool]:
    """Lets one at a time start, lend or stop the gateway of a home; without `wait`, False where another one does."""
    with (folder(settings) / "command.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def lease(settings: Settings) -> Iterator[Path]:
    """Keeps a gateway up for the length of a block, or of this process's life, whichever is shorter."""
    place = folder(settings) / LEASES
    place.mkdir(exist_ok=True)
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    draft, file = place / f".{name}", place / name
    with draft.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        draft.rename(file)
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)


def needed(settings: Settings, *, besides: Path | None = None) -> bool:
    """Whether the gateway is to stay: somebody started it for good, or holds a lease (another one than `besides`)."""
    return (settings.gateway / STAY).exists() or leased(settings, besides=besides)


def leased(settings: Settings, *, besides: Path | None = None) -> bool:
    """Whether a process holds a lease, another one than `besides`."""
    leases = (settings.gateway / LEASES).glob("[!.]*")
    return any(file != besides and _held(file) for file in leases)


def stay(settings: Settings, on: bool) -> None:
    """Notes that the gateway is to stay up without a lease, or that it is not."""
    if on:
        (folder(settings) / STAY).touch()
    else:
        (settings.gateway / STAY).unlink(missing_ok=True)


def _held(file: Path) -> bool:
    """Whether the process that holds a lease lives; what a killed one left behind is tidied away."""
    try:
        with file.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            file.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False
