"""A new job: from an example, a process or an earlier job; a form and the job file beside it, two views of one text.

    GET  /jobs/new                  what to begin with
    GET  /jobs/new?process=NAME     also `?example=NAME`, `?job=ID`
    POST /parts/jobs/draft          the text and what was changed in the form; text, form and problems come back

The text is all there is: the form is made from what the API reads in it and from the schema of each process, so a
process that is added appears here by itself. A text that is no YAML leaves the form as it was.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body, Request
from starlette.responses import JSONResponse, Response

from melete.ui import form, render
from melete.ui.app import Refusal, Ui
from melete.ui.page import Page
from melete.ui.pages.jobs import offers

PAGE = Page(
    "New job",
    "/jobs/new",
    icon="plus",
    key="n",
    summary="From an example or a process, as a form and as a file.",
)
ASKED = ("process", "example", "job", "q", "of")
"""Parameters of the address: `of` is a run whose config is taken over. Every other one is the value of an option."""
SYSTEMS = {
    "llm": "Language models", "agents": "Agents", "bench": "Bench", "evals": "Evaluation",
    "diffusion": "Image models", "vla": "Robot policies",
}  # fmt: skip
"""Headings; a system that is not here has its own name."""


class Schemas:
    """What forms are made of; it stays the same while the server runs, so each is asked for once.

    Args:
        ui: asks the API.
    """

    def __init__(self, ui: Ui) -> None:
        self._ui = ui
        self._known: dict[str, Any] = {}

    async def get(self, request: Request, path: str) -> Any:
        """What the API says at a path.

        Raises:
            Refusal: there is no such process.
        """
        if path not in self._known:
            self._known[path] = await self._ui.get(request, path)
        return self._known[path]


def routes(ui: Ui) -> APIRouter:
    """The page, and the answer to each change."""
    router, schemas = APIRouter(), Schemas(ui)

    @router.get("/jobs/new")
    async def new(
        request: Request, process: str = "", example: str = "", job: str = "", q: str = ""
    ) -> Response:
        if not (process or example or job):
            return ui.page(request, "jobs/choose.html", **await _choices(ui, request, q))
        source, text = await _begun(ui, request, process, example, job)
        draft = await ui.send(request, "POST", "/jobs/draft", {"text": text})
        return ui.page(
            request,
            "jobs/new.html",
            source=source,
            may=ui.may(request, "/jobs"),
            **await _shown(ui, schemas, request, draft),
        )

    @router.get("/parts/jobs/choices")
    async def choices(request: Request, q: str = "") -> Response:
        return ui.part(request, "jobs/_choices.html", **await _choices(ui, request, q))

    @router.post("/parts/jobs/draft")
    async def draft(request: Request, asked: dict[str, Any] = Body()) -> Response:  # noqa: B008
        text, edits = str(asked.get("text", "")), []
        for one in asked.get("edits", ()):
            edits.append(await _edit(ui, request, text, one))
        found = await ui.send(request, "POST", "/jobs/draft", {"text": text, "edits": edits})
        shown = await _shown(ui, schemas, request, found)
        return JSONResponse(
            {
                "text": found["text"],
                "form": None if found["values"] is None else _html("jobs/_form.html", **shown),
                "side": _html("jobs/_side.html", **shown),
                "marks": [{"line": one["line"], "message": one["message"]} for one in found["problems"]],
                "ok": found["ok"],
            },
            headers={"Cache-Control": "no-store"},
        )

    return router


async def _begun(ui: Ui, request: Request, process: str, example: str, job: str) -> tuple[str, str]:
    """What a new job begins with: its source in words, and a text."""
    if example:
        return f"the example {example}", (await ui.get(request, f"/examples/{example}"))["text"]
    if job:
        found = await ui.get(request, f"/jobs/{job}")
        return f"the job {found['name']}", found["text"]
    given = {name: value for name, value in request.query_params.items() if name not in ASKED}
    if of := request.query_params.get("of"):
        run = await ui.get(request, f"/runs/{of}")
        given = {**(run["config"] or {}), **given}
    made = await ui.send(request, "POST", f"/processes/{process}/job", {"config": given})
    return f"{process} as in {of}" if of else process, made["text"]


async def _choices(ui: Ui, request: Request, q: str) -> dict[str, Any]:
    """Examples and processes, by system, that hold all words of a search."""
    words = q.lower().split()
    examples = (await ui.get(request, "/examples", limit=100))["data"]
    processes = (await ui.get(request, "/processes", limit=200))["data"]

    def fits(*texts: str) -> bool:
        return all(word in " ".join(texts).lower() for word in words)

    groups: dict[str, list[dict[str, Any]]] = {}
    for one in processes:
        if fits(one["name"], one["description"]):
            groups.setdefault(SYSTEMS.get(one["system"], one["system"]), []).append(one)
    shown = [one for one in examples if fits(one["name"], one["description"], *one["processes"])]
    return {"q": q, "examples": shown, "groups": groups}


async def _edit(ui: Ui, request: Request, text: str, asked: dict[str, Any]) -> dict[str, Any]:
    """A change of the form as the API takes it."""
    if "add" in asked:
        draft = await ui.send(request, "POST", "/jobs/draft", {"text": text})
        steps = _steps(draft["values"] or {})
        return {"place": ["processes", len(steps)], "value": _step(str(asked["add"]), steps)}
    if "raw" not in asked:
        return {"place": asked["place"], "act": asked["act"]}
    value = form.read(str(asked["raw"]), str(asked["reads"]), bool(asked.get("nullable")))
    if value is form.REMOVE:
        return {"place": asked["place"], "act": "remove"}
    return {"place": asked["place"], "value": value}


def _step(process: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """A process to be added, with a name that no other has."""
    taken = {_label(one) for one in steps}
    stem = process.partition(".")[2]
    if stem not in taken:
        return {"process": process}
    number = next(number for number in range(2, len(steps) + 3) if f"{stem}-{number}" not in taken)
    return {"process": process, "name": f"{stem}-{number}"}


async def _shown(ui: Ui, schemas: Schemas, request: Request, draft: dict[str, Any]) -> dict[str, Any]:
    """What form and side show of a draft."""
    values = draft["values"] or {}
    schema = await schemas.get(request, "/jobs/schema")
    problems, defs = draft["problems"], schema["$defs"]
    top = _only(schema, lambda key: key != "processes")
    made, kinds = [], set()
    for number, step in enumerate(_steps(values)):
        one, process = await _step_form(schemas, request, number, step, defs, problems)
        kinds |= set(process["inputs"].values()) if process else set()
        made.append(one)
    names = [_label(step) for step in _steps(values)]
    found = await offers(ui, request, kinds)
    shown = {kind: [*((f"@{name}", "of this job") for name in names), *rows] for kind, rows in found.items()}
    processes = schema["$defs"]["Step"]["properties"]["process"]["enum"]
    return {
        "draft": draft, "steps": made, "offers": shown, "processes": processes,
        "rows": form.make(top, {"next": []}, values, (), problems=problems, defs=defs),
    }  # fmt: skip


async def _step_form(
    schemas: Schemas,
    request: Request,
    number: int,
    step: dict[str, Any],
    defs: dict[str, Any],
    problems: list[Any],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """One process of the job as a part of the form; without options where there is no such process."""
    place = ("processes", number)
    queue = _only(defs["Step"], lambda key: key not in ("process", "config"))
    defaults = {key: one.get("default") for key, one in queue["properties"].items()}
    made: dict[str, Any] = {
        "number": number, "label": _label(step), "process": str(step.get("process", "")), "about": "", "options": [],
        "queue": form.make(queue, defaults, step, place, problems=problems, defs=defs), "problem": "",
    }  # fmt: skip
    for one in made["queue"]:
        one.folded = False
    made["problem"] = " ".join(
        one["message"] for one in problems if one["place"] in ([*place], [*place, "process"])
    )
    try:
        process = await schemas.get(request, f"/processes/{made['process'] or '-'}")
    except Refusal:
        return made, None
    config = step.get("config")
    made["about"] = process["description"]
    made["options"] = form.make(
        process["options"], process["defaults"], config if isinstance(config, dict) else {},
        (*place, "config"), problems=problems, inputs=process["inputs"],
    )  # fmt: skip
    return made, process


def _steps(values: dict[str, Any]) -> list[dict[str, Any]]:
    found = values.get("processes")
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def _label(step: dict[str, Any]) -> str:
    return str(step.get("name") or str(step.get("process", "")).partition(".")[2])


def _only(schema: dict[str, Any], keep: Any) -> dict[str, Any]:
    return {**schema, "properties": {key: one for key, one in schema["properties"].items() if keep(key)}}


def _html(template: str, **values: Any) -> str:
    return bytes(render.html(template, **values).body).decode()
