"""Every error that Melete raises for what a user, a file or a machine did, as one tree.

    MeleteError              1
    ├── ConfigError          2  unknown key, wrong type, a value outside its range
    │   └── JobFileError     2  the same in a job file, with file, line and key
    ├── UnknownNameError     2  a process, dataset, task, run or model that does not exist
    │   └── ScenarioNotFoundError 2  a scenario that does not exist
    ├── MissingExtraError    2  a library of an optional extra is not installed
    ├── DatasetError         3  missing or corrupt shard, empty split
    ├── CheckpointError      4  truncated, corrupt, or of a newer schema
    │   └── TokenizerError   4  a tokenizer that does not fit the model
    ├── DeviceError          5  no such device here
    │   └── GPUNotAvailableError 5  no GPU here, and none was rented; names providers and estimated cost
    ├── RunStateError        6  an illegal move of a run or a job
    │   ├── RunGoneError     6  a run that is known and whose folder is not here
    │   └── SessionError     6  an illegal move of a session, such as finalising it twice
    ├── TrainingError        7  NaN loss and other ends of a training run
    │   └── TrainingFailedError  7  a practice that could not go on, with the checkpoint that was kept
    ├── ServerError          8  port in use, server not reachable
    │   ├── EngineFull       8  more requests than may wait
    │   ├── ApiError         8  what a server refused, with its status and code
    │   ├── GatewayError     8  the gateway is not up, or its proxy cannot be started
    │   └── NotOfferedError  8  a server that has not what is asked of it, such as log-probabilities
    ├── StorageError         9  full disk, folder that cannot be written
    │   └── DiskFullError    9  the disk is full
    ├── SandboxError        10  the sandbox could not be set up
    ├── ScenarioError       11  a scenario or a tool that is wrong in itself
    ├── HubError            12  a hub of rollouts that died or does not answer
    ├── DeploymentError     13  a deployed agent or version that does not exist or cannot be started
    └── BundleError         14  a bundle of artifacts that is torn or was changed

The number is the exit code of the command line. A message holds what was found, what is allowed and the next
step; `MeleteError` joins the three. Errors of our own invariants are plain `assert`s and not part of this tree.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MeleteError(Exception):
    """Base of the tree: a message of up to three sentences (found, allowed, next step) and an exit code."""

    exit_code = 1

    def __init__(self, found: str, *, allowed: str | None = None, next_step: str | None = None) -> None:
        self.found = found
        self.allowed = allowed
        self.next_step = next_step
        super().__init__("\n".join(part for part in (found, allowed, next_step) if part))


class ConfigError(MeleteError):
    """An unknown key, a wrong type or a value outside its range."""

    exit_code = 2


class JobFileError(ConfigError):
    """A job file that cannot be used; the message starts with `file:line: key`."""


class UnknownNameError(MeleteError):
    """A name that nothing here has; the message lists the known names and the closest one."""

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str], *, next_step: str | None = None) -> None:
        self.kind = kind
        self.name = name
        self.known = sorted(known)
        close = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        shown = ", ".join(self.known[:24]) + (
            f", and {len(self.known) - 24} more" if len(self.known) > 24 else ""
        )
        super().__init__(
            f"There is no {kind} named {name!r}.{hint}",
            allowed=f"Known: {shown}." if self.known else f"No {kind} exists yet.",
            next_step=next_step,
        )


class ScenarioNotFoundError(UnknownNameError):
    """A scenario that does not exist; the message lists the known ones."""


class MissingExtraError(MeleteError):
    """A library of an optional extra is not installed; the message names the command that installs it."""

    exit_code = 2

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"This needs the library {library!r}, which is not installed.",
            next_step=f"Install it with: pip install 'melete[{extra}]'",
        )


class DatasetError(MeleteError):
    """A missing or corrupt shard, an empty split, a row that cannot be read."""

    exit_code = 3


class CheckpointError(MeleteError):
    """A checkpoint that is missing, truncated, corrupt or written by a newer schema."""

    exit_code = 4


class TokenizerError(CheckpointError):
    """A tokenizer file that cannot be read, or one that does not fit the model."""


class DeviceError(MeleteError):
    """A device or dtype that this machine does not have."""

    exit_code = 5


class GPUNotAvailableError(DeviceError):
    """No GPU here and none rented; the message names the providers and what a machine would cost."""


class RunStateError(MeleteError):
    """An illegal move between states, such as resuming a run that is still alive."""

    exit_code = 6


class RunGoneError(RunStateError):
    """A run that the index knows and whose folder is not here: deleted by hand, or of another home."""


class SessionError(RunStateError):
    """An illegal move of a session, such as finalising it twice; nothing was changed."""


class TrainingError(MeleteError):
    """A training run that had to end, such as a loss that is not a number; the last good checkpoint is kept."""

    exit_code = 7


class TrainingFailedError(TrainingError):
    """A practice that could not go on; the message names the checkpoint that was kept."""


class ServerError(MeleteError):
    """A port that is taken or a server that does not answer."""

    exit_code = 8


class EngineFull(ServerError):
    """The waiting line of the engine is full; `retry_after_s` is an estimate of when a place will be free."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(
            f"The engine already has {waiting} requests waiting.",
            next_step=f"Try again in about {retry_after_s:.0f} s, or start it with a longer line.",
        )


class ApiError(ServerError):
    """What a server answered in place of what it was asked for.

    Args:
        message: the server's own.
        status: of HTTP.
        code: the server's word for it, such as `not_found` or `gone`.
    """

    def __init__(self, message: str, status: int, code: str | None) -> None:
        self.status, self.code = status, code
        super().__init__(message)


class GatewayError(ServerError):
    """The gateway is not up, or its proxy cannot be started."""


class NotOfferedError(ServerError):
    """A server that does not offer what is asked of it, such as tools or log-probabilities of a prompt."""


class StorageError(MeleteError):
    """A full disk or a folder that cannot be written; nothing half-written is left behind."""

    exit_code = 9


class DiskFullError(StorageError):
    """No space is left, or none that this program may use; nothing half-written is left behind."""


class SandboxError(MeleteError):
    """The sandbox could not be set up, so nothing was run in it."""

    exit_code = 10


class ScenarioError(MeleteError):
    """A scenario or a tool that is wrong in itself: a reward outside its range, a schema that is no JSON schema."""

    exit_code = 11


class HubError(MeleteError):
    """A hub of rollouts that died, cannot be reached or answers nonsense."""

    exit_code = 12


class DeploymentError(MeleteError):
    """A deployed agent or version that does not exist, or one that cannot be started."""

    exit_code = 13


class BundleError(MeleteError):
    """A bundle of artifacts that is torn, was changed or is of a newer version; nothing was imported."""

    exit_code = 14
