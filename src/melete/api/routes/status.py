"""Status: what runs now, the newest runs, devices, memory, disk and versions."""

from __future__ import annotations

import os
import time
from typing import Annotated, Literal

import sqlalchemy
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from melete.api import here, machine
from melete.api.records import Status
from melete.api.store import Store
from melete.records import RunState
from melete.store.models import JobRow, table

LATEST = 10
RUNNING = 50
JOB = table(JobRow)


class StatusAsked(BaseModel):
    """Nothing can be asked of it."""

    model_config = ConfigDict(extra="forbid")


def routes(store: Store) -> APIRouter:
    """One answer."""
    router, gpus, cpus = APIRouter(), machine.Gpus(), machine.Cpus()

    @router.get("")
    def get_status(asked: Annotated[StatusAsked, Query()]) -> Status:
        """What runs now, and on what."""
        with store.read() as connection:
            dialect: Literal["sqlite", "postgresql"] = (
                "postgresql" if connection.dialect.name == "postgresql" else "sqlite"
            )
            running = here.newest(store, connection, RUNNING, state=RunState.RUNNING)
            latest = here.newest(store, connection, LATEST)
            jobs = _jobs(store, connection)
        return Status(
            now_s=time.time(),
            host=machine.host(),
            home=str(store.settings.home),
            database=dialect,
            running=[run for run in running if run.state is RunState.RUNNING],
            latest=latest,
            jobs=jobs,
            cpu_count=machine.cpu_count(),
            cpu_percent=cpus.percent(),
            load=list(os.getloadavg()),
            memory=machine.memory(),
            disk=machine.disk(store.settings.home),
            gpus=gpus.now(),
            versions=machine.versions(),
        )

    return router


def _jobs(store: Store, connection: sqlalchemy.Connection) -> dict[str, int]:
    """Jobs of this home by state; a home without an id has none."""
    from melete.jobs.home import FILE, home_id

    if not (store.settings.home / FILE).is_file():
        return {}
    counted = sqlalchemy.select(JOB.c.state, sqlalchemy.func.count()).where(
        JOB.c.home == home_id(store.settings)
    )
    return {row[0]: row[1] for row in connection.execute(counted.group_by(JOB.c.state))}
