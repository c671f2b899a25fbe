"""The pages' application: one file of `pages/` is one page; each asks the API in process and fills a template.

    GET /…                the pages
    GET /parts/<page>/…   fragments of a page, which the WebSocket keeps fresh
    GET /static/<hash>/…  style sheet, elements and libraries, cached for ever under their hash

It reads nothing itself: what a page shows, the API says, with the rights of the visitor. A refusal of the API becomes
the page's error state, with its status.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp

from melete import access, find
from melete.api.ask import Answer, ask
from melete.settings import Settings
from melete.ui import assets, render
from melete.ui.page import Page

PAGES = "melete.ui.pages"


class Refusal(Exception):
    """The API refused what a page asked.

    Args:
        status: of HTTP.
        error: `message`, `param` and `code`, as the API says them.
    """

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(error.get("message", ""))
        self.status = status
        self.error = error


class Ui:
    """What the pages' routes use.

    Args:
        settings: of the home whose lab this is.
        api: the application below `/api/v1`.
        pages: all pages, in the order of the navigation.
    """

    def __init__(self, settings: Settings, api: ASGIApp, pages: list[Page]) -> None:
        self.settings = settings
        self.api = api
        self.pages = pages

    async def get(self, request: Request, path: str, **query: Any) -> Any:
        """What the API says at a path below `/api/v1`; parameters that are None or empty are left out.

        Raises:
            Refusal: the API answers with an error.
        """
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return self._content(
            await ask(self.api, "GET", path, query=given, who=getattr(request.state, "who", None))
        )

    async def get_or(self, request: Request, path: str, default: Any, **query: Any) -> Any:
        """As `get`; where the API refuses, a default, for what a page can do without."""
        try:
            return await self.get(request, path, **query)
        except Refusal:
            return default

    async def send(self, request: Request, method: str, path: str, json: Any = None) -> Any:
        """Asks the API for a change.

        Args:
            request: of the visitor, whose rights are used.
            method: POST, PUT or DELETE.
            path: below `/api/v1`.
            json: the body.

        Raises:
            Refusal: the API answers with an error.
        """
        return self._content(
            await ask(self.api, method, path, json=json, who=getattr(request.state, "who", None))
        )

    @staticmethod
    def may(request: Request, path: str) -> bool:
        """Whether the visitor may post to a path, for what is offered."""
        return access.may(access.who_of(request.scope), "POST", path)

    @staticmethod
    def gone_to(request: Request, path: str, said: str = "") -> Response:
        """Leads to another page after a form; a script is told so, with a note to show."""
        if "hx-request" not in request.headers:
            return RedirectResponse(path, 303)
        note = {"HX-Trigger": json.dumps({"toast": said})} if said else {}
        return Response(status_code=204, headers={"HX-Redirect": path, **note})

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page in its shell."""
        return render.html(template, status, request=request, pages=self.pages, **values)

    def part(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A fragment of a page."""
        return render.html(template, status, request=request, pages=self.pages, **values)

    @staticmethod
    def _content(answer: Answer) -> Any:
        content = answer.json() if answer.body else None
        if answer.status >= 400:
            found = content.get("error") if isinstance(content, dict) else None
            raise Refusal(answer.status, found or {"message": f"The API answered {answer.status}."})
        return content


def create_app(settings: Settings, api: ASGIApp) -> FastAPI:
    """Builds the application.

    Args:
        settings: of the home whose lab this is.
        api: the application below `/api/v1`.
    """
    app = FastAPI(title="Melete", docs_url=None, redoc_url=None, openapi_url=None)
    modules = [find.load(PAGES, name, "page") for name in find.names(PAGES)]
    pages = [module.PAGE for module in modules]
    ui = Ui(settings, api, sorted(pages, key=lambda page: (page.order is None, page.order or 0, page.title)))
    app.state.ui = ui
    for module in modules:
        app.include_router(module.routes(ui))
    app.mount("/static", assets.application(), name="static")
    app.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return _error(ui, request, error.status, error.error)

    async def not_found(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = f"There is no page at {request.url.path[:200]}." if error.status_code == 404 else error.detail
        return _error(ui, request, error.status_code, {"message": said})

    async def broken(request: Request, error: Exception) -> Response:
        said = "This page could not be made; the server's log says why. Everything else goes on."
        return _error(ui, request, 500, {"message": said})

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, not_found)
    return app


def _error(ui: Ui, request: Request, status: int, error: dict[str, Any]) -> Response:
    whole = "hx-request" not in request.headers and not request.url.path.startswith("/parts/")
    template = "error.html" if whole else "_error.html"
    return ui.page(request, template, status=status, error=error, code=status)
