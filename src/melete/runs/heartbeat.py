"""The sign of life of a run: its `heartbeat` file is touched every few seconds and locked while the process lives.

The touch lets another host see a lost run, the lock keeps two processes from executing the same run. It is a POSIX
record lock: a child that outlives a killed run does not inherit it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melete.errors import RunStateError
from melete.runs.folder import HEARTBEAT, storage_error

BEAT_EVERY_S = 10.0
FIRST_BEAT_S = 1.0
"""What is shorter than this leaves the index alone until it ends."""


@contextmanager
def beating(folder: Path, each_beat: Callable[[], None]) -> Iterator[None]:
    """Holds the run and beats until the `with` block ends.

    Args:
        folder: the run's folder.
        each_beat: called in the beating thread with each beat, first after `FIRST_BEAT_S`.

    Raises:
        RunStateError: another process executes this run.
        StorageError: the folder cannot be written.
    """
    path = folder / HEARTBEAT
    try:
        file = path.open("a")
    except OSError as error:
        raise storage_error(path, error) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunStateError(f"Run {folder.name} is being executed by another process.") from error
        ended = threading.Event()

        def beat() -> None:
            wait_s = FIRST_BEAT_S
            while not ended.wait(wait_s):
                wait_s = BEAT_EVERY_S
                with suppress(OSError):  # a full disk is reported by whoever writes figures
                    os.utime(path)
                each_beat()

        os.utime(path)
        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
