"""A store with a small lab in it, for tests of what reads: two variants, twelve sessions, their requests and events."""

from __future__ import annotations

import json
import random
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from melete.gateway import entities, sessions
from melete.settings import Settings
from melete.store import database
from melete.store.models import ArtifactRow, MetricRollupRow, RequestEventRow, RequestRow

BEGUN_S = 1_795_000_000.0
"""When the first session was created."""
REQUESTS_PER_SESSION = 5


def request_row(session_id: str | None, started_s: float, **fields: Any) -> dict[str, Any]:
    """A request that went well, except for `fields`."""
    row = dict.fromkeys(RequestRow.__table__.columns.keys())
    row |= {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{session_id} {started_s}")), "session_id": session_id,
        "source": "hook", "endpoint": "chat", "stream": True, "model_asked": "small", "model_answered": "small-1",
        "deployment": "small", "provider": "openai", "status": "ok", "http_status": 200, "attempts": 1,
        "started_s": started_s, "ended_s": started_s + 0.4, "latency_ms": 400.0, "ttft_ms": 120.0, "tokens_in": 100,
        "tokens_cached": 40, "tokens_out": 20, "tokens_estimated": False, "cost_usd": 0.001, "cost_source": "config",
        "changed": ["num_retries"],
    }  # fmt: skip
    return {**row, **fields}


def fill(connection: Connection, begun_s: float = BEGUN_S) -> dict[str, list[str]]:
    """Writes the lab and returns the ids of its sessions by variant name."""
    chance = random.Random(4)
    profile = entities.record(connection, "harness_profile", "sdk", {"name": "sdk"})
    provider = entities.record(connection, "provider", "scripted", {"name": "scripted", "kind": "echo"})
    experiment = entities.record(connection, "experiment", "trial", {"name": "trial"})
    made: dict[str, list[str]] = {}
    for number, name in enumerate(("plain", "careful")):
        variant = entities.record(connection, "variant", name, {"name": name, "model": "small"})
        for attempt in range(6):
            card = entities.record(
                connection, "task_card", f"card{attempt % 3}", {"prompt": f"Task {attempt % 3}."}
            )
            created_s = begun_s + 100 * attempt + 50 * number
            opened = sessions.open_session(
                connection, created_s=created_s, state="finalised", experiment=experiment, variant=variant,
                task_card=card, attempt=attempt // 3, harness_profile=profile, provider=provider, model="small",
                started_s=created_s + 1, ended_s=created_s + 40, first_request_s=created_s + 2,
                last_request_s=created_s + 2 + 3 * (REQUESTS_PER_SESSION - 1), solved=(attempt + number) % 2 == 0,
                metadata={"host": "here"},
            )  # fmt: skip
            made.setdefault(name, []).append(opened.id)
            rows = []
            for at in range(REQUESTS_PER_SESSION):
                figures: dict[str, Any] = {
                    "latency_ms": chance.uniform(200, 2_000),
                    "ttft_ms": chance.uniform(50, 200),
                }
                if at == 3:
                    figures |= {
                        "status": "error",
                        "error_class": "rate_limit",
                        "http_status": 429,
                        "ttft_ms": None,
                    }
                rows.append(request_row(opened.id, created_s + 2 + 3 * at, **figures))
            connection.execute(insert(RequestRow), rows)
            connection.execute(
                insert(RequestEventRow),
                [
                    {"request_id": row["id"], "id": f"{row['id']}-{kind}", "kind": kind, "session_id": opened.id,
                     "time_s": row[time], "writer": "here:1:1", "fields": json.dumps({"stream": True})}
                    for row in rows for kind, time in (("begin", "started_s"), ("end", "ended_s"))
                ],
            )  # fmt: skip
            figure = {"scope": "session", "scope_id": opened.id, "metric": "cost", "value": 0.005, "count": 5}
            connection.execute(insert(MetricRollupRow), [figure])
    refused = {
        "status": "refused",
        "error_class": "refused_session",
        "model_asked": "no such model",
        "provider": None,
    }
    connection.execute(insert(RequestRow), [request_row(None, begun_s + 3, **refused)])
    connection.execute(
        insert(ArtifactRow),
        [{"id": "a-1", "session_id": None, "experiment": experiment, "kind": "report", "path": "trial.html",
          "sha256": "0" * 64, "bytes": 12, "created_s": begun_s}],
    )  # fmt: skip
    return made


@pytest.fixture(scope="session")
def lab_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the lab in it, made once; tests take a copy."""
    file = tmp_path_factory.mktemp("lab") / "melete.db"
    with database.connect(f"sqlite:///{file}") as connection:
        fill(connection)
    return file


@pytest.fixture
def lab(store: Settings, lab_file: Path) -> Settings:
    """Settings of a home whose database holds the lab; `store` gives SQLite and PostgreSQL."""
    if store.database.startswith("sqlite"):
        store.home.mkdir(parents=True)
        shutil.copy(lab_file, store.home / "melete.db")
        return store
    with database.connect(store.database) as connection:
        fill(connection)
    return store
