"""Files of a run: which there are, and what is in them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import FileResponse, Response

from melete.api import here, paging, run_files
from melete.api.etag import has_tag
from melete.api.here import RunId
from melete.api.records import RunFile
from melete.api.store import PLAIN, Asked, Listed, Store, Text
from melete.errors import UnknownNameError

FilePath = Annotated[
    str,
    Path(
        max_length=500, pattern=PLAIN, description="A path from the list of files.", examples=["config.yaml"]
    ),
]
SAFE = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:",
        "X-Content-Type-Options": "nosniff"}  # fmt: skip
"""A file may hold a page that somebody else wrote: it is shown without scripts and has no part in this site."""
INLINE = ("image/", "text/", "video/", "application/json")


class FileAsked(Asked):
    """Which files."""

    folder: Text | None = Field(None, description="Only those below this folder.", examples=["samples"])


def routes(store: Store) -> APIRouter:
    """A list by path, and one file."""
    router = APIRouter()

    @router.get("")
    def list_run_files(run_id: RunId, asked: Annotated[FileAsked, Query()]) -> Listed[RunFile]:
        """List files of a run by path."""
        path, _ = here.opened(store, run_id)
        found = run_files.listed(path)
        if asked.folder:
            found = (file for file in found if file.path.startswith(asked.folder.rstrip("/") + "/"))
        return paging.page(
            found,
            lambda file: file.path,
            of=f"files {run_id} {asked.folder or ''}",
            limit=asked.limit,
            cursor=asked.cursor,
        )

    @router.get(
        "/{file:path}",
        response_class=FileResponse,
        responses={200: {"description": "The file.", "content": {"*/*": {}}}},
    )
    def get_run_file(request: Request, run_id: RunId, file: FilePath) -> Response:
        """Content of one file; ranges are answered."""
        path, _ = here.opened(store, run_id)
        found = run_files.located(path, file)
        if found is None:
            known = [one.path for one in run_files.listed(path)]
            raise UnknownNameError("file of this run that may be seen", file, known[:50])
        kind = run_files.media_type(file) or "application/octet-stream"
        answer = FileResponse(
            found,
            stat_result=found.stat(),
            media_type=kind,
            headers=SAFE,
            filename=found.name,
            content_disposition_type="inline" if kind.startswith(INLINE) else "attachment",
        )
        if has_tag(request.headers.get("if-none-match", ""), answer.headers["etag"]):
            return Response(status_code=304, headers={"ETag": answer.headers["etag"]})
        return answer

    return router
