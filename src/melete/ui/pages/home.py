"""Home: what runs now, devices and memory, the queue, the latest results, and what to do first.

All of it is one live part. A running run is asked for its progress; of the others the list says enough.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui.app import Ui
from melete.ui.page import Page

PAGE = Page("Home", "/", order=10, icon="home", key="h", summary="What runs now, and what came out last.")
SHOWN_RUNNING = 6
SHOWN_JOBS = 5
SHOWN_RESULTS = 8
EMPTY: dict[str, Any] = {"data": []}


def routes(ui: Ui) -> APIRouter:
    """The page and its live part."""
    router = APIRouter()

    @router.get("/")
    async def home(request: Request) -> Response:
        return ui.page(request, "home/home.html", **await _now(ui, request))

    @router.get("/parts/home/now")
    async def now(request: Request) -> Response:
        return ui.part(request, "home/_now.html", **await _now(ui, request))

    return router


async def _now(ui: Ui, request: Request) -> dict[str, Any]:
    """What the page shows."""

    async def some(path: str, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await ui.get_or(request, path, EMPTY, **query))["data"]
        return found

    status = await ui.get(request, "/status")
    running, active, queued, workers, live, deployed = await asyncio.gather(
        _running(ui, request, status),
        some("/jobs", state="running", limit=SHOWN_JOBS),
        some("/jobs", state="queued", limit=SHOWN_JOBS),
        some("/workers", limit=SHOWN_JOBS),
        some("/sessions", state="live", limit=SHOWN_JOBS),
        some("/deployments", limit=SHOWN_JOBS),
    )
    # The next of the queue is the one of highest priority that came first.
    waiting = sorted(queued, key=lambda job: (-job["priority"], job["created_s"]))
    ended = [run for run in status["latest"] if run["state"] not in ("running", "queued")]
    return {
        "lab": status,
        "running": running,
        "jobs": [*active, *waiting][:SHOWN_JOBS],
        "job_counts": status["jobs"],
        "workers": workers,
        "sessions": live,
        "deployments": deployed,
        "results": ended[:SHOWN_RESULTS],
        "fresh": not status["latest"] and not status["jobs"],
    }


async def _running(ui: Ui, request: Request, status: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs that run, with their progress; one that ends meanwhile stays as the list has it."""
    shown = status["running"][:SHOWN_RUNNING]
    details = await asyncio.gather(*(ui.get_or(request, f"/runs/{run['id']}", {}) for run in shown))
    return [
        {"progress": None, "started_s": None, **run, **more} for run, more in zip(shown, details, strict=True)
    ]
