"""The web application: OpenAI's endpoints, models that come and go, deployed agents, and health.

    POST /v1/chat/completions      chat, streamed or whole, with tools and response formats
    POST /v1/completions           plain completion of text or token ids
    POST /v1/tools/calculator      the tool of the chat page, with the evaluator that the models were trained with
    /v1/models                     what is served, loading and unloading, see `model_routes.py`
    /v1/agents                     deployed agents, see `agent_routes.py`
    GET  /health                   up, and how busy; asks for no token

It has no pages; those are mounted (`mounts`), and without them `/` says where the API is.

Every error has OpenAI's shape. Bodies are read and validated here and not by FastAPI's argument machinery, so that any
body, however odd, gets that shape, and so that a client that forgets the content type is still understood.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

import melete
from melete.errors import MeleteError
from melete.llm.calculator import calculate
from melete.serve import agent_routes, auth, body, model_routes
from melete.serve.agents import Agents
from melete.serve.answer import Answer
from melete.serve.models import ServedModel
from melete.serve.plan import Plan, plan_chat, plan_completion
from melete.serve.problems import Problem
from melete.serve.recording import Recorder, bearer
from melete.serve.schema import ChatRequest, CompletionRequest
from melete.serve.stream import Bridge, Departure
from melete.settings import Settings

REF = "#/components/schemas/{model}"


class Expression(BaseModel):
    """Body of the calculator."""

    model_config = ConfigDict(extra="forbid")

    expression: str = Field(max_length=1_000)


BODIES = (
    ChatRequest,
    CompletionRequest,
    Expression,
    model_routes.LoadModelRequest,
    model_routes.ReloadRequest,
)


def create_app(
    models: dict[str, ServedModel],
    settings: Settings,
    recorder: Recorder | None = None,
    agents: Agents | None = None,
    mounts: Mapping[str, ASGIApp] | None = None,
) -> FastAPI:
    """Builds the application over loaded models, behind its gate; their engines run while the application does.

    Args:
        models: id to model.
        settings: the token to ask for, and where checkpoints are found on a reload.
        recorder: knows the keys of episodes that practise here, whose completions it records.
        agents: deployed agents that this server offers and can load, over the same `models`.
        mounts: path to an application that answers below it, behind the same gate.
    """
    app = models_app(models, settings, recorder, agents)
    carried = mounts or {}
    keys = auth.keyring(settings, carried)
    app.add_middleware(auth.TokenGate, keys=keys, recorder=recorder, pages="" in carried)
    app.state.keys = keys
    if "" not in carried:

        @app.get("/", include_in_schema=False)
        async def root() -> dict[str, str]:
            return {"api": "/v1", "models": "/v1/models", "schema": "/openapi.json"}

    for path, mounted in carried.items():
        app.mount(path, mounted)
    return app


def models_app(
    models: dict[str, ServedModel],
    settings: Settings,
    recorder: Recorder | None = None,
    agents: Agents | None = None,
) -> FastAPI:
    """The routes of models and agents without a gate; see `create_app`."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.bridge, app.state.recorder = Bridge(), recorder
        # A deployed agent's names share one engine.
        for engine in {id(model.engine): model.engine for model in models.values()}.values():
            engine.start()
        if agents is not None:
            agents.running = True
        yield
        for engine in {id(model.engine): model.engine for model in models.values()}.values():
            await asyncio.to_thread(engine.stop)
        if agents is not None:
            agents.close()

    app = FastAPI(title="Melete", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.post("/v1/chat/completions", openapi_extra=_body_of(ChatRequest))
    async def chat_completions(request: Request) -> Response:
        return await _answer(app, models, request, ChatRequest, plan_chat, agents)

    @app.post("/v1/completions", openapi_extra=_body_of(CompletionRequest))
    async def completions(request: Request) -> Response:
        return await _answer(app, models, request, CompletionRequest, plan_completion, agents)

    @app.post("/v1/tools/calculator", openapi_extra=_body_of(Expression))
    async def calculator(request: Request) -> dict[str, str]:
        return {"result": calculate((await body.read(request, Expression)).expression)}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        stats = {name: model.engine.stats() for name, model in list(models.items())}
        return {
            "status": "ok",
            "models": {
                name: {"running": s.running, "waiting": s.waiting, "slots": s.slots}
                for name, s in stats.items()
            },
        }

    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    model_routes.add_to(app, models, settings, agents, _body_of)
    if agents is not None:
        agent_routes.add_to(app, agents)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(MeleteError, _on_melete_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_departure)
    app.add_exception_handler(Exception, _on_crash)
    return app


class EventStream(Response):
    """An answer as server-sent events; a client that leaves cancels it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        answer, form = self._answer, self._answer.plan.form
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            async with Departure(receive, answer.news) as client:
                await send(start)
                await send(_piece(form.opening(answer.plan.choices), more=True))
                while not answer.finished:
                    await answer.news.wait()
                    answer.news.clear()
                    if client.gone:
                        return
                    text = "".join(form.chunks(*news) for news in answer.advance())
                    if answer.finished:
                        text += form.closing(answer.usage())
                    if text:
                        await send(_piece(text, more=not answer.finished))
        except Problem as problem:
            # The status has been sent; what is left is an event that OpenAI clients raise as an error.
            error = f"data: {json.dumps(problem.body(), ensure_ascii=False)}\n\ndata: [DONE]\n\n"
            await send(_piece(error, more=False))
        finally:
            answer.cancel()


async def _answer(
    app: FastAPI,
    models: dict[str, ServedModel],
    request: Request,
    kind: type[Any],
    plan: Callable[[ServedModel, Any], Plan],
    agents: Agents | None,
) -> Response:
    asked = await body.read(request, kind)
    recorder: Recorder | None = app.state.recorder
    # A gateway in between drops headers; the relay of its hub puts the key into `user`.
    keys = (bearer(request.headers.get("authorization")), str(asked.user))
    episode = next(filter(None, map(recorder.episode, keys)), None) if recorder else None
    model = model_routes.find(models, (episode and episode.model) or asked.model)
    agent = agents.of(model.id) if agents is not None and episode is None else None
    if agent is not None:
        asked = agent.prepare(asked)
    make = plan if episode is None else functools.partial(episode.plan, plan)
    planned = await asyncio.to_thread(make, model, asked)
    answer = Answer(planned, app.state.bridge)
    if asked.stream and agent is None:
        return EventStream(answer)
    tokens = await answer.whole(request.receive)
    if tokens is None:
        return Response(status_code=499)
    if agent is not None:
        agent.judge(asked, answer.plan.choices)
    if asked.stream:
        return Response(answer.at_once(tokens), media_type="text/event-stream")
    return JSONResponse(answer.plan.form.body(answer.plan.choices, tokens, answer.usage()))


def _piece(text: str, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}


def _body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The request body in the OpenAPI document, which FastAPI does not see."""
    content = {"application/json": {"schema": {"$ref": REF.format(model=kind.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def _document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's OpenAPI document with the schemas of the bodies."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=melete.__version__, routes=app.routes)
        kinds = [(kind, "validation") for kind in BODIES]
        _, schemas = models_json_schema(kinds, ref_template=REF)  # type: ignore[arg-type]
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
        app.openapi_schema = document
    return app.openapi_schema


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return auth.refuse(error)


async def _on_melete_error(request: Request, error: Exception) -> Response:
    return auth.refuse(Problem(400, str(error), code="refused"))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}."
    if error.status_code == 404:
        message += " The API is at /v1, such as /v1/chat/completions."
    return auth.refuse(Problem(error.status_code, message, headers=dict(error.headers or {})))


async def _on_departure(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it, and nothing is wrong


async def _on_crash(request: Request, error: Exception) -> Response:
    # Uvicorn logs the traceback.
    return auth.refuse(
        Problem(500, f"The server failed on this request ({type(error).__name__}).", code="crash")
    )
