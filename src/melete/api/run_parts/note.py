"""The note of a run: what people write about it, kept as `note.md` in its folder.

Its revision is a digest of its text and its `ETag`. Who writes with `If-Match` never writes over what somebody else has
written meanwhile: that is 412, with nothing changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from melete.api import here
from melete.api.etag import has_tag
from melete.api.here import RunId
from melete.api.records import Note
from melete.api.store import Store
from melete.errors import ApiError, ConfigError, StorageError
from melete.runs import folder

MOST_CHARACTERS = 100_000
FILE = "note.md"


class NoteBody(BaseModel):
    """A note."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(
        max_length=MOST_CHARACTERS, description="Markdown; empty removes it.", examples=["Diverged at 300."]
    )


def routes(store: Store) -> APIRouter:
    """One note, read and written whole."""
    router = APIRouter()

    @router.get("", response_model=Note)
    def get_run_note(request: Request, response: Response, run_id: RunId) -> Note | Response:
        """The note of a run, empty where there is none; its revision is the `ETag`."""
        path, _ = here.opened(store, run_id)
        note = _note(run_id, here.text_of(path / FILE))
        response.headers["ETag"] = tag = f'"{note.revision}"'
        if has_tag(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers={"ETag": tag})
        return note

    @router.put("", responses={412: {"description": "Somebody else has written it meanwhile."}})
    def put_run_note(
        response: Response,
        run_id: RunId,
        body: NoteBody,
        if_match: Annotated[
            str | None,
            Header(
                max_length=200,
                description="The `ETag` that the new text is based on.",
                examples=['"1b21d4121c7d6e05"'],
            ),
        ] = None,
    ) -> Note:
        """Write the note of a run; with `If-Match` only over the text that it is based on."""
        path, _ = here.opened(store, run_id)
        text = _whole(body.text)
        with _alone(path):
            before = _note(run_id, here.text_of(path / FILE))
            if if_match is not None and not has_tag(if_match, f'"{before.revision}"'):
                raise ApiError(
                    f"The note of {run_id} was changed by somebody else since you read it; yours was not written. "
                    "Read it again, put the two together, and write that.",
                    412,
                    "changed_meanwhile",
                )
            _write(path / FILE, text)
        note = _note(run_id, text)
        response.headers["ETag"] = f'"{note.revision}"'
        return note

    return router


def _note(run_id: str, text: str) -> Note:
    return Note(run=run_id, text=text, revision=hashlib.sha256(text.encode()).hexdigest()[:32])


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("text: it holds half a character (a lone surrogate).") from error
    return text.replace("\r\n", "\n").replace("\x00", "")


def _write(file: Path, text: str) -> None:
    """Writes the note whole, or removes an empty one.

    Raises:
        StorageError: it cannot be written; the one before stays.
    """
    if text:
        folder.replace_file(file, text)
        return
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise folder.storage_error(file, error) from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds the run's folder against other writers of notes, in other servers too.

    Raises:
        StorageError: the folder cannot be opened.
    """
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(f"The folder of run {path.name} cannot be opened ({error.strerror}).") from error
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)
