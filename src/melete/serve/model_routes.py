"""The routes of models: what is served, loading one, newer weights into it, unloading it.

GET    /v1/models               what is served;  GET /v1/models/{id} one of them
POST   /v1/models               load one: {"model": REFERENCE, "name": ID}; without a name, what it calls itself
POST   /v1/models/{id}/reload   newer weights into the running engine: {"checkpoint": REFERENCE} or {}
DELETE /v1/models/{id}          unload it, when it has answered
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from melete.errors import CheckpointError, UnknownNameError
from melete.serve import body, loading, problems
from melete.serve.agents import Agents
from melete.serve.models import ServedModel
from melete.serve.problems import Problem
from melete.settings import Settings

ModelId = Annotated[str, Path(description="A served model's id.")]


class LoadModelRequest(BaseModel):
    """Body of `POST /v1/models`."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=500)
    name: str = Field("", max_length=100, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")


class ReloadRequest(BaseModel):
    """Body of a reload: where the new weights are; nothing means the newest of what the model was loaded by."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str | None = None


def add_to(
    app: FastAPI, models: dict[str, ServedModel], settings: Settings, agents: Agents | None, body_of: Any
) -> None:
    """Adds the models' routes to the application.

    Args:
        app: of the server.
        models: what it serves.
        settings: where checkpoints are found.
        agents: of the server; None loads nothing.
        body_of: says a request's body in the OpenAPI document.
    """

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_row(model, agents) for model in list(models.values())]}

    @app.post("/v1/models/{model_id:path}/reload", openapi_extra=body_of(ReloadRequest))
    async def reload(request: Request, model_id: ModelId) -> dict[str, Any]:
        model = find(models, model_id)
        wanted = await body.read(request, ReloadRequest, empty=b"{}")
        if agents is not None:
            agents.refuse_if_deployed(model)
        try:
            await asyncio.to_thread(model.reload, settings, wanted.checkpoint)
        except (UnknownNameError, CheckpointError) as error:
            status = 404 if isinstance(error, UnknownNameError) else 409
            raise Problem(status, str(error), param="checkpoint", code="checkpoint_refused") from error
        return model.describe()

    @app.get("/v1/models/{model_id:path}")
    async def one_model(model_id: ModelId) -> dict[str, Any]:
        return find(models, model_id).describe()

    if agents is None:
        return

    @app.post("/v1/models", status_code=201, openapi_extra=body_of(LoadModelRequest))
    async def load_model(request: Request) -> Response:
        wanted = await body.read(request, LoadModelRequest)
        made = await asyncio.to_thread(loading.load, agents, wanted.model, wanted.name)
        return JSONResponse(made.describe(), 201)

    @app.delete("/v1/models/{model_id:path}", status_code=204)
    async def unload_model(model_id: ModelId) -> Response:
        loading.unload(agents, model_id)
        return Response(status_code=204)


def _row(model: ServedModel, agents: Agents | None) -> dict[str, Any]:
    """A model in the list, with the agent behind it, if it is one."""
    agent = agents.of(model.id) if agents is not None else None
    return model.describe() | ({"agent": agent.deployment.name} if agent is not None else {})


def find(models: dict[str, ServedModel], name: str) -> ServedModel:
    """A served model by its id.

    Raises:
        Problem: it is not served.
    """
    if name not in models:
        raise problems.model_not_found(name, models)
    return models[name]
