"""The runs of this home: the index lists them, their folders are believed.

The index is written when a run begins, with each heartbeat and when it ends. Of a run that it calls running the folder
is asked, which knows whether the process still lives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from fastapi import Path as InPath
from sqlalchemy import Connection, select

from melete.api.clean import clean
from melete.api.records import RunSummary
from melete.api.store import Store
from melete.errors import RunGoneError, RunStateError, UnknownNameError
from melete.gateway import queries
from melete.gateway.queries import MOST_SCANNED, Condition, Listing
from melete.records import RunRecord, RunState
from melete.runs import folder as folders
from melete.store import index
from melete.store.models import RunRow, table

RUN = table(RunRow)
RunId = Annotated[
    str,
    InPath(
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="A run's id.",
        examples=["20261120-123405-pretrain-a1f3"],
    ),
]
SMALL_BYTES = 4_000_000
"""Larger files of a run are not read into an answer."""


def _equals(column: str) -> Condition:
    return lambda _, value: RUN.c[column] == value


RUNS = Listing(
    "run",
    RUN,
    ("created_s", "id", "location"),
    {
        **{name: _equals(name) for name in ("location", "process", "state", "name", "job")},
        "since_s": lambda _, value: RUN.c.created_s >= value,
        "until_s": lambda _, value: RUN.c.created_s < value,
        "search": lambda _, value: (
            RUN.c.name.icontains(value, autoescape=True) | RUN.c.id.icontains(value, autoescape=True)
        ),
    },
    leads=("location",),
    most_scanned=MOST_SCANNED,
)
INDEXED = (
    {"location", "since_s", "until_s"},
    {"location", "state", "since_s", "until_s"},
    {"location", "process", "since_s", "until_s"},
)
"""Filters that an index answers together, so that no row is looked at that does not match."""


def page(
    connection: Connection, wanted: Mapping[str, Any], *, limit: int, cursor: str | None = None
) -> queries.Page:
    """Some rows of the index, newest first.

    Raises:
        ConfigError: the cursor does not belong to these filters.
    """
    indexed = any(set(wanted) <= one for one in INDEXED)
    listing = replace(RUNS, most_scanned=None) if indexed else RUNS
    return queries.page(connection, listing, wanted, limit=limit, cursor=cursor)


def summary(store: Store, row: Mapping[str, Any], own: str) -> RunSummary:
    """A row of the index, corrected by the run's folder where that is here."""
    values = dict(row)
    where = "elsewhere"
    if values["location"] == own:
        path = store.settings.runs / values["id"]
        where = "here" if (path / "run.json").is_file() else "gone"
        if where == "here" and values["state"] in (RunState.RUNNING, RunState.QUEUED):
            # One that was deleted or rewritten just now stays as the index knows it.
            with suppress(RunStateError, UnknownNameError):
                values["state"] = folders.read(path).state
        if where == "here":
            values["note"] = _first_line(path / "note.md")
    return RunSummary.model_validate(clean({**values, "folder": where}, longest=2_000))


def _first_line(path: Path) -> str:
    """The first line of a file that has text in it; empty where there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return next((line.strip()[:200] for line in file.read(2_000).splitlines() if line.strip()), "")
    except OSError:
        return ""


def newest(store: Store, connection: Connection, limit: int, **wanted: str) -> list[RunSummary]:
    """The newest runs of this home that the index knows."""
    own = index.location(store.settings)
    found = page(connection, {"location": own, **wanted}, limit=limit)
    return [summary(store, row, own) for row in found.items]


def opened(store: Store, run_id: str) -> tuple[Path, RunRecord]:
    """Folder and record of a run of this home.

    Raises:
        RunGoneError: the index knows it, and its folder is not here.
        UnknownNameError: nothing knows it.
        RunStateError: its record cannot be read.
    """
    path = store.settings.runs / run_id
    if (path / "run.json").is_file():
        return path, folders.read(path)
    own = index.location(store.settings)
    with store.read() as connection:
        places = list(connection.scalars(select(RUN.c.location).where(RUN.c.id == run_id)))
        if own in places:
            raise RunGoneError(
                f"The folder of run {run_id} is gone: it was deleted or moved away.",
                allowed="The index still lists it with what was last known.",
                next_step="Put the folder back, or take it off the list with: melete store rebuild",
            )
        if places:
            raise RunGoneError(
                f"Run {run_id} is not of this home.",
                allowed=f"Its folder is at {places[0]}.",
                next_step="Ask the server of that home.",
            )
        known = [run.id for run in newest(store, connection, 8)]
    raise UnknownNameError("run", run_id, known, next_step="The runs are listed at /api/v1/runs.")


def text_of(path: Path) -> str:
    """Text of a small file; one that is missing, too large or cannot be read has none."""
    try:
        if path.stat().st_size > SMALL_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def json_of(path: Path) -> Any:
    """Content of a small JSON file, None where there is none to be had."""
    try:
        return clean(json.loads(text_of(path)))
    except (ValueError, RecursionError):
        return None


def yaml_of(path: Path) -> Any:
    """Content of a small YAML file, None where there is none to be had."""
    try:
        return clean(yaml.load(text_of(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
