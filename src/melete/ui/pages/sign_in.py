"""Sign in: a token for a cookie; what is sent is taken by the gate in front, which says here what went wrong."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui import render
from melete.ui.app import Ui
from melete.ui.page import Page

PAGE = Page("Sign in", "/login", icon="shield", summary="Show a token of this lab.")


def routes(ui: Ui) -> APIRouter:
    """The page; it stands outside the shell, and loads nothing but its style."""
    router = APIRouter()

    @router.get("/login")
    async def sign_in(request: Request) -> Response:
        problem = getattr(request.state, "sign_in", None)
        wanted = request.query_params.get("next", "")
        return render.html(
            "sign_in/sign_in.html",
            problem=problem.message if problem is not None else None,
            wait_s=problem.headers.get("Retry-After") if problem is not None else None,
            wanted=wanted,
        )

    return router
