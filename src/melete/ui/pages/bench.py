"""Bench: experiments and how far they are, live sessions, each request of a session, and paired comparisons.

/bench                       the gateway, live sessions, experiments
/bench/experiments/ID        one text of an experiment: its variants, sessions by state, its report
/bench/sessions, …/ID        sessions by any filter; one with the waterfall of its requests
/bench/requests/ID           one request, and what the witnesses said of it
/bench/compare               two variants, or an experiment against its baseline
/bench/texts/KIND, …/ID      what config files said when they were in force
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from melete.ui.app import Refusal, Ui
from melete.ui.page import Command, Page

PAGE = Page(
    "Bench",
    "/bench",
    order=80,
    icon="bench",
    key="b",
    summary="Experiments, live sessions, requests, comparisons.",
    commands=(Command("Compare variants", "/bench/compare", "Paired differences with intervals."),),
    finds="/experiments",
    finds_at="/bench/experiments",
)
KINDS = ("variants", "harness-profiles", "providers", "task-cards", "experiments")
LIVE = ("live", "created")
MOST_LIVE = 30
EXPERIMENTS = 10
REQUESTS = 100
SESSION_FILTERS = ("experiment", "variant", "task_card", "state", "kind", "model", "solved")
COMPARED = ("before", "after", "experiment")


def routes(ui: Ui) -> APIRouter:
    """The pages and their live parts."""
    router = APIRouter()

    @router.get("/bench")
    async def bench(request: Request) -> Response:
        now, listed = await asyncio.gather(_now(ui, request), _experiments(ui, request))
        return ui.page(request, "bench/bench.html", kinds=KINDS, **now, **listed)

    @router.get("/parts/bench/now")
    async def now(request: Request) -> Response:
        return ui.part(request, "bench/_now.html", **await _now(ui, request))

    @router.get("/parts/bench/experiments")
    async def experiments(request: Request) -> Response:
        return ui.part(request, "bench/_experiments.html", **await _experiments(ui, request))

    @router.get("/bench/experiments/{entity_id:path}")
    async def experiment(request: Request, entity_id: str) -> Response:
        return ui.page(request, "bench/experiment.html", **await _experiment(ui, request, entity_id))

    @router.get("/parts/bench/progress/{entity_id:path}")
    async def progress(request: Request, entity_id: str) -> Response:
        found = await ui.get(request, f"/experiments/{entity_id}/progress")
        return ui.part(request, "bench/_progress.html", progress=found)

    @router.get("/bench/sessions")
    async def sessions(request: Request) -> Response:
        return ui.page(request, "bench/sessions.html", **await _sessions(ui, request))

    @router.get("/bench/sessions/{session_id}")
    async def session(request: Request, session_id: str) -> Response:
        return ui.page(request, "bench/session.html", **await _session(ui, request, session_id))

    @router.get("/parts/bench/sessions/{session_id}")
    async def session_part(request: Request, session_id: str) -> Response:
        return ui.part(request, "bench/_session.html", **await _session(ui, request, session_id))

    @router.get("/bench/requests/{request_id}")
    async def one_request(request: Request, request_id: str) -> Response:
        found, events = await asyncio.gather(
            ui.get(request, f"/requests/{request_id}"),
            ui.get(request, f"/requests/{request_id}/events", limit=100),
        )
        return ui.page(request, "bench/request.html", one=found, events=events["data"])

    @router.get("/bench/compare")
    async def compare(request: Request) -> Response:
        return ui.page(request, "bench/compare.html", **await _comparison(ui, request))

    @router.get("/parts/bench/report")
    async def report(request: Request) -> Response:
        return ui.part(request, "bench/_comparison.html", **await _report(ui, request))

    @router.get("/bench/texts/{kind}")
    async def texts(request: Request, kind: str) -> Response:
        listed = await ui.get(request, f"/{_kind(kind)}", limit=50, cursor=request.query_params.get("cursor"))
        return ui.page(request, "bench/texts.html", kind=kind, kinds=KINDS, listed=listed)

    @router.get("/bench/texts/{kind}/{entity_id:path}")
    async def one_text(request: Request, kind: str, entity_id: str) -> Response:
        found = await ui.get(request, f"/{_kind(kind)}/{entity_id}")
        return ui.page(request, "bench/text.html", kind=kind, entity=found)

    return router


def _kind(kind: str) -> str:
    if kind not in KINDS:
        raise HTTPException(404, "There are no such texts.")
    return kind


async def _now(ui: Ui, request: Request) -> dict[str, Any]:
    """The gateway, and the sessions that run or wait for their first request."""
    gateway, *found = await asyncio.gather(
        ui.get(request, "/gateway"),
        *(ui.get(request, "/sessions", state=state, limit=MOST_LIVE) for state in LIVE),
    )
    live = [session for page in found for session in page["data"]][:MOST_LIVE]
    return {"gateway": gateway, "live": live, "traffic": await _traffic(ui, request, live)}


async def _traffic(ui: Ui, request: Request, sessions: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What each session has sent so far, by its id."""
    if not sessions:
        return {}
    found = await ui.get(request, "/traffic", sessions=",".join(one["id"] for one in sessions))
    return {row["session_id"]: row for row in found["data"]}


async def _experiments(ui: Ui, request: Request) -> dict[str, Any]:
    cursor = request.query_params.get("cursor")
    listed = await ui.get(request, "/experiments", limit=EXPERIMENTS, cursor=cursor)
    found = await asyncio.gather(
        *(ui.get(request, f"/experiments/{one['id']}/progress") for one in listed["data"])
    )
    rows = [{**one, "progress": progress} for one, progress in zip(listed["data"], found, strict=True)]
    return {"experiments": rows, "next_cursor": listed["next_cursor"]}


async def _experiment(ui: Ui, request: Request, entity_id: str) -> dict[str, Any]:
    one = await ui.get(request, f"/experiments/{entity_id}")
    progress, sessions, artifacts = await asyncio.gather(
        ui.get(request, f"/experiments/{entity_id}/progress"),
        ui.get(request, "/sessions", experiment=entity_id, limit=10),
        ui.get(request, "/artifacts", experiment=entity_id, limit=20),
    )
    return {
        "experiment": one, "progress": progress, "sessions": sessions["data"], "artifacts": artifacts["data"],
        "traffic": await _traffic(ui, request, sessions["data"]),
        "is_live": any(progress["states"].get(state) for state in LIVE),
    }  # fmt: skip


async def _report(ui: Ui, request: Request) -> dict[str, Any]:
    """A comparison, or why there is none; it may take seconds, so a page asks for it when it stands."""
    wanted = {name: request.query_params.get(name, "") for name in COMPARED}
    try:
        report = await ui.get(request, "/comparisons", **wanted)
    except Refusal as refused:
        return {"report": None, "problem": refused.error["message"], "spans": {}, "wanted": wanted}
    return {"report": report, "problem": "", "spans": _spans(report), "wanted": wanted}


def _spans(report: dict[str, Any]) -> dict[str, float]:
    """For each drawn difference how far its axis reaches: the largest end that is known."""
    spans: dict[str, float] = {}
    for found in report["comparisons"]:
        for row in found["differences"]:
            known = [abs(row[name]) for name in ("difference", "low", "high") if row[name] is not None]
            spans[f"{found['after']} {row['metric']}"] = 1.15 * max(known, default=0.0)
    return spans


async def _sessions(ui: Ui, request: Request) -> dict[str, Any]:
    wanted = {name: request.query_params.get(name, "") for name in SESSION_FILTERS}
    listed = await ui.get(request, "/sessions", **wanted, limit=30, cursor=request.query_params.get("cursor"))
    query = urlencode({name: value for name, value in wanted.items() if value})
    traffic = await _traffic(ui, request, listed["data"])
    return {"wanted": wanted, "listed": listed, "query": query, "traffic": traffic}


async def _session(ui: Ui, request: Request, session_id: str) -> dict[str, Any]:
    session, listed, figures, metrics = await asyncio.gather(
        ui.get(request, f"/sessions/{session_id}"),
        ui.get(
            request,
            "/requests",
            session=session_id,
            limit=REQUESTS,
            cursor=request.query_params.get("cursor"),
        ),
        ui.get(request, "/rollups", scope="session", scope_id=session_id, limit=100),
        ui.get(request, "/metrics"),
    )
    requests = sorted(listed["data"], key=lambda one: one["started_s"])
    begun_s = min((one["started_s"] for one in requests), default=0.0)
    ended_s = max((one["ended_s"] or one["started_s"] for one in requests), default=0.0)
    return {
        "session": session, "requests": requests, "next_cursor": listed["next_cursor"], "figures": figures["data"],
        "metrics": {one["name"]: one for one in metrics["data"]}, "begun_s": begun_s,
        "span_s": max(ended_s - begun_s, 1e-3), "traffic": await _traffic(ui, request, [session]),
        "is_live": session["state"] in LIVE,
    }  # fmt: skip


async def _comparison(ui: Ui, request: Request) -> dict[str, Any]:
    wanted = {name: request.query_params.get(name, "") for name in COMPARED}
    variants, experiments = await asyncio.gather(
        ui.get(request, "/variants", limit=200), ui.get(request, "/experiments", limit=200)
    )
    names = {key: list(dict.fromkeys(one["name"] for one in page["data"])) for key, page in
             (("variants", variants), ("experiments", experiments))}  # fmt: skip
    query = urlencode({name: value for name, value in wanted.items() if value})
    return {"wanted": wanted, "query": query, **names}
