"""Asking an application in process: what a client over HTTP would see, with the rights of who asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from melete.access import Role, Who, who_of
from melete.api.ask import Answer, ask
from melete.errors import ServerError

READER = Who("phone", Role.READ, "bearer")


async def echo(request: Request) -> Response:
    """Says what was asked."""
    body = await request.json() if request.method == "POST" else None
    told = {
        "path": request.url.path, "query": request.query_params.multi_items(), "body": body,
        "who": who_of(request.scope).name,
    }  # fmt: skip
    return JSONResponse(told, 201 if body else 200, {"X-Told": "yes"})


async def endless(_: Request) -> Response:
    """Never ends, a megabyte at a time."""

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * (1 << 20)

    return StreamingResponse(pieces(), media_type="application/octet-stream")


async def crash(_: Request) -> Response:
    """Fails."""
    raise ZeroDivisionError


async def refuse(_: Request) -> Response:
    """Refuses."""
    raise HTTPException(418, "no")


async def on_crash(_: Request, error: Exception) -> Response:
    """What an application of ours answers then."""
    return PlainTextResponse("failed", 500)


APP = Starlette(
    routes=[
        Route("/echo/{name}", echo, methods=["GET", "POST"]), Route("/endless", endless), Route("/crash", crash),
        Route("/refuse", refuse),
    ],
    exception_handlers={Exception: on_crash},
)  # fmt: skip


def asked(method: str, path: str, **given: Any) -> Answer:
    """Asks, and waits."""
    return asyncio.run(ask(APP, method, path, **given))


def test_question_arrives_with_query_body_and_who_asks() -> None:
    answer = asked(
        "POST",
        "/echo/ü b",
        query={"a": 1, "no": None, "yes": True, "many": ["x", "y"]},
        json={"k": [1]},
        who=READER,
    )
    assert (answer.status, answer.headers["x-told"], answer.ok) == (201, "yes", True)
    assert answer.json() == {
        "path": "/echo/ü b", "query": [["a", "1"], ["yes", "true"], ["many", "x"], ["many", "y"]],
        "body": {"k": [1]}, "who": "phone",
    }  # fmt: skip


def test_application_below_a_root_sees_whole_paths_as_if_it_were_mounted() -> None:
    mounted = TestClient(Starlette(routes=[Mount("/api/v1", APP)])).get("/api/v1/echo/one?a=1")
    assert asked("GET", "/echo/one", query="a=1", root="/api/v1").json() == mounted.json()


def test_refusal_is_an_answer() -> None:
    answer = asked("GET", "/refuse")
    assert (answer.status, answer.ok, answer.body) == (418, False, b"no")


def test_crash_is_the_answer_of_the_application_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    answer = asked("GET", "/crash")
    assert (answer.status, answer.body) == (500, b"failed")
    assert "ZeroDivisionError" in caplog.text


def test_answer_that_is_too_long_is_refused() -> None:
    with pytest.raises(ServerError, match="more than 3 MB"):
        asked("GET", "/endless", most_bytes=3 << 20)


def test_answer_of_another_type_is_refused_before_it_is_made() -> None:
    with pytest.raises(ServerError, match="octet-stream"):
        asked("GET", "/endless", media=("application/json",))
