"""Job files while they are being written: a text changed at some places, with what it says and what is wrong in it.

An editor and a form beside it are two views of one text. The form sends what was changed in it as edits; the answer is
the text with its comments kept, its values as they stand (wrong ones too), and each problem with its line and place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from melete.api.clean import clean
from melete.api.job_records import Checked, CheckedStep, FileProblem
from melete.api.store import Store
from melete.documents import Problem
from melete.errors import JobFileError

if TYPE_CHECKING:
    from melete.jobs.preview import Preview

LARGEST_TEXT = 200_000
MOST_EDITS = 100
Part = Annotated[str, Field(max_length=500)] | Annotated[int, Field(ge=0, le=100_000)]


class DraftEdit(BaseModel):
    """One change of a text."""

    model_config = ConfigDict(extra="forbid")

    place: list[Part] = Field(
        min_length=1, max_length=40, description="Keys and indices from the top; the index after the last appends.",
        examples=[["processes", 0, "config", "vocab_size"]],
    )  # fmt: skip
    act: Literal["set", "remove", "up", "down"] = Field(
        "set", description="`up` and `down` move an item of a list."
    )
    value: Any = Field(None, description="For `set`.", examples=[512])


class DraftBody(BaseModel):
    """A text, and what is to be changed in it."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(
        max_length=LARGEST_TEXT, description="A job file, YAML or JSON; empty begins a new one.",
        examples=["name: tiny\nprocesses:\n  - process: llm.tokenizer\n"],
    )  # fmt: skip
    edits: list[DraftEdit] = Field([], max_length=MOST_EDITS)


class PlacedProblem(FileProblem):
    """One wrong thing in a text, with the place it belongs to."""

    place: list[str | int] = Field(description="Empty where the text as a whole is meant.")


class Draft(Checked):
    """A text, what it says and what it would do."""

    text: str = Field(description="With the edits in it.")
    values: dict[str, Any] | None = Field(description="What it says, unchecked; null where it is no YAML.")
    problems: list[PlacedProblem]  # type: ignore[assignment]  # a list in a record is read only
    warnings: list[PlacedProblem]  # type: ignore[assignment]


def add(router: APIRouter, store: Store) -> None:
    """Adds the schema of a job file, and what changes a text."""
    known: dict[str, Any] = {}

    @router.get("/schema")
    def get_job_schema() -> dict[str, Any]:
        """The JSON schema of a job file, with the options of every process, for editors and forms."""
        from melete.jobs import schema

        if not known:
            known.update(clean(schema.job_file()))
        return known

    @router.post("/draft")
    def draft_job(body: DraftBody) -> Draft:
        """Change the text of a job file at some places, and check it; nothing is kept."""
        from melete.jobs.text import Edit, change, parse

        edits = [Edit(tuple(one.place), one.act, one.value) for one in body.edits]
        text = change(body.text, edits)
        try:
            values = parse(text)
        except JobFileError:
            values = None
        told = _told(_preview(store, text))
        return Draft(
            **told,
            text=clean(text, 4 * LARGEST_TEXT),
            values=clean(values) if isinstance(values, dict) else None,
        )


def checked(store: Store, text: str) -> Checked:
    """What a text would do."""
    return Checked(**_told(_preview(store, text)))


def _told(found: Preview) -> dict[str, Any]:
    file = f"{found.name or 'job'}.yaml"
    return {
        "ok": not found.problems,
        "problems": [_placed(one) for one in found.problems],
        "warnings": [_placed(one) for one in found.warnings],
        "name": found.name,
        "steps": [CheckedStep.model_validate(clean(vars(step))) for step in found.steps],
        "commands": [f"melete jobs submit {file}", f"melete run {file}"],
    }


def _preview(store: Store, text: str) -> Preview:
    from melete.jobs.preview import preview

    return preview(text, store.settings)


def _placed(one: Problem) -> PlacedProblem:
    return PlacedProblem(
        line=one.line,
        column=one.column,
        key=clean(one.key, 500),
        message=clean(one.text, 4_000),
        place=[part if isinstance(part, int) else clean(part, 500) for part in one.place],
    )
