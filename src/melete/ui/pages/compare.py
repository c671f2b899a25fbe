"""Compare: runs side by side, with their config differences, curves, scores, samples and provenance."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui import samples, scores
from melete.ui.app import Refusal, Ui
from melete.ui.page import Page
from melete.ui.pages.runs import called

PAGE = Page("Compare", "/compare", order=35, icon="compare", key="x", summary="Runs side by side.")
MOST_RUNS = 8
SCORES = 8
"""Rows of scores before the fold, where fewer have intervals."""
MISSING = "–"


@dataclass(frozen=True)
class Row:
    """One name with its value in each run; None where a run has none."""

    name: str
    values: list[Any]

    @property
    def differs(self) -> bool:
        """Whether not all values are the same."""
        return any(value != self.values[0] for value in self.values)


def routes(ui: Ui) -> APIRouter:
    """The page and its samples."""
    router = APIRouter()

    @router.get("/compare")
    async def compare(request: Request) -> Response:
        wanted = asked(request)
        runs, problems = await read(ui, request, wanted[:MOST_RUNS])
        if len(wanted) > MOST_RUNS:
            problems.append(f"{len(wanted)} runs were given; the first {MOST_RUNS} are shown.")
        everything = request.query_params.get("all") == "1"
        told = {run["id"]: {"name": run["name"], "begun_s": run["started_s"]} for run in runs}
        config = table([flat(run["config"] or {}) for run in runs])
        results = score_rows(runs)
        shown = max(SCORES, sum(has_interval(row) for _, row, *_ in results))
        return ui.page(
            request,
            "compare/compare.html",
            runs=runs,
            problems=problems,
            about=json.dumps(told),
            config=[row for row in config if everything or row.differs],
            same=sum(not row.differs for row in config),
            everything=everything,
            results=results[:shown],
            further=results[shown:],
            intervals=any(has_interval(row) for _, row, *_ in results),
            provenance=[row for row in table([origin(run) for run in runs]) if row.differs],
            others=await _others(ui, request, list(told)),
            query=lambda **changed: _query(list(told), everything, **changed),
            **await _samples(ui, request, list(told)),
        )

    @router.get("/parts/compare/samples")
    async def sample_part(request: Request) -> Response:
        runs, _ = await read(ui, request, asked(request)[:MOST_RUNS])
        values = await _samples(ui, request, [run["id"] for run in runs])
        return ui.part(request, "compare/_samples.html", runs=runs, **values)

    return router


def asked(request: Request) -> list[str]:
    """Ids of the runs to compare, joined by commas or repeated."""
    given = request.query_params.getlist("runs")
    return list(dict.fromkeys(part.strip() for text in given for part in text.split(",") if part.strip()))


async def read(ui: Ui, request: Request, wanted: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """The runs that can be read, in order, and what is wrong with the others."""

    async def one(run: str) -> dict[str, Any] | str:
        try:
            found: dict[str, Any] = await ui.get(request, f"/runs/{run}")
        except Refusal as refusal:
            return f"{run[:120]}: {refusal}"
        return {**found, "name": called(found)}

    found = await asyncio.gather(*(one(run) for run in wanted))
    return [run for run in found if isinstance(run, dict)], [text for text in found if isinstance(text, str)]


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Values by dotted names; lists stay whole."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return found


def table(columns: list[dict[str, Any]]) -> list[Row]:
    """All names of all columns, each with a value of every column."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        Row(name, [_said(column[name]) if name in column else MISSING for column in columns])
        for name in names
    ]


def origin(run: dict[str, Any]) -> dict[str, Any]:
    """What provenance says of the last sitting of a run, flat; packages that differ are rows of their own."""
    kept = run["provenance"] or {}
    sitting = (kept.get("sittings") or [{}])[-1]
    code = {f"code {number}": one for number, one in enumerate(sitting.get("code", []), 1)}
    return flat(
        {
            "process": run["process"],
            "seed": kept.get("seed"),
            "data": kept.get("datasets", {}),
            "python": sitting.get("python"),
            "platform": sitting.get("platform"),
            "machine": sitting.get("machine", {}),
            "package": sitting.get("packages", {}),
            **code,
        }
    )


def score_rows(runs: list[dict[str, Any]]) -> list[tuple[str, list[scores.Score | None], float, float]]:
    """Name, the score of each run, and the ends of the scale that their intervals are drawn on. Those with intervals
    come first, and among them those that more of the runs have."""
    each = [scores.of_result(run["result"]) for run in runs]
    rows = []
    for name in dict.fromkeys(name for found in each for name in found):
        row = [found.get(name) for found in each]
        ends = [
            end for score in row if score for end in (score.value, score.low, score.high) if end is not None
        ]
        low, high = min(0.0, *ends), max(ends)
        rows.append((name, row, low, high if high > low else low + 1.0))
    return sorted(rows, key=lambda one: (not has_interval(one[1]), one[1].count(None)))


def has_interval(row: list[scores.Score | None]) -> bool:
    """Whether any score of a row has one."""
    return any(score is not None and score.low is not None for score in row)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _query(runs: list[str], everything: bool, *, without: str = "", all: bool | None = None) -> str:
    shown = everything if all is None else all
    values = {"runs": ",".join(run for run in runs if run != without), **({"all": "1"} if shown else {})}
    return urlencode(values, safe=",")


async def _others(ui: Ui, request: Request, chosen: list[str]) -> list[dict[str, Any]]:
    """Runs that could be added."""
    found = (await ui.get(request, "/runs", limit=30))["data"]
    return [run for run in found if run["id"] not in chosen and run["folder"] == "here"]


async def _samples(ui: Ui, request: Request, runs: list[str]) -> dict[str, Any]:
    """The texts of one name at one step of all runs; of a run without that step, the last one before it."""
    each = await asyncio.gather(*(_of_run(ui, request, run) for run in runs))
    query = request.query_params
    names = list(dict.fromkeys(one["name"] for found in each for one in found if one["text"] is not None))
    name = query["name"] if query.get("name") in names else next(iter(names), "")
    steps = sorted({one["step"] for found in each for one in found if one["name"] == name})
    given = query.get("at", "")
    at = min(int(given), len(steps) - 1) if given.isdecimal() and len(given) < 9 and steps else len(steps) - 1
    shown = []
    for found in each:
        own = [
            one
            for one in found
            if one["name"] == name and one["text"] is not None and one["step"] <= steps[at]
        ]
        shown.append(own[-1] if own else None)
    return {"names": names, "name": name, "steps": steps, "at": at, "texts": shown}


async def _of_run(ui: Ui, request: Request, run: str) -> list[dict[str, Any]]:
    try:
        return await samples.of_run(ui, request, run)
    except Refusal:
        return []
