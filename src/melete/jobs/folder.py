"""The folder of a job, `jobs/<id>/`: its record `job.json`, a copy of the job file, and the report of all its runs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
from pathlib import Path

from melete.errors import RunStateError, StorageError
from melete.records import JobRecord, JobStep, RunState
from melete.runs import folder as folders
from melete.settings import Settings


def create(settings: Settings, file: Path, name: str, steps: list[JobStep]) -> tuple[Path, JobRecord]:
    """Makes the folder of a new job.

    Raises:
        StorageError: the home folder cannot be written; nothing half-made is left.
    """
    path, now_s = folders.new_folder(settings.home / "jobs", name)
    record = JobRecord(path.name, name, str(file.resolve()), RunState.QUEUED, now_s, steps)
    try:
        shutil.copyfile(file, path / f"job{file.suffix}")
        write(path, record)
    except OSError as error:
        shutil.rmtree(path, ignore_errors=True)
        raise folders.storage_error(path, error) from error
    except StorageError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path, record


def write(path: Path, record: JobRecord) -> None:
    """Writes `job.json` whole, then renames it into place.

    Raises:
        StorageError: the disk is full; the record before stays.
    """
    text = json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False)
    folders.replace_file(path / "job.json", text + "\n")


def read(path: Path) -> JobRecord:
    """Reads `job.json`; a running job whose process is gone is returned as lost.

    Raises:
        RunStateError: `job.json` cannot be read.
    """
    try:
        values = json.loads((path / "job.json").read_text(encoding="utf-8"))
        steps = [JobStep(**{**step, "state": RunState(step["state"])}) for step in values.pop("steps")]
        record = JobRecord(**{**values, "state": RunState(values["state"]), "steps": steps})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunStateError(f"{path / 'job.json'} cannot be read ({error}).") from error
    if record.state is RunState.RUNNING and not alive(record):
        record.state = RunState.LOST
    return record


def alive(record: JobRecord) -> bool:
    """Whether the process of a running job still lives; one on another host is believed."""
    if record.host != socket.gethostname() or record.pid is None:
        return True
    return folders.same_process(record.pid, record.pid_started_s)


def newest(settings: Settings, file: Path) -> Path | None:
    """Folder of the newest job that was started from `file`, or None."""
    jobs = settings.home / "jobs"
    for job_id in reversed(folders.ids(jobs)):
        if (jobs / job_id / "job.json").is_file() and read(jobs / job_id).file == str(file.resolve()):
            return jobs / job_id
    return None
