"""Samples of a run: what it showed of itself over the steps, as text or as images."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from melete.api import here, paging, run_files
from melete.api.clean import text
from melete.api.here import RunId
from melete.api.records import Sample
from melete.api.store import Asked, Listed, Store, Text

NAMED = re.compile(r"(\d{1,15})_(.+)\.\w+")
SHOWN_CHARACTERS = 6_000


class SampleAsked(Asked):
    """Which samples."""

    name: Text | None = Field(None, description="Only those of this name.", examples=["text"])


def routes(store: Store) -> APIRouter:
    """A list, the newest step first."""
    router = APIRouter()

    @router.get("")
    def list_run_samples(run_id: RunId, asked: Annotated[SampleAsked, Query()]) -> Listed[Sample]:
        """List samples of a run, the newest step first; images are at the path that `file` gives."""
        path, _ = here.opened(store, run_id)
        names = [
            (match, entry)
            for entry in _names(path / "samples")
            if (match := NAMED.fullmatch(entry)) and asked.name in (None, text(match[2]))
        ]
        found = paging.page(
            names,
            lambda one: f"{int(one[0][1]):015d} {one[1]}",
            of=f"samples {run_id} {asked.name or ''}",
            limit=asked.limit,
            cursor=asked.cursor,
            newest_first=True,
        )
        data = [_sample(path, int(match[1]), match[2], entry) for match, entry in found.data]
        return Listed[Sample](object="list", data=[one for one in data if one], next_cursor=found.next_cursor)

    return router


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _sample(run: Path, step: int, name: str, entry: str) -> Sample | None:
    """One sample; None where the file may not be seen or is gone by now."""
    path = f"samples/{entry}"
    found = run_files.located(run, path)
    if found is None:
        return None
    file = run_files.described(path, found.stat())
    shown = None
    if file.media_type.startswith("text/"):
        with found.open(encoding="utf-8", errors="replace") as opened:
            shown = text(opened.read(SHOWN_CHARACTERS + 1), SHOWN_CHARACTERS)
    return Sample(
        step=step, name=text(name), file=file.path, bytes=file.bytes, media_type=file.media_type, text=shown
    )
