"""Home: what runs now, devices and memory, the queue, the latest results, and what to do first."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui.app import Ui
from melete.ui.page import Page

PAGE = Page("Home", "/", order=10, icon="home", key="h", summary="What runs now, and what came out last.")


def routes(ui: Ui) -> APIRouter:
    """The page and its live part."""
    router = APIRouter()

    @router.get("/")
    async def home(request: Request) -> Response:
        return ui.page(request, "home/home.html", status_now=await ui.get(request, "/status"))

    @router.get("/parts/home/now")
    async def now(request: Request) -> Response:
        return ui.part(request, "home/_now.html", status_now=await ui.get(request, "/status"))

    return router
