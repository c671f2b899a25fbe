"""Agents: scenarios with their terms, what practice changed, and every episode step by step.

/agents                                scenarios, latest practice, deployed agents
/agents/SCENARIO?tab=…                 its terms, tools, tasks and runs
/agents/runs/RUN?tab=…                 what a run proved, and its episodes
/agents/runs/RUN/episodes/ID#step=3    the player; beside=ID puts another episode next to it
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui.app import Refusal, Ui
from melete.ui.page import Command, Page
from melete.ui.pages.runs import called

PAGE = Page(
    "Agents",
    "/agents",
    order=70,
    icon="agents",
    key="a",
    summary="Scenarios, what practice changed, and episodes step by step.",
    commands=(
        Command("Practise a scenario", "/jobs/new?process=agents.train", "Learn until tool calls succeed."),
    ),
    finds="/scenarios",
)
TABS = ("about", "tools", "tasks", "runs")
RUN_TABS = ("proof", "episodes")
FILTERS = ("phase", "split", "decoding", "task", "name", "step", "solved", "failed", "stopped")
PROCESSES = ("agents.train", "agents.evaluate", "agents.demonstrate")
SCENARIOS = 100
SHOWN = {"runs": "runs", "deployments": "deployed"}
"""Where the episodes of a kind of thing are shown."""
FIGURES = "tool_reliability,success"


def routes(ui: Ui) -> APIRouter:
    """The pages and their live parts."""
    router = APIRouter()

    @router.get("/agents")
    async def agents(request: Request) -> Response:
        return ui.page(request, "agents/agents.html", **await _overview(ui, request))

    @router.get("/parts/agents/overview")
    async def overview(request: Request) -> Response:
        return ui.part(request, "agents/_overview.html", **await _overview(ui, request))

    @router.get("/agents/runs/{run_id}")
    async def run(request: Request, run_id: str) -> Response:
        return ui.page(request, "agents/run.html", **await _run(ui, request, run_id))

    @router.get("/parts/agents/runs/{run_id}")
    async def run_part(request: Request, run_id: str) -> Response:
        return ui.part(request, "agents/_run.html", **await _run(ui, request, run_id))

    @router.get("/agents/runs/{run_id}/episodes/{episode_id}")
    async def episode(request: Request, run_id: str, episode_id: str) -> Response:
        run = await ui.get(request, f"/runs/{run_id}")
        values = await _episode(ui, request, "runs", run_id, episode_id)
        return ui.page(request, "agents/episode.html", run=run, **values)

    @router.get("/agents/deployed/{name}")
    async def deployed(request: Request, name: str) -> Response:
        return ui.page(request, "agents/deployed.html", **await _deployment(ui, request, name))

    @router.get("/parts/agents/deployed/{name}")
    async def deployed_part(request: Request, name: str) -> Response:
        return ui.part(request, "agents/_episodes.html", **await _deployment(ui, request, name))

    @router.get("/agents/deployed/{name}/episodes/{episode_id}")
    async def deployed_episode(request: Request, name: str, episode_id: str) -> Response:
        values = await _episode(ui, request, "deployments", name, episode_id)
        return ui.page(request, "agents/episode.html", run=None, **values)

    @router.get("/agents/{name}")
    async def scenario(request: Request, name: str) -> Response:
        return ui.page(request, "agents/scenario.html", **await _scenario(ui, request, name))

    return router


async def _overview(ui: Ui, request: Request) -> dict[str, Any]:
    listed = await ui.get(request, "/scenarios", limit=SCENARIOS)
    cards = await asyncio.gather(*(_card(ui, request, one) for one in listed["data"]))
    trained, evaluated = await asyncio.gather(
        ui.get(request, "/practice", limit=8),
        ui.get(request, "/practice", process="agents.evaluate", limit=8),
    )
    runs = sorted([*trained["data"], *evaluated["data"]], key=lambda one: -one["created_s"])[:10]
    deployed = await ui.get(request, "/deployments", limit=20)
    return {"cards": cards, "runs": runs, "deployments": deployed["data"]}


async def _card(ui: Ui, request: Request, listed: dict[str, Any]) -> dict[str, Any]:
    """A scenario with its terms, or with what is wrong with its file."""
    try:
        return {**await ui.get(request, f"/scenarios/{listed['name']}"), "broken": None}
    except Refusal as refused:
        return {**listed, "broken": refused.error["message"]}


async def _scenario(ui: Ui, request: Request, name: str) -> dict[str, Any]:
    tab = _one_of(request, "tab", TABS)
    scenario = await ui.get(request, f"/scenarios/{name}")
    values: dict[str, Any] = {"scenario": scenario, "tab": tab, "tasks": None, "runs": {}, "split": ""}
    values["deployments"] = []
    if tab == "tasks" and not scenario["unavailable"]:
        values["split"] = _one_of(request, "split", tuple(scenario["splits"]))
        values["tasks"] = await ui.get(
            request,
            f"/scenarios/{name}/tasks",
            split=values["split"],
            limit=20,
            cursor=request.query_params.get("cursor"),
        )
    if tab == "runs":
        found = await asyncio.gather(
            *(ui.get(request, "/practice", process=process, scenario=name, limit=20) for process in PROCESSES)
        )
        values["runs"] = {process: page["data"] for process, page in zip(PROCESSES, found, strict=True)}
        values["deployments"] = await _deployed(ui, request, name)
    return values


async def _deployed(ui: Ui, request: Request, scenario: str) -> list[dict[str, Any]]:
    """Deployed agents whose version in use is of a scenario."""
    listed = (await ui.get(request, "/deployments", limit=50))["data"]
    paths = [f"/deployments/{one['name']}/versions/{one['version']}" for one in listed]
    found = await asyncio.gather(*(ui.get_or(request, path, None) for path in paths))
    return [one for one in found if one is not None and one["scenario"] == scenario]


async def _run(ui: Ui, request: Request, run_id: str) -> dict[str, Any]:
    tab = _one_of(request, "tab", RUN_TABS)
    path = f"/runs/{run_id}"
    run, proof = await asyncio.gather(ui.get(request, path), ui.get(request, f"{path}/proof"))
    run["name"] = called(run)
    listed = await _listed(ui, request, "runs", run_id, 30 if tab == "episodes" else 1)
    return {
        **listed, "run": run, "proof": proof, "tab": tab, "pairs": paired(proof["rows"]), "figures": FIGURES,
        "tools": sorted(paired(proof["tools"], "tool"), key=_calls),
        "live": run["state"] == "running" or not listed["episodes"]["complete"],
    }  # fmt: skip


async def _deployment(ui: Ui, request: Request, name: str) -> dict[str, Any]:
    deployment = await ui.get(request, f"/deployments/{name}")
    return {"deployment": deployment, **await _listed(ui, request, "deployments", name, 30)}


async def _listed(ui: Ui, request: Request, kind: str, name: str, limit: int) -> dict[str, Any]:
    """A page of the episodes of a run or a deployed agent, by the filters of the address."""
    wanted = {one: request.query_params.get(one, "") for one in FILTERS}
    asked = {**wanted, "cursor": request.query_params.get("cursor")} if limit > 1 else {}
    place = f"{SHOWN[kind]}/{quote(name)}"
    kept = {key: value for key, value in request.query_params.items() if key in (*FILTERS, "cursor", "tab")}
    return {
        "episodes": await ui.get(request, f"/{kind}/{name}/episodes", limit=limit, **asked),
        "wanted": wanted, "query": urlencode({key: value for key, value in wanted.items() if value}),
        "here": f"/agents/{place}", "topic": f"/parts/agents/{place}?{urlencode(kept)}",
    }  # fmt: skip


def paired(rows: list[dict[str, Any]], *further: str) -> list[dict[str, Any]]:
    """Rows of the same split and decoding (and what else is named), with those before and after beside each other."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in (*further, "split", "decoding"))
        empty = {"before": None, "after": None, "now": None}
        kept = found.setdefault(
            key, {**empty, **{name: row[name] for name in (*further, "split", "decoding")}}
        )
        kept[row["phase"]] = row
    return list(found.values())


def _calls(pair: dict[str, Any]) -> tuple[int, str]:
    """Orders tools: those that are called most first."""
    return -sum(pair[phase]["calls"] for phase in ("before", "after", "now") if pair[phase]), pair["tool"]


async def _episode(ui: Ui, request: Request, kind: str, name: str, episode_id: str) -> dict[str, Any]:
    path = f"/{kind}/{name}/episodes"
    first = await ui.get(request, f"{path}/{episode_id}", limit=1)
    beside_id = request.query_params.get("beside", "")
    beside = await ui.get(request, f"{path}/{beside_id}", limit=1) if beside_id else None
    others: list[dict[str, Any]] = []
    if first["task"]:
        found = await ui.get(request, path, task=first["task"], limit=20)
        others = [one for one in found["data"] if one["id"] != first["id"]]
    places = {"here": f"/agents/{SHOWN[kind]}/{quote(name)}", "api": f"/api/v1/{kind}/{quote(name)}"}
    return {"name": name, "episode": first, "beside": beside, "others": others, **places}


def _one_of(request: Request, name: str, allowed: tuple[str, ...]) -> str:
    """A parameter of the URL that is one of a few words; the first of them by default."""
    found = request.query_params.get(name, "")
    return found if found in allowed else allowed[0] if allowed else ""
