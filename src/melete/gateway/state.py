"""What the supervisor says of itself, in `<home>/gateway/state.json`, the lock that tells whether it lives, and leases.

The file is replaced whole. A lease is a locked file too: a gateway that nobody started for good stays up as long as any
process holds one.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO

from melete import supervision
from melete.runs.folder import replace_file
from melete.settings import Settings

FILE = "state.json"
LOCK = "lock"
LEASES = "leases"
STAY = "stay"


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
        return supervision.url(self.host, self.port)


def folder(settings: Settings) -> Path:
    """`<home>/gateway`, made with access for its owner only."""
    settings.gateway.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.gateway


def write(settings: Settings, state: State) -> None:
    """Replaces the file.

    Raises:
        StorageError: the disk is full.
    """
    replace_file(folder(settings) / FILE, json.dumps(asdict(state), indent=1))


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
    return read(settings) if supervision.lives(settings.gateway / LOCK) else None


def claim(settings: Settings) -> IO[bytes] | None:
    """Takes the lock for the life of this process; None if another supervisor has it."""
    return supervision.claim(folder(settings) / LOCK)


def one_at_a_time(settings: Settings, *, wait: bool = True) -> AbstractContextManager[bool]:
    """Lets one at a time start, lend or stop the gateway of a home; without `wait`, False where another one does."""
    return supervision.one_at_a_time(folder(settings) / "command.lock", wait=wait)


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
    held = supervision.lives(file)
    if not held:
        file.unlink(missing_ok=True)
    return held
