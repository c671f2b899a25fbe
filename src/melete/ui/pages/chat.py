"""Chat: talk to models and agents of this server, two of them side by side; tool calls and the guard's verdicts shown.

The page is a shell for the elements of `static/chat/`, which speak to `/v1` as every client does. Conversations are
kept by the browser, so nothing that is said here is stored on the server.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from melete.ui.app import Ui
from melete.ui.page import Page

PAGE = Page(
    "Chat", "/chat", order=70, icon="chat", key="c", summary="Talk to a model, or to two side by side."
)


def routes(ui: Ui) -> APIRouter:
    """The page."""
    router = APIRouter()

    @router.get("/chat")
    async def chat(request: Request) -> Response:
        return ui.page(request, "chat/chat.html")

    return router
