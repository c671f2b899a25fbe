"""The chat page: one rendered shell, our own CSS and one custom element; it speaks to the same API as everyone.

Nothing is loaded from another host and the content security policy says so. The page's one tool, a calculator, is
run by the server (`POST /chat/tools/calculator`), with the evaluator that the models were trained with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.responses import HTMLResponse, RedirectResponse, Response

from melete.llm.calculator import calculate
from melete.serve.auth import COOKIE, cookie_value, same
from melete.serve.models import ServedModel
from melete.serve.problems import Problem
from melete.settings import Settings

HERE = Path(__file__).parent
STATIC = HERE / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    # With "no-referrer" a browser would send the login form with "Origin: null", which the gate refuses.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def add_to(app: FastAPI, models: Mapping[str, ServedModel], settings: Settings) -> None:
    """Adds the page's routes to the application."""

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/chat")

    @app.get("/chat", include_in_schema=False)
    async def chat() -> Response:
        known = [{"id": model.id, "context": model.lm.context} for model in list(models.values())]
        return render("chat.html", models=known)

    @app.post("/chat/tools/calculator", include_in_schema=False)
    async def calculator(request: Request) -> dict[str, str]:
        try:
            expression = json.loads(await request.body())["expression"]
        except (ValueError, KeyError, TypeError) as error:
            raise Problem(400, 'The body must be {"expression": "…"}.', param="expression") from error
        return {"result": calculate(str(expression)[:1000])}

    @app.get("/login", include_in_schema=False)
    async def login(token: str | None = None) -> Response:
        if settings.token is None or (token is not None and same(token, settings.token)):
            return enter(settings)
        return render("login.html", status=200 if token is None else 401, wrong=token is not None)

    @app.post("/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        from urllib.parse import parse_qs

        body = (await request.body())[:4096].decode("utf-8", "replace")
        given = parse_qs(body).get("token", [""])[0]
        if settings.token is None or same(given, settings.token):
            return enter(settings)
        return render("login.html", status=401, wrong=True)


class Assets(StaticFiles):
    """Static files that a browser asks for again each time; an unchanged one costs it an empty 304 answer."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """See Starlette."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def enter(settings: Settings) -> Response:
    """Sends the visitor to the chat page with the cookie that lets them in."""
    response = RedirectResponse("/chat", status_code=303, headers=HEADERS)
    if settings.token is not None:
        response.set_cookie(COOKIE, cookie_value(settings.token), httponly=True, samesite="strict", path="/")
    return response


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from its template."""
    html = _environment().get_template(template).render(**values)
    return HTMLResponse(html, status, headers=HEADERS)


@cache
def _environment() -> Environment:
    folder = FileSystemLoader(HERE / "templates")
    return Environment(loader=folder, autoescape=select_autoescape(), trim_blocks=True)
