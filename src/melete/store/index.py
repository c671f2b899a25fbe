"""The index of runs: written when a run begins and ends, read by `melete runs list --everywhere`, rebuilt from folders.

A run is indexed by host, home and id. What the index says of a run of this home is never trusted over its folder.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select

from melete.errors import RunStateError
from melete.records import RunRecord
from melete.runs import folder as folders
from melete.runs.lines import last_json_lines
from melete.settings import Settings
from melete.store.database import connect, upsert
from melete.store.models import RunRow


def location(settings: Settings) -> str:
    """Where the runs of these settings are: `host:home folder`."""
    return f"{socket.gethostname()}:{settings.home.resolve()}"


def record(settings: Settings, folder: Path) -> None:
    """Writes what a run's folder says into the index.

    Raises:
        StorageError: the database cannot be used.
    """
    with connect(settings.database) as connection:
        upsert(connection, RunRow.__table__, [row(settings, folder, folders.read(folder))])


def rebuild(settings: Settings) -> int:
    """Replaces the index of this home by what its folders say; runs of other homes stay.

    Returns:
        How many runs were indexed.

    Raises:
        StorageError: the database cannot be used.
    """
    rows = [row(settings, folder, record) for folder, record in folders.all_runs(settings)]
    with connect(settings.database) as connection:
        connection.execute(delete(RunRow).where(RunRow.location == location(settings)))
        upsert(connection, RunRow.__table__, rows)
    return len(rows)


def complete(settings: Settings) -> int:
    """Adds the runs of this home whose folders the index does not know, such as those of a home that was moved here.

    Returns:
        How many were added.

    Raises:
        StorageError: the database cannot be used.
    """
    if not settings.runs.is_dir():
        return 0
    with connect(settings.database) as connection:
        here = RunRow.location == location(settings)
        known = set(connection.scalars(select(RunRow.id).where(here)))
        unknown = [path for path in settings.runs.iterdir() if path.name not in known]
        rows = []
        for path in unknown:
            with suppress(RunStateError):
                if (path / "run.json").is_file():
                    rows.append(row(settings, path, folders.read(path)))
        upsert(connection, RunRow.__table__, rows)
    return len(rows)


def newest(
    settings: Settings, *, state: str | None = None, process: str | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """The newest runs of all homes in the database, newest first.

    Raises:
        StorageError: the database cannot be used.
    """
    query = select(RunRow.__table__).order_by(RunRow.created_s.desc(), RunRow.id.desc()).limit(limit)
    if state is not None:
        query = query.where(RunRow.state == state)
    if process is not None:
        query = query.where(RunRow.process == process)
    with connect(settings.database) as connection:
        rows = [dict(found._mapping) for found in connection.execute(query)]
    return [{**found, "loss": found["last"].get("loss")} for found in rows]


def row(settings: Settings, folder: Path, record: RunRecord) -> dict[str, Any]:
    """What the index keeps of a run."""
    last: dict[str, Any] = {}
    for line in last_json_lines(folder / "metrics.jsonl"):
        last.update(line)
    last.pop("time_s", None)
    step = last.pop("step", None)
    return {
        "location": location(settings),
        "id": record.id,
        "process": record.process,
        "state": str(record.state),
        "name": record.name or record.step_name,
        "job": record.job,
        "created_s": record.created_s,
        "ended_s": record.ended_s,
        "step": step,
        "last": {key: value for key, value in last.items() if value == value},  # NaN is not JSON
        "error": record.error,
    }
