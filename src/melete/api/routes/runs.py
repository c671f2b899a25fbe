"""Runs: what was executed, with config, provenance, figures, log, samples and files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from melete import find
from melete.api import here
from melete.api.clean import clean
from melete.api.here import RunId
from melete.api.records import RunDetail, RunSummary
from melete.api.store import Asked, Listed, Seconds, Store, Text
from melete.records import RunState
from melete.runs import headway, provenance
from melete.runs.lines import last_json_lines
from melete.store import index

PARTS = "melete.api.run_parts"


class RunAsked(Asked):
    """Which runs."""

    state: RunState | None = Field(None, description="As the index knows it.")
    process: Text | None = Field(None, examples=["llm.pretrain"])
    name: Text | None = Field(None, examples=["base"])
    job: Text | None = Field(None, description="A job's id.", examples=["20261120-120000-two-ways-45bc"])
    search: Text | None = Field(None, description="A part of its name or id, in any case.", examples=["sft"])
    everywhere: bool = Field(False, description="Runs of all homes in the database, not only of this one.")
    since_s: Seconds | None = Field(None, description="Created at or after this time.")
    until_s: Seconds | None = Field(None, description="Created before this time.")


def routes(store: Store) -> APIRouter:
    """A list, newest first, one by its id, and its parts: one file of `run_parts/` each."""
    router = APIRouter()

    @router.get("")
    def list_runs(asked: Annotated[RunAsked, Query()]) -> Listed[RunSummary]:
        """List runs, newest first."""
        wanted = asked.model_dump(exclude={"limit", "cursor", "everywhere"}, exclude_none=True)
        own = index.location(store.settings)
        if not asked.everywhere:
            wanted["location"] = own
        with store.read() as connection:
            found = here.page(connection, wanted, limit=asked.limit, cursor=asked.cursor)
        data = [here.summary(store, row, own) for row in found.items]
        return Listed[RunSummary](object="list", data=data, next_cursor=found.next_cursor)

    @router.get("/{run_id}")
    def get_run(run_id: RunId) -> RunDetail:
        """One run, as its folder tells it."""
        path, record = here.opened(store, run_id)
        last: dict[str, Any] = {}
        for line in last_json_lines(path / "metrics.jsonl"):
            last.update(line)
        running = record.state is RunState.RUNNING
        plan, config = here.json_of(path / "plan.json"), here.yaml_of(path / "config.yaml")
        told = {
            **vars(record),
            "folder": str(path),
            "config": config if isinstance(config, dict) else None,
            "derived": plan if isinstance(plan, list) else [],
            "last": last,
            "stopping": running and headway.is_ending(path),
            "progress": vars(far) if running and (far := headway.read(path, last)) else None,
            "provenance": provenance.read(path),
            "note": here.text_of(path / "note.md"),
        }
        return RunDetail.model_validate(clean(told))

    for name in find.names(PARTS):
        part = find.load(PARTS, name, "part of a run").routes(store)
        router.include_router(part, prefix=f"/{{run_id}}/{name.replace('_', '-')}")
    return router
