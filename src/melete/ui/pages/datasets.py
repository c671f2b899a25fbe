"""Datasets: what there is, its card, and its rows, images and episodes to look through.

/datasets?search=chat&kind=text&at_hand=true     the list
/datasets/NAME?tab=card                          one of it; tabs: card, rows, images, episodes
/datasets/NAME?tab=rows&split=val&start=120      rows of a split from an index on, or with a text: search=
/datasets/NAME?tab=episodes&episode=3            one episode with its frames and figures
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui.app import Ui
from melete.ui.page import Command, Page

PAGE = Page(
    "Datasets",
    "/datasets",
    order=50,
    icon="data",
    key="d",
    summary="What models learn from: cards, rows, images, episodes.",
    commands=(Command("Search the data", "/datasets", "Find a dataset and look through its rows."),),
    finds="/datasets",
)
KINDS = ("text", "conversations", "rows", "files")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
PAGE_OF = {"rows": 20, "images": 48, "episodes": 12}
PATIENCE = 8
LONGEST = 2_000
"""Characters of one value in a row; the rest is a click away."""


def routes(ui: Ui) -> APIRouter:
    """The list, one dataset, and the card that is being made."""
    router = APIRouter()

    @router.get("/datasets")
    async def datasets(request: Request) -> Response:
        asked = {key: request.query_params.get(key, "") for key in ("search", "kind", "at_hand", "cursor")}
        found = await ui.get(request, "/datasets", limit=100, **asked)
        query = urlencode({key: value for key, value in asked.items() if value and key != "cursor"})
        return ui.page(
            request,
            "datasets/list.html",
            found=found,
            asked=asked,
            kinds=KINDS,
            query=query,
            filtered=bool(query),
        )

    @router.get("/datasets/{name}")
    async def dataset(request: Request, name: str) -> Response:
        return ui.page(request, "datasets/one.html", **await _one(ui, request, name))

    @router.get("/parts/datasets/{name}/card")
    async def card(request: Request, name: str) -> Response:
        return ui.part(request, "datasets/_card.html", card=await _card(ui, request, name), name=name)

    return router


async def _one(ui: Ui, request: Request, name: str) -> dict[str, Any]:
    """What the chosen tab of a dataset shows."""
    path = f"/datasets/{quote(name)}"
    one = await ui.get(request, path)
    tabs = _tabs(one)
    given = request.query_params
    tab = given.get("tab", "card")
    tab = tab if tab in tabs else "card"
    asked = {key: given.get(key, "") for key in ("split", "search", "start", "cursor", "episode")}
    values: dict[str, Any] = {"one": one, "tab": tab, "tabs": tabs, "asked": asked, "here": path}
    values |= {"card": None, "page": None, "episode": None, "query": ""}
    if tab == "card":
        values["card"] = await _card(ui, request, name)
    elif tab == "episodes" and asked["episode"]:
        values["episode"] = await ui.get(request, f"{path}/episodes/{quote(asked['episode'])}")
        values["lines"] = [_line(figure) for figure in values["episode"]["figures"]]
    else:
        of = {
            "rows": ("split", "search", "start", "cursor"),
            "images": ("search", "start", "cursor"),
            "episodes": ("cursor",),
        }
        query = {key: asked[key] for key in of[tab] if asked[key]}
        if query.get("cursor"):
            query.pop("start", None)
        page = await ui.get(request, f"{path}/{tab}", limit=PAGE_OF[tab], **query)
        for _ in range(PATIENCE):  # the API reads for an eighth of a second at a time
            if page["data"] or not page["next_cursor"]:
                break
            on = {**query, "start": None, "cursor": page["next_cursor"]}
            page = await ui.get(request, f"{path}/{tab}", limit=PAGE_OF[tab], **on)
        if tab == "rows":
            page["data"] = [_row(row) for row in page["data"]]
        values["page"] = page
        values["query"] = urlencode(
            {"tab": tab, **{key: query[key] for key in query if key not in ("cursor", "start")}}
        )
    return values


async def _card(ui: Ui, request: Request, name: str) -> dict[str, Any]:
    """The data card without its heading and description, which the page has."""
    card: dict[str, Any] = await ui.get(request, f"/datasets/{quote(name)}/card")
    return {**card, "markdown": card["markdown"].split("\n\n", 2)[-1]}


def _tabs(one: dict[str, Any]) -> list[str]:
    has = {"rows": one["at_hand"] and one["splits"], "images": one["images"], "episodes": one["episodes"]}
    return ["card", *(name for name, there in has.items() if there)]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as something to look at: a text, the turns of a conversation, or names with values."""
    values = row["row"]
    if values is None:
        return {**row, "kind": "text", "text": row["text"] or ""}
    messages = values.get("messages")
    if isinstance(messages, list) and all(isinstance(one, dict) and "role" in one for one in messages):
        turns = [_turn(one) for one in messages]
        return {**row, "kind": "conversation", "turns": turns, "tools": values.get("tools") or []}
    return {**row, "kind": "values", "values": [_value(key, value) for key, value in values.items()]}


def _turn(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    calls = [
        {"name": str(of.get("name", "")), "arguments": _told(of.get("arguments", ""))}
        for call in message.get("tool_calls") or []
        if isinstance(of := call.get("function"), dict)
    ]
    text = content if isinstance(content, str) else "" if content is None else _told(content)
    return {"role": str(message["role"]), "text": text, "calls": calls}


def _value(key: str, value: Any) -> dict[str, Any]:
    picture = isinstance(value, str) and (
        value.startswith("data:image/") or (len(value) < 300 and value.lower().endswith(PICTURES))
    )
    text = _told(value)
    return {"key": key, "picture": picture, "text": text[:LONGEST], "rest": text[LONGEST:]}


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _line(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure of an episode as the points of a small drawing, 100 wide and 24 high."""
    values = figure["values"]
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    scale, across = (high - low) or 1.0, max(1, len(values) - 1)
    points = " ".join(
        f"{at * 100 / across:.2f},{23 - (value - low) * 22 / scale:.2f}"
        for at, value in enumerate(values)
        if value is not None
    )
    return {
        "key": figure["key"],
        "points": points,
        "low": low,
        "high": high,
        "last": known[-1] if known else None,
    }
