"""The folder of a run and its `run.json`: made, read, moved between states, found by id; written whole, then renamed.

The folder is the truth and this file is its only door. A record that says `running` is believed only while its
process lives: on the same host the process id and its start time are compared, so a killed run is seen as lost at
once; a run of another host (a shared disk) is lost after `BEAT_LIMIT_S` without a heartbeat. Reading never writes.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melete.errors import DiskFullError, RunStateError, StorageError, UnknownNameError
from melete.records import RunRecord, RunState, move
from melete.settings import Settings

BEAT_LIMIT_S = 60.0
HEARTBEAT = "heartbeat"
RESERVE = ".reserve"
RESERVE_BYTES = 65_536
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def new_folder(parent: Path, word: str) -> tuple[Path, float]:
    """Makes a folder whose name sorts by time and can be read aloud: `20261120-123405-pretrain-a1f3`.

    Returns:
        The folder, and the time in its name in seconds since the epoch. The last four digits are the fraction of the
        second in hexadecimal, so that two folders of one second sort too.

    Raises:
        StorageError: the parent cannot be written.
    """
    word = re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_")[:40] or "run"
    while True:
        now_s = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now_s))
        folder = parent / f"{stamp}-{word}-{int(now_s % 1 * 65_536):04x}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in FULL:
                raise storage_error(folder, error) from error
            raise StorageError(
                f"Cannot make the folder {folder} ({error.strerror}).",
                next_step="Set MELETE_HOME to a folder that can be written.",
            ) from error
        return folder, now_s


def create(
    settings: Settings,
    process: str,
    *,
    name: str | None = None,
    job: str | None = None,
    step_name: str | None = None,
    limit_batches: int | None = None,
) -> tuple[Path, RunRecord]:
    """Makes the folder of a new run, with its record in state `queued`.

    Raises:
        StorageError: the home folder cannot be written.
    """
    folder, now_s = new_folder(settings.runs, process.partition(".")[2] or process)
    record = RunRecord(
        folder.name, process, RunState.QUEUED, now_s, name, job, step_name, limit_batches=limit_batches
    )
    write(folder, record)
    return folder, record


def write(folder: Path, record: RunRecord) -> None:
    """Writes `run.json` whole, then renames it into place.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the record before stays.
    """
    text = json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False, default=plain)
    replace_file(folder / "run.json", text + "\n")


def plain(value: Any) -> Any:
    """What JSON has no word for: numbers of numpy and torch as numbers, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


def replace_file(path: Path, content: str | bytes, *, mode: int = 0o666) -> None:
    """Writes a small file whole, text as UTF-8, then renames it into place.

    Args:
        path: file to write or to replace.
        content: all of it.
        mode: rights of the file, less what the umask takes.

    Raises:
        StorageError: the disk is full or the folder cannot be written; the file before stays.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(opened, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(path, error) from error


def reserve(folder: Path) -> None:
    """Sets a little space aside, so that a run that fills the disk can still write how it ended.

    Raises:
        StorageError: the disk is full.
    """
    path = folder / RESERVE
    try:
        path.write_bytes(bytes(RESERVE_BYTES))
    except OSError as error:
        raise storage_error(path, error) from error


def release(folder: Path) -> None:
    """Gives the space that was set aside back."""
    (folder / RESERVE).unlink(missing_ok=True)


def storage_error(path: Path, error: OSError) -> StorageError:
    """A `StorageError` that says what could not be written and why."""
    if error.errno not in FULL:
        return StorageError(f"Cannot write ({error.strerror}): {path.name} was not written in {path.parent}.")
    of_run = path.parent.parent.name == "runs"
    then = f"continue with: melete runs resume {path.parent.name}" if of_run else "try again."
    return DiskFullError(
        f"The disk is full: {path.name} was not written in {path.parent}.",
        next_step=f"Free some space, then {then}",
    )


def read(folder: Path) -> RunRecord:
    """Reads `run.json`; a running record whose process is gone is returned as lost.

    Raises:
        UnknownNameError: the folder holds no run.
        RunStateError: `run.json` cannot be read.
    """
    record = read_stored(folder)
    if record.state is RunState.RUNNING and not alive(folder, record):
        record.state = RunState.LOST
    return record


def read_stored(folder: Path) -> RunRecord:
    """Reads `run.json` as it stands, without asking whether the process lives."""
    file = folder / "run.json"
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in dataclasses.fields(RunRecord)}
        values = {key: value for key, value in values.items() if key in known}
        return RunRecord(**{**values, "state": RunState(values["state"])})
    except FileNotFoundError:
        raise UnknownNameError("run", folder.name, ids(folder.parent)) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RunStateError(f"{file} cannot be read ({error}).") from error


def set_state(folder: Path, record: RunRecord, state: RunState) -> None:
    """Moves a run to another state, if the table of moves allows it, and writes the record."""
    record.state = move(record.state, state)
    write(folder, record)


def alive(folder: Path, record: RunRecord) -> bool:
    """Whether the process of a running run still lives, as far as this host can know."""
    if record.host == socket.gethostname() and record.pid is not None:
        return same_process(record.pid, record.pid_started_s)
    try:
        beat_s = (folder / HEARTBEAT).stat().st_mtime
    except OSError:
        beat_s = record.started_s or record.created_s
    return time.time() - beat_s < BEAT_LIMIT_S


def same_process(pid: int, started_s: float | None) -> bool:
    """Whether the process that had this id when it started at this time still lives.

    A few seconds of difference are allowed: the start is counted from the boot, whose time moves with the clock.
    """
    now_s = process_start_s(pid)
    return now_s is not None and started_s is not None and abs(now_s - started_s) < 5


def process_start_s(pid: int) -> float | None:
    """When a process started (seconds), or None if there is no such process or it is a zombie."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.Error:
        return None


def ids(runs: Path) -> list[str]:
    """Ids of all runs in a `runs` folder, oldest first."""
    try:
        with os.scandir(runs) as entries:
            found = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda name: (name[:15], name[-4:]))


def all_runs(settings: Settings) -> Iterator[tuple[Path, RunRecord]]:
    """Every run whose record can be read, newest first."""
    for run_id in reversed(ids(settings.runs)):
        folder = settings.runs / run_id
        try:
            yield folder, read(folder)
        except (UnknownNameError, RunStateError):
            continue
