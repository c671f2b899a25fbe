"""Runs: the list, and each run with its curves, samples, log, config, provenance, checkpoints, files and lineage."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import yaml
from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from melete.api.ask import ask
from melete.ui import lineage, samples, scores
from melete.ui.app import Refusal, Ui
from melete.ui.page import Page

PAGE = Page(
    "Runs",
    "/runs",
    order=30,
    icon="runs",
    key="r",
    summary="What was executed: curves, samples, logs.",
    finds="/runs",
)
STATES = ("queued", "running", "succeeded", "failed", "stopped", "lost")
TABS = ("Curves", "Samples", "Log", "Config", "Provenance", "Checkpoints", "Files", "Lineage")
FILTERS = ("search", "process", "state", "job", "since", "until")
IMAGES = ("png", "jpg", "jpeg", "webp", "gif")
SHOWN_BYTES = 200_000
"""Of a text file, in its preview."""
DAY_S = 86_400


def routes(ui: Ui) -> APIRouter:
    """The list, one run, and the parts of both that change."""
    router = APIRouter()

    @router.get("/runs")
    async def run_list(request: Request) -> Response:
        asked = _filters(request)
        found, processes = await asyncio.gather(
            _listed(ui, request, asked), ui.get(request, "/processes", limit=200)
        )
        return ui.page(
            request,
            "runs/list.html",
            runs=found,
            asked=dict.fromkeys(FILTERS, "") | asked,
            filtered=bool(asked),
            processes=[process["name"] for process in processes["data"]],
            states=STATES,
            query=urlencode({name: value for name, value in asked.items() if name != "cursor"}),
            part=f"/parts/runs/list?{urlencode(asked)}",
        )

    @router.get("/parts/runs/list")
    async def run_list_part(request: Request) -> Response:
        asked = _filters(request)
        return ui.part(
            request, "runs/_list.html", runs=await _listed(ui, request, asked), filtered=bool(asked)
        )

    @router.get("/runs/{run_id}")
    async def one_run(request: Request, run_id: str, tab: str = "curves") -> Response:
        path = f"/runs/{run_id}"
        run, note = await asyncio.gather(ui.get(request, path), ui.get(request, f"{path}/note"))
        run["name"] = called(run)
        chosen = next((name for name in TABS if name.lower() == tab.lower()), TABS[0])
        values = await _tab(ui, request, run, chosen)
        return ui.page(
            request, "runs/run.html", run=run, note=note, tab=chosen, tabs=TABS, head=_head(run), **values
        )

    @router.get("/parts/runs/{run_id}/head")
    async def run_head(request: Request, run_id: str) -> Response:
        run = await ui.get(request, f"/runs/{run_id}")
        return ui.part(request, "runs/_head.html", run=run, head=_head(run))

    @router.get("/parts/runs/{run_id}/samples")
    async def run_samples(
        request: Request,
        run_id: str,
        name: str | None = None,
        at: int | None = None,
        step: int | None = None,
        diff: bool = False,
    ) -> Response:
        found = await samples.of_run(ui, request, run_id)
        shown = samples.texts(found, name, at, step, diff)
        return ui.part(
            request,
            "runs/_samples.html",
            shown=shown,
            images=samples.images(found),
            run={"id": run_id},
            diff=diff,
        )

    @router.post("/runs/{run_id}/stop")
    async def stop(request: Request, run_id: str) -> Response:
        run = await ui.get(request, f"/runs/{run_id}")
        try:
            await ui.send(request, "POST", f"/runs/{run_id}/stop")
        except Refusal as refusal:
            if refusal.error.get("code") != "of_a_job":
                raise
            await ui.send(request, "POST", f"/jobs/{run['job']}/stop")
        if "hx-request" not in request.headers:
            return RedirectResponse(f"/runs/{quote(run_id)}", 303)
        answer = ui.part(request, "runs/_head.html", run={**run, "stopping": True}, head=_head(run))
        answer.headers["HX-Trigger"] = json.dumps({"toast": f"{called(run)} saves a checkpoint and ends."})
        return answer

    return router


def _filters(request: Request) -> dict[str, str]:
    given = request.query_params
    return {name: given[name].strip() for name in (*FILTERS, "cursor") if given.get(name, "").strip()}


async def _listed(ui: Ui, request: Request, asked: dict[str, str]) -> dict[str, Any]:
    """A page of runs."""
    query: dict[str, Any] = {name: asked.get(name) for name in (*FILTERS, "cursor")}
    query["since_s"], query["until_s"] = _day(query.pop("since")), _day(query.pop("until"), days=1)
    found: dict[str, Any] = await ui.get(request, "/runs", limit=50, **query)
    return found


def _day(text: str | None, days: int = 0) -> float | None:
    """When a day begins here, so many days later; None for no day.

    Raises:
        Refusal: it is no day.
    """
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").timestamp() + days * DAY_S
    except ValueError:
        raise Refusal(400, {"message": f"{text[:40]} is no day. A day is written as 2026-11-20."}) from None


def called(run: dict[str, Any]) -> str:
    """What people call a run: its name, its name in its job, or its id."""
    return str(run["name"] or run["step_name"] or run["id"])


def _head(run: dict[str, Any]) -> dict[str, Any]:
    """How far a run is: step, total, throughput, time left, what continues it."""
    last = run["last"]
    step, total = last.get("step"), _total(run)
    ended = run["state"] == "succeeded" and total is not None and step == total - 1
    begun_s, progress = run["started_s"], run["progress"] or {}
    done = None if step is None or not total else min(1.0, step / total)
    return {
        "step": total if ended else step,
        "total": total,
        "done": 1.0 if run["state"] == "succeeded" else done,
        "left_s": progress.get("left_s"),
        "took_s": ((run["ended_s"] or time.time()) - begun_s) if begun_s else None,
        "rate": next(((key, value) for key, value in last.items() if key.endswith("_per_s") and value), None),
        "resume": f"melete runs resume {run['id']}"
        if run["state"] in ("stopped", "failed", "lost")
        else None,
    }


def _total(run: dict[str, Any]) -> int | None:
    """Steps of the whole run, from its config or what follows from it."""
    given = (run["config"] or {}).get("steps")
    for value in (
        given,
        *(row["value"].replace(",", "") for row in run["derived"] if row["name"] == "steps"),
    ):
        if str(value).isdecimal() and int(value) > 0:
            return min(int(value), run["limit_batches"] or int(value))
    return None


async def _tab(ui: Ui, request: Request, run: dict[str, Any], tab: str) -> dict[str, Any]:
    """What a tab shows besides the run itself."""
    path = f"/runs/{run['id']}"
    query = request.query_params
    if tab == "Curves":
        return await _curves(ui, request, run)
    if tab == "Samples":
        diff = query.get("diff") == "1"
        found = await samples.of_run(ui, request, run["id"])
        shown = samples.texts(
            found, query.get("name"), _number(query.get("at")), _number(query.get("step")), diff
        )
        return {"shown": shown, "images": samples.images(found), "diff": diff}
    if tab == "Config":
        text = yaml.safe_dump(run["config"] or {}, sort_keys=False, allow_unicode=True, width=100)
        return {"config_text": text, "again": await _again(ui, request, run)}
    if tab == "Checkpoints":
        found = await ui.get(request, "/checkpoints", run=run["id"], limit=200)
        return {"checkpoints": found["data"]}
    if tab == "Files":
        found = await ui.get(request, f"{path}/files", limit=200, cursor=query.get("cursor"))
        for one in found["data"]:
            one["folder"] = one["path"].rpartition("/")[0]
        return {"files": found, "file": await _file(ui, request, path, query.get("file"))}
    if tab == "Lineage":
        return {"drawing": lineage.drawing(await ui.get(request, f"{path}/lineage"))}
    return {}


async def _curves(ui: Ui, request: Request, run: dict[str, Any]) -> dict[str, Any]:
    """The run with those that are laid over it, and others that could be."""
    wanted = [one for given in request.query_params.getlist("with") for one in given.split(",")]
    wanted = list(dict.fromkeys(one for one in wanted if one and one != run["id"]))[:7]
    others = (await ui.get(request, "/runs", process=run["process"], limit=20))["data"]
    told = {run["id"]: {"name": called(run), "begun_s": run["started_s"]}}
    for one in wanted:
        over = await ui.get_or(request, f"/runs/{one}", None)
        if over is not None:
            told[one] = {"name": called(over), "begun_s": over["started_s"]}
    return {
        "ids": list(told),
        "about": json.dumps(told),
        "told": told,
        "scores": scores.told(scores.of_result(run["result"])),
        "others": [one for one in others if one["id"] != run["id"] and one["folder"] == "here"],
    }


async def _again(ui: Ui, request: Request, run: dict[str, Any]) -> dict[str, Any]:
    """What starts it again: the values that are not the defaults, as a job file and as a command line."""
    process = await ui.get_or(request, f"/processes/{run['process']}", None)
    if process is None or not run["config"]:
        return {"text": None, "command": None}
    values = {
        key: value for key, value in run["config"].items() if key in process["options"].get("properties", {})
    }
    body = {"config": values, "limit_batches": run["limit_batches"]}
    try:
        made: dict[str, Any] = await ui.send(request, "POST", f"/processes/{run['process']}/job", body)
    except Refusal:
        return {"text": None, "command": None}
    return made


async def _file(ui: Ui, request: Request, path: str, name: str | None) -> dict[str, Any] | None:
    """A file to look at: an image by its address, of a text the beginning.

    Raises:
        Refusal: there is no such file.
    """
    if not name:
        return None
    shown: dict[str, Any] = {
        "name": name,
        "href": f"/api/v1{path}/files/{quote(name)}",
        "kind": "text",
        "text": "",
        "cut": False,
    }
    if name.rpartition(".")[2].lower() in IMAGES:
        return {**shown, "kind": "image"}
    answer = await ask(
        ui.api,
        "GET",
        f"{path}/files/{name}",
        who=getattr(request.state, "who", None),
        headers={"range": f"bytes=0-{SHOWN_BYTES - 1}"},
    )
    if answer.status == 416:  # an empty file has no first byte
        return shown
    if not answer.ok:
        raise Refusal(answer.status, answer.json().get("error", {}))
    if not answer.headers["content-type"].startswith(("text/", "application/json", "application/yaml")):
        return {**shown, "kind": "binary"}
    text = answer.body.decode("utf-8", "replace")
    if name.endswith(".json"):
        with suppress(ValueError, RecursionError):
            text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return {**shown, "text": text, "cut": len(answer.body) == SHOWN_BYTES}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 16 else None
