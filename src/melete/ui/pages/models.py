"""Models: what was trained here, from its data to where it is deployed; deploying, going back a version, downloads.

GET  /models                              all models, the agents made of them, and how they hang together
GET  /models/ID                           one model: its checkpoints, lineage, config; chat, evaluate, deploy
POST /models/ID/deploy                    the form's values; the form comes back with what was refused
GET  /models/deployments/NAME             an agent: its versions, guard, criteria, how to use it
POST /models/deployments/NAME/roll-back   the version before
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from melete.ui import lineage
from melete.ui.app import Refusal, Ui
from melete.ui.page import Page

PAGE = Page(
    "Models", "/models", order=60, icon="models", key="m", summary="Trained models, and agents made of them.",
    finds="/models",
)  # fmt: skip
DRAWN = 40
"""Models of a list that are drawn."""


def routes(ui: Ui) -> APIRouter:
    """The pages, their parts, and what their forms do."""
    router = APIRouter()

    @router.get("/models")
    async def models(request: Request, kind: str = "", cursor: str = "") -> Response:
        return ui.page(request, "models/list.html", **await _listed(ui, request, kind, cursor))

    @router.get("/parts/models/table")
    async def table(request: Request, kind: str = "", cursor: str = "") -> Response:
        return ui.part(request, "models/_list.html", **await _listed(ui, request, kind, cursor))

    @router.get("/parts/models/terms")
    async def terms(request: Request, scenario: str = "") -> Response:
        """What an agent of a scenario is held to, for the form."""
        found = await ui.get_or(request, f"/scenarios/{quote(scenario)}", None) if scenario else None
        return ui.part(request, "models/_terms.html", terms=found)

    @router.get("/models/deployments/{name}")
    async def deployment(request: Request, name: str, version: str = "") -> Response:
        return ui.page(request, "models/deployment.html", **await _deployment(ui, request, name, version))

    @router.post("/models/deployments/{name}/roll-back")
    async def roll_back(request: Request, name: str) -> Response:
        made = await ui.send(request, "POST", f"/deployments/{quote(name)}/roll-back")
        return ui.gone_to(request, f"/models/deployments/{quote(name)}", f"{made['id']} is in use.")

    @router.get("/models/{model_id}")
    async def model(request: Request, model_id: str) -> Response:
        return ui.page(request, "models/model.html", **await _model(ui, request, model_id))

    @router.post("/models/{model_id}/deploy")
    async def deploy(
        request: Request, model_id: str, name: str = Form(""), checkpoint: str = Form(""), step: str = Form("minor"),
        scenario: str = Form(""), copy_weights: bool = Form(False),
    ) -> Response:  # fmt: skip
        asked: dict[str, Any] = {"name": name.strip(), "scenario": scenario, "copy_weights": copy_weights}
        version = await _major(ui, request, asked["name"]) if step == "major" else ""
        try:
            made = await ui.send(
                request,
                "POST",
                "/deployments",
                {**asked, "model": checkpoint or model_id, "version": version},
            )
        except Refusal as refusal:
            shown = await _model(ui, request, model_id)
            sent = {**asked, "checkpoint": checkpoint, "step": step}
            shown |= {"sent": sent, "problem": refusal.error.get("message", "")}
            if "hx-request" in request.headers:
                return ui.part(request, "models/_deploy.html", **shown)
            return ui.page(request, "models/model.html", status=refusal.status, **shown)
        return ui.gone_to(request, f"/models/deployments/{quote(made['name'])}", f"{made['id']} is deployed.")

    return router


async def _listed(ui: Ui, request: Request, kind: str, cursor: str) -> dict[str, Any]:
    """Models, deployed agents, and both as one drawing."""
    found, agents = await asyncio.gather(
        ui.get(request, "/models", kind=kind, cursor=cursor, limit=50),
        ui.get(request, "/deployments", limit=100),
    )
    query = urlencode({"kind": kind}) if kind else ""
    part = "/parts/models/table" + (f"?{query}" if query else "") if not cursor else ""
    return {
        "models": found, "agents": agents["data"], "drawing": lineage.drawing(graph(found["data"][:DRAWN])),
        "run": {"id": ""}, "kind": kind, "query": query, "part": part,
    }  # fmt: skip


def graph(models: list[dict[str, Any]]) -> dict[str, Any]:
    """Models with what they are made of and what was made of them, as nodes and edges of a lineage."""
    nodes: dict[str, dict[str, Any]] = {}
    edges: set[tuple[str, str]] = set()

    def node(node_id: str, label: str = "") -> str:
        kind, _, name = node_id.partition(":")
        known = nodes.setdefault(
            node_id, {"id": node_id, "kind": kind, "name": name, "label": label, "missing": False}
        )
        known["label"] = known["label"] or label
        return node_id

    for model in models:
        run = node(f"run:{model['id']}", model["process"])
        edges.add((run, node(f"checkpoint:{model['newest']['id']}")))
        for source in model["made_of"]:
            edges.add((node(source), run))
            if source.startswith("checkpoint:"):
                edges.add((node(f"run:{source.partition(':')[2].rpartition(':')[0]}"), source))
        for made in model["deployments"]:
            saved = node(f"checkpoint:{made['checkpoint']}")
            edges |= {
                (run, saved),
                (saved, node(f"deployment:{made['id']}", "in use" if made["active"] else "")),
            }
    return {
        "nodes": list(nodes.values()),
        "edges": [{"source": source, "target": target} for source, target in sorted(edges)],
    }


async def _model(ui: Ui, request: Request, model_id: str) -> dict[str, Any]:
    """One model, its run, and what its form offers."""
    model = await ui.get(request, f"/models/{quote(model_id)}")
    run, scenarios, agents = await asyncio.gather(
        ui.get(request, f"/runs/{quote(model['id'])}"),
        ui.get_or(request, "/scenarios", {"data": []}, limit=100),
        ui.get_or(request, "/deployments", {"data": []}, limit=100),
    )
    practised = (run["config"] or {}).get("scenario") or ""
    terms = await ui.get_or(request, f"/scenarios/{quote(practised)}", None) if practised else None
    return {
        "model": model, "run": run, "drawing": lineage.drawing(model["lineage"]), "practised": practised,
        "terms": terms,
        "scenarios": [one["name"] for one in scenarios["data"]], "agents": [one["name"] for one in agents["data"]],
        "may_deploy": ui.may(request, "/api/v1/deployments"), "sent": None, "problem": "",
    }  # fmt: skip


async def _deployment(ui: Ui, request: Request, name: str, version: str) -> dict[str, Any]:
    """An agent with all its versions; shown in full is the one that was asked for, or the one in use."""
    path = f"/deployments/{quote(name)}"
    agent = await ui.get(request, path)
    versions = await asyncio.gather(
        *(ui.get(request, f"{path}/versions/{one}") for one in reversed(agent["versions"]))
    )
    wanted = version if version in agent["versions"] else agent["version"]
    shown = next(one for one in versions if one["version"] == wanted)
    return {
        "agent": agent, "versions": versions, "shown": shown, "guard": json.dumps(shown["guard"], indent=1),
        "base": str(request.base_url).rstrip("/"), "may_deploy": ui.may(request, "/api/v1/deployments"),
    }  # fmt: skip


async def _major(ui: Ui, request: Request, name: str) -> str:
    """The next major version of an agent; where its name is not known yet, the first."""
    agent = await ui.get_or(request, f"/deployments/{quote(name)}", None) if name else None
    if agent is None:
        return "1.0" if name else ""
    return f"{max(int(one.partition('.')[0]) for one in agent['versions']) + 1}.0"
