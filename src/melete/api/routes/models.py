"""Models: what was trained here, from its data to where it is deployed and loaded; downloads."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from melete.api import here, models_here
from melete.api.etag import has_tag
from melete.api.model_records import Model, ModelDetail
from melete.api.serving import Serving
from melete.api.store import Asked, Listed, Store, Text
from melete.errors import UnknownNameError
from melete.runs import checkpoints
from melete.store import index

MOST_RUNS = 1_000
"""Runs that are looked at for one page."""
PIECE_BYTES = 1 << 20
BLOCK = tarfile.BLOCKSIZE
ModelId = Annotated[
    str,
    InPath(
        max_length=200,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="The id of a run that saved checkpoints, or its name (the newest).",
        examples=["20261120-123405-sft-a1f3"],
    ),
]


class ModelAsked(Asked):
    """Which models."""

    kind: Text | None = Field(None, description="What was saved.", examples=["llm"])


class DownloadAsked(BaseModel):
    """Which files."""

    model_config = ConfigDict(extra="forbid")

    step: int | None = Field(
        None, ge=0, lt=10**12, description="Of the checkpoint; the newest by default.", examples=[200]
    )
    state: bool = Field(False, description="With the optimizer's state, which a resume needs.")


def routes(store: Store) -> APIRouter:
    """A list, newest first, one of it, and its files in one."""
    router, settings = APIRouter(), store.settings

    @router.get("")
    def list_models(request: Request, asked: Annotated[ModelAsked, Query()]) -> Listed[Model]:
        """List trained models, newest first; at most 1,000 runs are looked at for one page."""
        deployed, serving = models_here.deployments(settings), _serving(request)
        found: list[Model] = []
        looked, cursor = 0, asked.cursor
        own = index.location(settings)
        with store.read() as connection:
            while True:
                page = here.page(connection, {"location": own}, limit=asked.limit - len(found), cursor=cursor)
                for row in page.items:
                    one = models_here.model(settings, row["id"], deployed, serving)
                    if one is not None and asked.kind in (None, one.kind):
                        found.append(one)
                looked, cursor = looked + len(page.items), page.next_cursor
                if cursor is None or len(found) == asked.limit or looked >= MOST_RUNS:
                    return Listed[Model](object="list", data=found, next_cursor=cursor)

    @router.get("/{model_id}")
    def get_model(request: Request, model_id: ModelId) -> ModelDetail:
        """One model with its checkpoints, the best of them, and its lineage."""
        return models_here.detail(settings, _run_of(store, model_id), _serving(request))

    @router.get(
        "/{model_id}/download",
        response_class=StreamingResponse,
        responses={200: {"description": "A tar file.", "content": {"application/x-tar": {}}}},
    )
    def download_model(
        request: Request, model_id: ModelId, asked: Annotated[DownloadAsked, Query()]
    ) -> Response:
        """One checkpoint's folder as a tar file; single files, with ranges, are at /runs/{id}/files."""
        run_id = _run_of(store, model_id)
        files = _files(settings.runs / run_id, run_id, asked)
        tag = f'"{models_here.digest(files[0][1])[:32]}-{int(asked.state)}"'
        if has_tag(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers={"ETag": tag})
        name = f"{files[0][0].partition('/')[0]}.tar"
        headers = {
            "Content-Length": str(tar_bytes([size for _, _, size in files])),
            "Content-Disposition": f'attachment; filename="{name}"',
            "ETag": tag,
        }
        return StreamingResponse(tar(files), media_type="application/x-tar", headers=headers)

    return router


def tar(files: list[tuple[str, Path, int]]) -> Iterator[bytes]:
    """A tar file of `(name in it, file, bytes)`, piece by piece, so that its size matters to no memory.

    Raises:
        OSError: a file is not what it was when the download began; the download then ends too early.
    """
    for name, file, size in files:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = size, file.stat().st_mtime
        yield info.tobuf(tarfile.USTAR_FORMAT)
        left = size
        with file.open("rb") as opened:
            while left:
                piece = opened.read(min(PIECE_BYTES, left))
                if not piece:
                    raise OSError(f"{file.name} became shorter while it was read")
                left -= len(piece)
                yield piece
        yield bytes(-size % BLOCK)
    yield bytes(2 * BLOCK)


def tar_bytes(sizes: list[int]) -> int:
    """Bytes of the tar file of files of these sizes."""
    return sum(BLOCK + size + -size % BLOCK for size in sizes) + 2 * BLOCK


def _files(run: Path, run_id: str, asked: DownloadAsked) -> list[tuple[str, Path, int]]:
    """Names in the tar file, files and their sizes: the record first.

    Raises:
        UnknownNameError: there is no such checkpoint.
        CheckpointError: it cannot be read.
    """
    known = sorted((run / "checkpoints").glob("step_*"))
    folder = run / "checkpoints" / f"step_{asked.step:08d}" if asked.step is not None else known[-1]
    if folder not in known:
        steps = [str(int(one.name.removeprefix("step_"))) for one in known]
        raise UnknownNameError(f"checkpoint of {run_id}", str(asked.step), steps)
    record = checkpoints.read(folder)
    names = [name for name in record.files if asked.state or not name.startswith(models_here.STATE)]
    top = f"{run_id}-{folder.name}"
    found = []
    for name in ("checkpoint.json", *names):
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            raise UnknownNameError(f"file of checkpoint {folder.name}", name, names)
        found.append((f"{top}/{name}", file, file.stat().st_size))
    return found


def _run_of(store: Store, model_id: str) -> str:
    """The run that a model's id or name means.

    Raises:
        UnknownNameError: none that saved a checkpoint.
        RunGoneError: its folder was deleted.
    """
    runs = store.settings.runs
    if not (runs / model_id / "run.json").is_file():
        with store.read() as connection:
            named = here.page(
                connection, {"location": index.location(store.settings), "name": model_id}, limit=20
            )
        found = [row["id"] for row in named.items if checkpoints.latest(runs / row["id"] / "checkpoints")]
        if found:
            return str(found[0])
    here.opened(store, model_id)
    if checkpoints.latest(runs / model_id / "checkpoints") is None:
        raise UnknownNameError(
            "model", model_id, [], next_step="That run has saved no checkpoint; see /api/v1/models."
        )
    return model_id


def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving
