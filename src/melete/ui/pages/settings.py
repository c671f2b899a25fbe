"""Settings: who you are here, how it looks; for admins the tokens, the browsers signed in, and the audit log.

GET    /settings                    the page; `who`, `action` and `cursor` choose what of the audit log is shown
POST   /settings/tokens             makes a token, and shows its secret this once
DELETE /settings/tokens/ID          revokes one;  DELETE /settings/sign-ins/ID signs a browser out
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from melete.access import Role, who_of
from melete.ui.app import Refusal, Ui
from melete.ui.page import Command, Page

PAGE = Page(
    "Settings",
    "/settings",
    order=100,
    icon="settings",
    key=",",
    summary="Tokens, browsers signed in, who changed what.",
    commands=(Command("New token", "/settings#new-token", "Let somebody else in, or a program."),),
)
ROLES = {
    Role.READ: "looks at everything",
    Role.OPERATE: "also uses models, submits and steers jobs",
    Role.ADMIN: "also deploys, deletes and hands out tokens",
}
ENTRIES = 20
BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
"""Marks of a `User-Agent`, the more telling ones first: most browsers also call themselves by the names of others."""


def routes(ui: Ui) -> APIRouter:
    """The page, its live parts, and what can be changed."""
    router = APIRouter()
    _add_shown(router, ui)
    _add_changes(router, ui)
    return router


def _add_shown(router: APIRouter, ui: Ui) -> None:
    @router.get("/settings")
    async def settings(request: Request, who: str = "", action: str = "", cursor: str = "") -> Response:
        return ui.page(request, "settings/settings.html", **await _all(ui, request, who, action, cursor))

    @router.get("/parts/settings/tokens")
    async def tokens(request: Request) -> Response:
        return ui.part(request, "settings/_tokens.html", **await _tokens(ui, request))

    @router.get("/parts/settings/audit")
    async def audit(request: Request, who: str = "", action: str = "", cursor: str = "") -> Response:
        return ui.part(request, "settings/_audit.html", **await _audit(ui, request, who, action, cursor))


def _add_changes(router: APIRouter, ui: Ui) -> None:
    @router.post("/settings/tokens")
    async def create(
        request: Request, name: str = Form(""), role: str = Form(""), days: str = Form("")
    ) -> Response:
        request.state.changed = name
        wanted: dict[str, Any] = {"name": name, "role": role, "days": _number(days)}
        made, problem = None, None
        try:
            made = await ui.send(request, "POST", "/tokens", wanted)
        except Refusal as refusal:
            problem = refusal.error
        shown: dict[str, Any] = {
            "made": made,
            "problem": problem,
            "roles": ROLES,
            "given": wanted if problem else {},
        }
        if "hx-request" in request.headers:
            return ui.part(request, "settings/_new.html", **shown)
        return ui.page(request, "settings/settings.html", **{**await _all(ui, request), **shown})

    @router.delete("/settings/tokens/{token_id}")
    async def revoke(request: Request, token_id: str) -> Response:
        await ui.send(request, "DELETE", f"/tokens/{quote(token_id, safe='')}")
        return _done("The token opens nothing any more.")

    @router.delete("/settings/sign-ins/{sign_in_id}")
    async def end(request: Request, sign_in_id: str) -> Response:
        await ui.send(request, "DELETE", f"/tokens/sign-ins/{quote(sign_in_id, safe='')}")
        return _done("Signed out.")


async def _all(ui: Ui, request: Request, who: str = "", action: str = "", cursor: str = "") -> dict[str, Any]:
    visitor = who_of(request.scope)
    admin = visitor.role.covers(Role.ADMIN)
    shown: dict[str, Any] = {"visitor": visitor, "can": ROLES[visitor.role], "admin": admin, "roles": ROLES}
    if admin:
        shown |= {**await _tokens(ui, request), **await _audit(ui, request, who, action, cursor)}
    return {**shown, "made": None, "problem": None, "given": {}}


async def _tokens(ui: Ui, request: Request) -> dict[str, Any]:
    return {
        "tokens": (await ui.get(request, "/tokens", limit=200))["data"],
        "sign_ins": [
            {**one, "program": program(one["browser"])}
            for one in (await ui.get(request, "/tokens/sign-ins", limit=200))["data"]
        ],
    }


async def _audit(ui: Ui, request: Request, who: str, action: str, cursor: str) -> dict[str, Any]:
    filters = {name: value for name, value in (("who", who), ("action", action)) if value}
    page = await ui.get(request, "/audit", limit=ENTRIES, cursor=cursor, **filters)
    here = {**filters, **({"cursor": cursor} if cursor else {})}
    return {
        "entries": page["data"],
        "next_cursor": page["next_cursor"],
        "filters": {"who": who, "action": action},
        "query": urlencode(filters),
        "here": urlencode(here),
    }


def program(agent: str) -> str:
    """What a `User-Agent` says in a few words, such as `Firefox on Linux`; its beginning where it is of no browser."""
    name = next((shown for mark, shown in BROWSERS if mark in agent), None)
    system = next((shown for mark, shown in SYSTEMS if mark in agent), None)
    return f"{name} on {system}" if name and system else (name or agent[:40] or "unknown")


def _number(text: str) -> float | str | None:
    """A number of a form; what is none is left for the API to refuse."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return text


def _done(said: str) -> Response:
    """Nothing to show: the live part of the page follows by itself."""
    return Response(status_code=204, headers={"HX-Trigger": json.dumps({"toast": said})})
