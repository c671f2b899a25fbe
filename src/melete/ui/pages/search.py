"""Search: pages, commands, and things of the lab by their id or name; the palette's list, and a page of its own.

Of each kind the newest two hundred things are looked through, and all where the API can search its list.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui.app import Ui
from melete.ui.page import Command, Page

PAGE = Page("Search", "/search", icon="search", summary="Find a run, a job, a dataset, a model by name.")
LOOKED_THROUGH = 200
MOST_EACH = 6
THEMES = (
    Command("Theme: light", "light", "Bright paper, dark ink."),
    Command("Theme: dark", "dark", "Dark paper, bright ink."),
    Command("Theme: follow the system", "system", "As the system says."),
    Command("Keyboard shortcuts", "keys", "All keys of this page."),
)


@dataclass(frozen=True)
class Found:
    """One thing that was found.

    Attributes:
        title: its name.
        note: what it is.
        href: where it is; empty where `action` says what to do.
        icon: of its page.
        action: of the shell's script.
    """

    title: str
    note: str
    href: str = ""
    icon: str = "dot"
    action: str = ""


def routes(ui: Ui) -> APIRouter:
    """The page, and the palette's list."""
    router = APIRouter()

    @router.get(PAGE.path)
    async def search(request: Request, q: str = "") -> Response:
        return ui.page(request, "search/search.html", q=q, groups=await found(ui, request, q, actions=False))

    @router.get("/parts/palette")
    async def palette(request: Request, q: str = "") -> Response:
        return ui.part(request, "search/_palette.html", q=q, groups=await found(ui, request, q, actions=True))

    return router


async def found(ui: Ui, request: Request, asked: str, *, actions: bool) -> dict[str, list[Found]]:
    """What fits the words, by kind; pages and commands for no words at all.

    Args:
        ui: the pages.
        request: of the visitor.
        asked: words, all of which have to be in an id, a name or a sentence.
        actions: whether what only a script can do is offered too.
    """
    words = asked[:200].lower().split()
    pages = [Found(page.title, page.summary, page.path, page.icon) for page in ui.pages]
    commands = [
        Found(command.title, command.summary, command.path, "next")
        for page in ui.pages
        for command in page.commands
    ]
    if actions:
        commands += [Found(one.title, one.summary, icon="theme", action=one.path) for one in THEMES]
    groups = {"Pages": _fitting(pages, words), "Commands": _fitting(commands, words)}
    if words:
        searched = [page for page in ui.pages if page.finds]
        things = await asyncio.gather(*(_things(ui, request, page, words) for page in searched))
        groups = {page.title: some for page, some in zip(searched, things, strict=True)} | groups
    return {kind: some for kind, some in groups.items() if some}


def _fitting(rows: list[Found], words: list[str]) -> list[Found]:
    fits = [row for row in rows if all(word in f"{row.title} {row.note}".lower() for word in words)]
    return sorted(fits, key=lambda row: bool(words) and not row.title.lower().startswith(words[0]))


async def _things(ui: Ui, request: Request, page: Page, words: list[str]) -> list[Found]:
    """Things of one list of the API that fit: of the newest, then of all, where the list can be searched."""
    assert page.finds is not None
    none: dict[str, Any] = {"data": []}
    newest = await ui.get_or(request, page.finds, none, limit=LOOKED_THROUGH)
    rows = {_key(row): row for row in newest["data"] if all(word in _text(row) for word in words)}
    if len(rows) < MOST_EACH:
        older = await ui.get_or(request, page.finds, none, limit=MOST_EACH, search=words[0])
        rows |= {_key(row): row for row in older["data"] if all(word in _text(row) for word in words)}
    return [_thing(page, row) for row in list(rows.values())[:MOST_EACH]]


def _key(row: dict[str, Any]) -> str:
    return str(row.get("id") or row.get("name"))


def _text(row: dict[str, Any]) -> str:
    shown = (row.get(key) for key in ("id", "name", "process", "kind", "state", "description"))
    return " ".join(str(value) for value in shown if value).lower()


def _thing(page: Page, row: dict[str, Any]) -> Found:
    key = _key(row)
    notes = (row.get("process") or row.get("kind"), row.get("state"), key if row.get("name") != key else None)
    note = " · ".join(str(one) for one in notes if one)
    return Found(str(row.get("name") or key), note, f"{page.finds_at or page.path}/{quote(key)}", page.icon)
