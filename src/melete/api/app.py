"""The API's application: one file of `routes/` is one resource, found by its name, under `/api/v1`.

    GET /                 the resources, each with what it is
    GET /openapi.json     the schema
    GET /<resource>       a page, with filters;  GET /<resource>/<id> one of it

A file `routes/harness_profiles.py` with a function `routes(store)` is the resource `/harness-profiles`. The application
asks for no token itself: `melete serve` mounts it behind its own gate, which also knows who may write. Errors have the
shape of all of Melete's servers, `{"error": {"message", "type", "param", "code"}}`, and answers an `ETag`.
"""

from __future__ import annotations

import difflib
import functools
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import WebSocketRoute, compile_path

import melete
from melete import find
from melete.api.body import BodyLimit
from melete.api.etag import ETags
from melete.api.live import socket, streams
from melete.api.live.hub import Hub
from melete.api.rights import Rights
from melete.api.serving import Serving
from melete.api.store import Store
from melete.errors import (
    ApiError,
    ConfigError,
    DiskFullError,
    MeleteError,
    RunGoneError,
    RunStateError,
    StorageError,
    UnknownNameError,
)
from melete.settings import Settings

PREFIX = "/api/v1"
ROUTES = "melete.api.routes"
REFUSED_WRITES = {
    "409": "It cannot be as things are now.",
    "413": "The body is too large.",
    "507": "The disk is full; nothing half-written is left.",
}


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="What was found, what is allowed, what to do.")
    type: str
    param: str | None = Field(None, description="The parameter that is wrong.")
    code: str | None


class Error(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class ResourceEntry(BaseModel):
    """One resource of the API."""

    name: str = Field(examples=["runs"])
    url: str = Field(examples=["/api/v1/runs"])
    description: str = Field(examples=["Runs, and what they left."])


def create_app(settings: Settings, serving: Serving | None = None) -> FastAPI:
    """Builds the application.

    Args:
        settings: where the database is. It is opened at the first request.
        serving: the models and agents of the server around it, where there is one.
    """
    store = Store(settings)
    app = FastAPI(
        title="Melete",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.store = store
    app.state.serving = serving or Serving()
    app.state.hub = Hub(store)
    app.state.hub.add(PREFIX, app, root=PREFIX)
    app.router.routes.append(WebSocketRoute("/live", functools.partial(socket.serve, hub=app.state.hub)))
    app.add_middleware(ETags)
    app.add_middleware(BodyLimit)
    app.add_middleware(Rights, prefix=PREFIX)
    described: dict[int | str, dict[str, Any]] = {
        400: {"model": Error, "description": "A parameter that is wrong."},
        404: {"model": Error, "description": "There is no such thing."},
        503: {"model": Error, "description": "The database does not answer."},
    }

    @app.get("/", tags=["resources"], responses={503: described[503]})
    def list_resources() -> list[ResourceEntry]:
        """The resources of this API."""
        folder = find.folder_of(ROUTES)
        return [
            ResourceEntry(
                name=_url_name(name),
                url=f"{PREFIX}/{_url_name(name)}",
                description=find.first_sentence(folder / f"{name}.py"),
            )
            for name in find.names(ROUTES)
        ]

    for name in find.names(ROUTES):
        router = find.load(ROUTES, name, "resource").routes(store)
        app.include_router(router, prefix=f"/{_url_name(name)}", tags=[_url_name(name)], responses=described)
    app.include_router(streams.routes(store, app.state.hub))
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(MeleteError, _on_melete_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, _on_crash)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _url_name(name: str) -> str:
    return name.replace("_", "-")


def _document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's OpenAPI document, without the 422 that we answer as 400, and with how a write may be refused."""
    if app.openapi_schema is None:
        servers = [{"url": PREFIX}]
        document = get_openapi(
            title=app.title, version=melete.__version__, routes=app.routes, servers=servers
        )
        for path in document["paths"].values():
            for method, operation in path.items():
                operation["responses"].pop("422", None)
                if method != "get":
                    described = {status: _described(words) for status, words in REFUSED_WRITES.items()}
                    operation["responses"] = {**described, **operation["responses"]}
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema


def _described(words: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": words, "content": {"application/json": {"schema": schema}}}


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    where, *place = problem["loc"]
    name = ".".join(map(str, place)) or str(where)
    if problem["type"] == "json_invalid":
        reason = problem.get("ctx", {}).get("error", "it cannot be parsed")
        return _refuse(400, f"The body is not JSON: {reason}.", code="invalid_json")
    if problem["type"] == "extra_forbidden":
        known = _body_keys(request) if where == "body" else _query_parameters(request)
        kind = "key of the body" if where == "body" else "query parameter"
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        message = f"Unrecognized {kind}: {name[:80]!r}.{hint} Known: {', '.join(known) or 'none'}."
        return _refuse(400, message, param=name[:80], code="unknown_parameter")
    if problem["type"] == "missing":
        return _refuse(400, f"{name}: it is missing.", param=name[:80], code="missing_parameter")
    found = repr(problem.get("input"))
    found = found if len(found) <= 80 else found[:77] + "..."
    return _refuse(400, f"{name}: {problem['msg']}; found {found}.", param=name[:80], code="invalid_value")


async def _on_melete_error(request: Request, error: Exception) -> Response:
    if isinstance(error, RunGoneError):
        return _refuse(404, str(error), code="gone")
    if isinstance(error, UnknownNameError):
        return _refuse(404, str(error), code="not_found")
    if isinstance(error, ApiError):
        return _refuse(error.status, str(error), code=error.code)
    if isinstance(error, DiskFullError):
        return _refuse(507, str(error), code="disk_full")
    if isinstance(error, StorageError):
        return _refuse(503, str(error), code="storage", headers={"Retry-After": "2"})
    if isinstance(error, RunStateError) and request.method != "GET":
        return _refuse(409, str(error), code="conflict")
    return _refuse(400, str(error), code="invalid_value" if isinstance(error, ConfigError) else "refused")


async def on_http_error(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself, such as a path that is none, in the house's shape."""
    assert isinstance(error, HTTPException)
    message = (
        f"{request.method} {request.url.path[:200]}: {error.detail}. The resources are listed at {PREFIX}."
    )
    code = "too_large" if error.status_code == 413 else None
    return _refuse(error.status_code, message, code=code, headers=dict(error.headers or {}))


async def _on_crash(request: Request, error: Exception) -> Response:
    # Uvicorn logs the traceback.
    return _refuse(500, f"The server failed on this request ({type(error).__name__}).", code="crash")


def _query_parameters(request: Request) -> list[str]:
    """Names of the query parameters of the path that was asked."""
    found = _operation(request).get("parameters", ())
    return sorted(parameter["name"] for parameter in found if parameter["in"] == "query")


def _body_keys(request: Request) -> list[str]:
    """Keys of the body that the path takes."""
    schema = _operation(request)["requestBody"]["content"]["application/json"]["schema"]
    name = schema.get("$ref", "").rpartition("/")[2]
    return sorted(request.app.openapi()["components"]["schemas"].get(name, {}).get("properties", ()))


def _operation(request: Request) -> dict[str, Any]:
    """What the document says of the path and method that was asked."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    method = request.method.lower()
    for template, operations in request.app.openapi()["paths"].items():
        if method in operations and compile_path(template)[0].match(path):
            return dict(operations[method])
    return {}


def _refuse(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """An error as all of Melete's servers tell it."""
    from melete.serve.problems import Problem

    problem = Problem(status, message, param=param, code=code)
    return Response(problem.to_bytes(), status, headers=headers, media_type="application/json")
