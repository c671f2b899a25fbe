"""Checkpoints: weights that runs of this home have saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from pydantic import Field

from melete.api import here, paging
from melete.api.clean import clean
from melete.api.records import Checkpoint
from melete.api.store import Asked, Listed, Store, Text
from melete.errors import CheckpointError, UnknownNameError
from melete.runs import checkpoints
from melete.store import index

MOST_RUNS = 1_000
"""Runs that are looked at for one page."""
CheckpointId = Annotated[
    str,
    InPath(
        max_length=120,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*:\d{1,12}$",
        description="run:step.",
        examples=["20261120-123405-sft-a1f3:200"],
    ),
]


class CheckpointAsked(Asked):
    """Which checkpoints."""

    run: str | None = Field(
        None,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="All of this run; without it, the newest one of each run.",
        examples=["20261120-123405-sft-a1f3"],
    )
    kind: Text | None = Field(None, description="What was saved.", examples=["llm"])


def routes(store: Store) -> APIRouter:
    """A list, newest first, and one by its id."""
    router = APIRouter()

    @router.get("")
    def list_checkpoints(asked: Annotated[CheckpointAsked, Query()]) -> Listed[Checkpoint]:
        """List the newest checkpoint of each run, or all of one run; at most 1,000 runs are looked at for one page."""
        if asked.run is None:
            return _of_all(store, asked)
        path, _ = here.opened(store, asked.run)
        found = [one for one in _saved(path) if asked.kind in (None, one.kind)]
        return paging.page(
            found,
            lambda one: f"{one.step:015d}",
            of=f"checkpoints {asked.run} {asked.kind or ''}",
            limit=asked.limit,
            cursor=asked.cursor,
            newest_first=True,
        )

    @router.get("/{checkpoint_id}")
    def get_checkpoint(checkpoint_id: CheckpointId) -> Checkpoint:
        """One checkpoint."""
        run, _, step = checkpoint_id.rpartition(":")
        path, _ = here.opened(store, run)
        found = {one.step: one for one in _saved(path)}
        if int(step) not in found:
            raise UnknownNameError("checkpoint", checkpoint_id, [one.id for one in found.values()])
        return found[int(step)]

    return router


def _of_all(store: Store, asked: CheckpointAsked) -> Listed[Checkpoint]:
    """The newest checkpoint of each run of this home; the cursor is that of the runs."""
    found: list[Checkpoint] = []
    looked, cursor = 0, asked.cursor
    own = index.location(store.settings)
    with store.read() as connection:
        while True:
            page = here.page(connection, {"location": own}, limit=asked.limit - len(found), cursor=cursor)
            for row in page.items:
                latest = checkpoints.latest(store.settings.runs / row["id"] / "checkpoints")
                one = described(latest) if latest else None
                if one is not None and asked.kind in (None, one.kind):
                    found.append(one)
            looked, cursor = looked + len(page.items), page.next_cursor
            if cursor is None or len(found) == asked.limit or looked >= MOST_RUNS:
                return Listed[Checkpoint](object="list", data=found, next_cursor=cursor)


def _saved(run: Path) -> Iterator[Checkpoint]:
    for folder in sorted((run / "checkpoints").glob("step_*")):
        if (found := described(folder)) is not None:
            yield found


def described(folder: Path) -> Checkpoint | None:
    """What is said of a checkpoint; None for one that cannot be read."""
    try:
        record = checkpoints.read(folder)
        saved_s = (folder / "checkpoint.json").stat().st_mtime
    except (CheckpointError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    run = folder.parent.parent.name
    told: dict[str, Any] = {
        "id": f"{run}:{record.step}",
        "run": run,
        "step": record.step,
        "kind": record.kind,
        "bytes": sum(size for size, _ in record.files.values()),
        "saved_s": saved_s,
        "metrics": record.metrics,
        "files": [{"name": name, "bytes": size, "sha256": sha} for name, (size, sha) in record.files.items()],
        "config": record.config,
    }
    return Checkpoint.model_validate(clean(told))
