"""LiteLLM's database with the tables that its own migrations make, and its writer's insert."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from gateway_at_hand import need_litellm, settings_in
from melete.gateway import program
from melete.store import database
from postgres_at_hand import server


@contextmanager
def litellm_database() -> Iterator[Engine]:
    """A PostgreSQL database with the tables that LiteLLM's own migrations make; skips where one of both is missing."""
    folder = migrations()
    with server() as running:
        files = [part for file in sorted(folder.glob("*/migration.sql")) for part in ("-f", str(file))]
        psql = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(running.place), "-U", "melete", "postgres"]
        subprocess.run([*psql, *files], check=True, capture_output=True)
        engine = database.open_engine(running.url)
        yield engine
        engine.dispose()


def migrations() -> Path:
    """Folder of LiteLLM's migrations; skips where LiteLLM is not installed."""

    settings = settings_in(Path.cwd())
    need_litellm(settings)
    place = Path(program.find(settings).python).parent.parent
    return next(place.glob("lib/python3*/site-packages/litellm_proxy_extras/migrations"))


def insert(litellm: Engine, payload: dict[str, Any]) -> None:
    """Puts a row into LiteLLM's table as its own writer does."""
    columns = ", ".join(f'"{name}"' for name in payload)
    values = ", ".join(f":{name}" for name in payload)
    with litellm.begin() as connection:
        connection.execute(text(f'INSERT INTO "LiteLLM_SpendLogs" ({columns}) VALUES ({values})'), payload)
