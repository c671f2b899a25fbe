"""Jobs: what is queued, runs and has ended; what can be asked of each; and one's account while it runs.

    GET  /jobs                    the queue and its workers, live
    GET  /jobs/ID                 one job: its processes, why each waits, its log and its file
    POST /jobs                    submits a text
    POST /jobs/ID/ACTION          pause, stop, kill, resume, retry (with changed values of one process)

Writing a new job is the page `job_new`, which stands before this one: its path could be a job's too. Everything is
asked of the API; the pages hold no state of their own.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from melete.ui import form
from melete.ui.app import Refusal, Ui
from melete.ui.page import Page

PAGE = Page(
    "Jobs",
    "/jobs",
    order=20,
    icon="jobs",
    key="j",
    summary="What is queued, what runs, what has ended.",
    finds="/jobs",
)
STATES = ("queued", "running", "paused", "succeeded", "failed", "stopped")
PAGE_SIZE = 25
SAID = {
    "pause": "pauses: what runs saves a checkpoint first.",
    "stop": "stops: what runs saves a checkpoint first.",
    "kill": "is killed.",
    "resume": "goes on from its newest checkpoints.",
    "retry": "is tried again.",
}
Action = Literal["pause", "stop", "kill", "resume", "retry"]


def routes(ui: Ui) -> APIRouter:
    """The pages, their live parts and what can be asked."""
    router = APIRouter()
    _add_list(router, ui)
    _add_one(router, ui)
    return router


def _add_list(router: APIRouter, ui: Ui) -> None:
    @router.get("/jobs")
    async def jobs(request: Request, state: str = "", name: str = "", cursor: str = "") -> Response:
        return ui.page(request, "jobs/list.html", **await _listed(ui, request, state, name, cursor))

    @router.get("/parts/jobs/table")
    async def table(request: Request, state: str = "", name: str = "", cursor: str = "") -> Response:
        return ui.part(request, "jobs/_table.html", **await _listed(ui, request, state, name, cursor))

    @router.get("/parts/jobs/workers")
    async def workers(request: Request) -> Response:
        return ui.part(request, "jobs/_workers.html", workers=(await ui.get(request, "/workers"))["data"])

    @router.post("/jobs")
    async def submit(
        request: Request, text: str = Form(""), priority: str = Form(""), limit_batches: str = Form("")
    ) -> Response:
        body: dict[str, Any] = {"text": text}
        for key, raw in (("priority", priority), ("limit_batches", limit_batches)):
            value = form.read(raw, "integer")
            body |= {} if value is form.REMOVE else {key: value}
        job = await ui.send(request, "POST", "/jobs", body)
        return ui.gone_to(request, f"/jobs/{job['id']}")


def _add_one(router: APIRouter, ui: Ui) -> None:
    @router.get("/jobs/{job_id}")
    async def job(request: Request, job_id: str, log: str = "") -> Response:
        found = await _one(ui, request, job_id)
        names = [one["name"] for one in found["job"]["steps"]]
        return ui.page(request, "jobs/job.html", **found, log=log if log in names else "", names=names)

    @router.get("/parts/jobs/{job_id}/steps")
    async def steps(request: Request, job_id: str) -> Response:
        return ui.part(request, "jobs/_steps.html", **await _one(ui, request, job_id))

    @router.get("/parts/jobs/{job_id}/change")
    async def change(request: Request, job_id: str, step: str) -> Response:
        """The options of one process, to be tried again with others."""
        job = await ui.get(request, f"/jobs/{job_id}")
        return ui.part(request, "jobs/_change.html", **await _change(ui, request, job, step))

    @router.post("/jobs/{job_id}/retry/{step}")
    async def changed(request: Request, job_id: str, step: str) -> Response:
        """Tries again with what was changed in the form, and only that."""
        job, sent = await ui.get(request, f"/jobs/{job_id}"), await request.form()
        shown = await _change(ui, request, job, step)
        values = _changes(shown["rows"], {key: str(value) for key, value in sent.items()}, shown["defaults"])
        try:
            await ui.send(
                request, "POST", f"/jobs/{job_id}/retry", {"changes": {step: values}} if values else {}
            )
        except Refusal as refusal:
            typed = {**shown["step"]["config"], **values}
            again = await _change(ui, request, job, step, typed, refusal.error.get("message", ""))
            return ui.part(request, "jobs/_change.html", **again, status=200)
        return ui.gone_to(request, f"/jobs/{job_id}")

    @router.post("/jobs/{job_id}/{action}")
    async def act(request: Request, job_id: str, action: Action) -> Response:
        """Asks something of a job; the page shows what follows by itself."""
        job = await ui.send(request, "POST", f"/jobs/{job_id}/{action}")
        if "hx-request" not in request.headers:
            return RedirectResponse(f"/jobs/{job['id']}", 303)
        said = json.dumps({"toast": f"{job['name']} {SAID[action]}"})
        return Response(status_code=204, headers={"HX-Trigger": said})


async def _listed(ui: Ui, request: Request, state: str, name: str, cursor: str) -> dict[str, Any]:
    """What the list shows: a page of jobs, and of the processes that run how far they are."""
    given = {"state": state, "name": name, "cursor": cursor}
    found = await ui.get(request, "/jobs", limit=PAGE_SIZE, **given)
    workers = (await ui.get(request, "/workers"))["data"]
    query = urlencode({key: value for key, value in given.items() if value and key != "cursor"})
    here = urlencode({key: value for key, value in given.items() if value})
    return {
        "jobs": found["data"], "next_cursor": found["next_cursor"], "workers": workers, "states": STATES,
        "progress": await _progress(ui, request, found["data"]), "state": state, "name": name, "cursor": cursor,
        "query": query, "here": here, "may": ui.may(request, "/jobs"),
    }  # fmt: skip


async def _one(ui: Ui, request: Request, job_id: str) -> dict[str, Any]:
    job = await ui.get(request, f"/jobs/{job_id}")
    return {"job": job, "progress": await _progress(ui, request, [job]), "may": ui.may(request, "/jobs")}


async def _progress(ui: Ui, request: Request, jobs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Run id to what is known of it, of the runs that processes of these jobs carry out now."""
    found = {}
    for run in (step["run"] for job in jobs for step in job["steps"] if step["state"] == "running"):
        if run is not None:
            try:
                found[run] = await ui.get(request, f"/runs/{run}")
            except Refusal as refusal:  # it has not begun, or its folder is gone
                if refusal.status != 404:
                    raise
    return found


async def _change(
    ui: Ui,
    request: Request,
    job: dict[str, Any],
    name: str,
    typed: dict[str, Any] | None = None,
    refused: str = "",
) -> dict[str, Any]:
    """What the dialog shows: the options of one process as it was run, or as they were typed."""
    step = next((one for one in job["steps"] if one["name"] == name), None)
    if step is None:
        known = ", ".join(one["name"] for one in job["steps"])
        raise Refusal(404, {"message": f"This job has no process named {name[:100]!r}. It has: {known}."})
    process = await ui.get(request, f"/processes/{step['process']}")
    key = refused.partition(": ")[0].removeprefix(f"{name}.") if refused else ""
    problems = [{"place": ["config", *key.split(".")], "message": refused.partition(": ")[2]}] if key else []
    values = step["config"] if typed is None else typed
    fields = form.make(
        process["options"],
        process["defaults"],
        values,
        ("config",),
        problems=problems,
        inputs=process["inputs"],
    )
    placed = any(one.problem for one in fields)
    return {
        "job": job, "step": step, "process": process, "rows": fields, "defaults": process["defaults"],
        "refused": "" if placed else refused, "offers": await offers(ui, request, process["inputs"].values()),
    }  # fmt: skip


def _changes(fields: list[form.Field], sent: dict[str, str], defaults: dict[str, Any]) -> dict[str, Any]:
    """What a form holds that differs from what it showed; an emptied field is its default again."""
    found: dict[str, Any] = {}
    for one in fields:
        raw = sent.get(one.id, "false" if one.widget == "switch" else None)
        if one.fields or raw is None:
            continue
        raw = raw.replace("\r\n", "\n")
        if raw != one.raw:
            value = form.read(raw, one.reads, one.nullable)
            found[one.key] = defaults.get(one.key) if value is form.REMOVE else value
    return found


async def offers(ui: Ui, request: Request, kinds: Any) -> dict[str, list[tuple[str, str]]]:
    """What may stand in fields that name an input: kind to `(reference, what it is)`."""
    wanted, found = set(kinds), {}
    if "dataset" in wanted:
        data = (await ui.get(request, "/datasets", limit=100))["data"]
        found["dataset"] = [(one["name"], f"{one['name']}@{one['version']}") for one in data]
    if wanted & {"checkpoint", "model"}:
        data = (await ui.get(request, "/checkpoints", limit=50))["data"]
        runs = [(one["run"], f"{one['kind']}, step {one['step']}") for one in data]
        found |= {
            kind: [("latest", "the newest that fits"), *runs] for kind in wanted & {"checkpoint", "model"}
        }
    return found


def file_name(name: str) -> str:
    """A job's name as a file's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name) or "job"
